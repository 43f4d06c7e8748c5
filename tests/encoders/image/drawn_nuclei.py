"""Tiles with discs of haematoxylin on eosin, whose number, places, areas and stains are known."""

from __future__ import annotations

import numpy as np

from spatialwhisperer.encoders.image.stain import REFERENCE_STAINS, REFERENCE_STRENGTHS

MPP, EDGE = 0.5, 640
UNITS = np.array(REFERENCE_STAINS) * np.array(REFERENCE_STRENGTHS)[:, None]


def lattice(pitch_um: float, *, shift: tuple[float, float] = (0.0, 0.0), edge: int = EDGE) -> np.ndarray:
    """Centres (x, y) in pixels on a square lattice that is symmetric to the centre of the tile but for a shift in pixels."""
    half = edge / 2 * MPP // pitch_um
    steps = (np.arange(-half, half + 1) + 0.5) * pitch_um / MPP
    x, y = (axis.ravel() for axis in np.meshgrid(steps, steps))
    return np.column_stack([x + shift[0], y + shift[1]]) + (edge - 1) / 2


def tile(
    centres: np.ndarray, radius_um: float | np.ndarray = 3.5, *, h: float = 0.9, e: float = 0.3, edge: int = EDGE
) -> np.ndarray:
    """One uint8 tile (3, edge, edge): discs of ``h`` units of haematoxylin on ``e`` units of eosin."""
    stain = np.zeros((edge, edge))
    y, x = np.mgrid[:edge, :edge]
    for (cx, cy), radius in zip(centres, np.broadcast_to(radius_um, len(centres)), strict=True):
        r = radius / MPP
        rows = slice(max(int(cy - r) - 1, 0), max(int(cy + r) + 2, 0))
        columns = slice(max(int(cx - r) - 1, 0), max(int(cx + r) + 2, 0))
        inside = (x[rows, columns] - cx) ** 2 + (y[rows, columns] - cy) ** 2 <= r * r
        stain[rows, columns][inside] = h
    density = stain * UNITS[0][:, None, None] + e * UNITS[1][:, None, None]
    return np.clip(256 * 10**-density - 1, 0, 255).round().astype(np.uint8)
