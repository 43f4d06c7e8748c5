"""Where the cells of a simulated section lie: tissue outline, niches, cell positions, sizes and directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import cKDTree

CLASSES = ("cancer cell", "T cell", "fibroblast", "adipocyte", "endothelial cell")
CANCER, T, FIBROBLAST, ADIPOCYTE, ENDOTHELIAL = range(5)

GRID_UM = 8.0
"""Step of the coarse grid on which tissue properties vary."""

# rows: niches (tumour nest, lymphoid aggregate, stroma, fat, vessel-rich); columns: fraction of the area by class
NICHES = np.array(
    [
        [0.84, 0.06, 0.06, 0.00, 0.04],
        [0.06, 0.82, 0.06, 0.00, 0.06],
        [0.05, 0.06, 0.84, 0.01, 0.04],
        [0.00, 0.03, 0.03, 0.91, 0.03],
        [0.04, 0.07, 0.17, 0.02, 0.70],
    ]
)
NICHE_BIAS = np.array([0.20, -0.05, 0.30, 0.10, -0.05])

# per class; lengths in microns, densities in cells per square millimetre of area that the class holds
DENSITY = np.array([6400.0, 11500.0, 3000.0, 0.0, 500.0])
LONG_UM = np.array([6.2, 3.5, 7.2, 5.0, 4.6])
SHORT_UM = np.array([5.0, 3.2, 1.7, 1.2, 1.5])
DARK = np.array([0.95, 1.55, 1.15, 1.3, 1.45])
VESICULAR = np.array([0.9, 0.0, 0.25, 0.0, 0.0])
HAEM = np.array([0.26, 0.14, 0.05, 0.03, 0.05])
EOSIN = np.array([0.36, 0.20, 0.46, 0.34, 0.62])
FIBRE = np.array([0.10, 0.05, 1.00, 0.10, 0.45])
BODY_UM = np.array([7.0, 4.0, 8.0, 26.0, 6.0])
"""Radius of a cell's body in microns; a spot captures the cells whose body reaches into it."""

VACUOLE_STEP_UM, VACUOLE_UM = 52.0, 25.0
VESSEL_STEP_UM, VESSEL_UM = 38.0, 9.0


@dataclass
class Cells:
    """Cells of one section; lengths in microns, one row per cell."""

    xy: np.ndarray
    body_xy: np.ndarray
    kind: np.ndarray
    long: np.ndarray
    short: np.ndarray
    angle: np.ndarray

    def take(self, rows: np.ndarray) -> Cells:
        """Select cells."""
        return Cells(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


@dataclass
class Tissue:
    """Coarse maps of one section (rows y, columns x, one value every ``GRID_UM``) and its spots and holes.

    ``inside`` is roughly the distance to the tissue's edge in microns, positive inside; ``area`` the fraction of the area that each class
    holds, shape (y, x, classes).
    """

    inside: np.ndarray
    area: np.ndarray
    phase: np.ndarray
    spots_um: np.ndarray
    holes_um: np.ndarray
    hole_radius_um: np.ndarray
    hole_kind: np.ndarray

    def at(self, grid: np.ndarray, xy_um: np.ndarray) -> np.ndarray:
        """Read a coarse map at positions."""
        return map_coordinates(grid, xy_um.T[::-1] / GRID_UM, order=1, mode="nearest")


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], length_um: float) -> np.ndarray:
    """Gaussian random field with mean 0 and standard deviation 1."""
    field = gaussian_filter(rng.standard_normal(shape), length_um / GRID_UM, mode="reflect")
    return (field - field.mean()) / max(field.std(), 1e-12)


def spot_grid(side_um: float, pitch_um: float, margin_um: float) -> np.ndarray:
    """Positions (n, 2) of a hexagonal grid that stays ``margin_um`` away from the border."""
    step_y = pitch_um * np.sqrt(3) / 2
    ys = np.arange(margin_um, side_um - margin_um + 1e-6, step_y)
    rows = [
        np.column_stack([x, np.full(len(x), y)])
        for i, y in enumerate(ys)
        for x in [np.arange(margin_um + (i % 2) * pitch_um / 2, side_um - margin_um + 1e-6, pitch_um)]
    ]
    return np.concatenate(rows) if rows else np.empty((0, 2))


def make_tissue(
    rng: np.random.Generator, *, side_um: float, n_spots: int, pitch_um: float, margin_um: float, region_um: float
) -> Tissue:
    """Outline, niches, fibre direction, spots, and the holes of fat cells and vessels."""
    cells = int(np.ceil(side_um / GRID_UM)) + 2
    shape = (cells, cells)
    axis = np.arange(cells) * GRID_UM / side_um - 0.5
    # a rounded square that noise dents: low inside, high outside
    radius = (np.abs(axis[:, None]) ** 3 + np.abs(axis[None, :]) ** 3) ** (1 / 3)
    outline = radius + 0.035 * smooth_field(rng, shape, side_um / 8)

    spots = spot_grid(side_um, pitch_um, margin_um)
    level = map_coordinates(outline, spots.T[::-1] / GRID_UM, order=1, mode="nearest")
    inner = np.argsort(level, kind="stable")[:n_spots]
    edge = level[inner].max() + 0.25 * pitch_um / side_um

    fields = np.stack([smooth_field(rng, shape, region_um) for _ in NICHES], axis=-1)
    bias = NICHE_BIAS + 0.12 * rng.standard_normal(len(NICHES))
    weight = np.exp(5.0 * (fields + bias))
    area = (weight / weight.sum(axis=-1, keepdims=True)) @ NICHES
    phase = 26.0 * smooth_field(rng, shape, 110.0) + 2.0 * smooth_field(rng, shape, 16.0)
    tissue = Tissue(
        (edge - outline) * side_um, area, phase, spots[np.sort(inner)], np.empty((0, 2)), np.empty(0), np.empty(0)
    )
    return _with_holes(rng, tissue, side_um)


def _with_holes(rng: np.random.Generator, tissue: Tissue, side_um: float) -> Tissue:
    places, radii, kinds = [], [], []
    layout = [
        (0, ADIPOCYTE, VACUOLE_STEP_UM, VACUOLE_UM, 0.10, 0.10),
        (1, ENDOTHELIAL, VESSEL_STEP_UM, VESSEL_UM, 0.28, 0.30),
    ]
    for code, cell, step, size, jitter, size_sd in layout:
        xy = spot_grid(side_um, step, 0.0)
        xy = xy + rng.uniform(-jitter, jitter, xy.shape) * step
        keep = (rng.random(len(xy)) < tissue.at(tissue.area[..., cell], xy)) & (tissue.at(tissue.inside, xy) > 0)
        places.append(xy[keep])
        radii.append(size * np.exp(size_sd * rng.standard_normal(keep.sum()) - size_sd**2 / 2))
        kinds.append(np.full(keep.sum(), code))
    xy, radius, kind = np.concatenate(places), np.concatenate(radii), np.concatenate(kinds)
    # a vessel inside a vacuole makes no sense
    fat = kind == 0
    if fat.any():
        near, which = cKDTree(xy[fat]).query(xy)
        keep = fat | (near > radius[fat][which] + radius)
        xy, radius, kind = xy[keep], radius[keep], kind[keep]
    tissue.holes_um, tissue.hole_radius_um, tissue.hole_kind = xy, radius, kind
    return tissue


def make_cells(rng: np.random.Generator, tissue: Tissue, *, side_um: float) -> Cells:
    """Scatter cells of the solid classes, line holes with fat and endothelial nuclei, drop overlaps."""
    parts = [_rim_nuclei(rng, tissue), _scattered(rng, tissue, side_um)]
    xy, body, kind, angle = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    size = np.exp(rng.normal(0, 0.10, len(kind)) + np.where(kind == CANCER, rng.normal(0, 0.16, len(kind)), 0))
    stretch = np.exp(rng.normal(0, 0.12, len(kind)))
    cells = Cells(xy, body, kind, LONG_UM[kind] * size * stretch, SHORT_UM[kind] * size / stretch, angle)
    in_view = ((xy >= 0) & (xy < side_um)).all(axis=1) & (tissue.at(tissue.inside, xy) > 0)
    cells = cells.take(in_view)
    if not len(cells.kind):
        raise ValueError(
            f"A section of {side_um:.3g} microns along an edge has no cell in its tissue: take more spots, or a larger spot_pitch_um."
        )
    return cells.take(_without_overlap(cells))


def _scattered(rng: np.random.Generator, tissue: Tissue, side_um: float) -> tuple[np.ndarray, ...]:
    step = 8.0
    axis = np.arange(0, side_um, step)
    xy = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    xy = xy + rng.uniform(0, step, xy.shape)
    area = np.stack([tissue.at(tissue.area[..., k], xy) for k in range(len(CLASSES))], axis=1)
    rate = area * DENSITY * 1e-6 * step**2
    total = rate.sum(axis=1)
    keep = rng.random(len(xy)) < total
    if len(tissue.holes_um):
        distance, hole = cKDTree(tissue.holes_um).query(xy)
        keep &= distance > tissue.hole_radius_um[hole] + 1.5
    xy, cumulative = xy[keep], np.cumsum(rate[keep] / total[keep, None], axis=1)
    kind = np.minimum((rng.random(len(xy))[:, None] > cumulative).sum(axis=1), len(CLASSES) - 1)
    # fibroblasts lie along the fibres, across the gradient of the phase; others point anywhere
    dy, dx = (tissue.at(g, xy) for g in np.gradient(tissue.phase))
    along = np.arctan2(dy, dx) + np.pi / 2 + rng.normal(0, 0.2, len(xy))
    angle = np.where(kind == FIBROBLAST, along, rng.uniform(0, np.pi, len(xy)))
    return xy, xy, kind, angle


def _rim_nuclei(rng: np.random.Generator, tissue: Tissue) -> tuple[np.ndarray, ...]:
    fat = tissue.hole_kind == 0
    # one nucleus per fat cell, about one every 13 um along a vessel's wall
    number = np.where(fat, 1, np.maximum(3, np.round(2 * np.pi * tissue.hole_radius_um / 13.0))).astype(int)
    hole = np.repeat(np.arange(len(number)), number)
    turn = np.arange(len(hole)) - np.repeat(np.cumsum(number) - number, number)
    start = rng.uniform(0, 2 * np.pi, len(number))[hole]
    theta = start + 2 * np.pi * (turn + rng.uniform(-0.25, 0.25, len(hole))) / number[hole]
    direction = np.column_stack([np.cos(theta), np.sin(theta)])
    centre = tissue.holes_um[hole]
    xy = centre + direction * (tissue.hole_radius_um[hole] + 0.5)[:, None]
    kind = np.where(fat[hole], ADIPOCYTE, ENDOTHELIAL)
    return xy, np.where(fat[hole, None], centre, xy), kind, theta + np.pi / 2


def _without_overlap(cells: Cells) -> np.ndarray:
    radius = np.sqrt(cells.long * cells.short)
    pairs = cKDTree(cells.xy).query_pairs(2 * 0.8 * radius.max(), output_type="ndarray")
    first, second = pairs.T
    distance = np.linalg.norm(cells.xy[first] - cells.xy[second], axis=1)
    # rim nuclei come first in order, so the later one of a pair is dropped
    overlaps = distance < 0.72 * (radius[first] + radius[second])
    dropped = np.zeros(len(radius), dtype=bool)
    dropped[np.maximum(first, second)[overlaps]] = True
    return np.flatnonzero(~dropped)


def stain_maps(tissue: Tissue) -> dict[str, Any]:
    """Coarse maps of stain and fibres: the value of each class, weighted by the area it holds."""
    return {
        "haem_map": (tissue.area @ HAEM).astype(np.float32),
        "eosin_map": (tissue.area @ EOSIN).astype(np.float32),
        "fibre_map": (tissue.area @ FIBRE).astype(np.float32),
        "phase_map": tissue.phase.astype(np.float32),
        "tissue": tissue.inside.astype(np.float32),
    }
