"""Tiles that cover a whole image evenly, whatever rows its table has."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._access.tiles.reader import TileReader

if TYPE_CHECKING:
    from spatialwhisperer._access.sections.section import Section

SAMPLE_MPP = 2.0
"""Microns per pixel of the sample; an image that is coarser is read as it is."""

_EDGE_UM = 128.0
_MOST_TILES = 1024


def image_sample(section: Section) -> tuple[np.ndarray, float]:
    """Read tiles on a regular grid over the image of a section.

    The grid depends on the image and its scale alone. Small images are covered, of large ones a part is read.

    Parameters
    ----------
    section
        Section with an image and a scale.

    Returns
    -------
    Tiles, uint8, shape (k, 3, p, p), and their microns per pixel.
    """
    if section.image is None or section.mpp is None:
        raise ValueError(f"Section {section.name!r} needs an image and its microns per pixel before tiles are read.")
    finest = section.image.levels[0]
    pixel_um = np.array(section.pixel_um(section.mpp))
    mpp = float(max(SAMPLE_MPP, *(pixel_um * [finest.scale_x, finest.scale_y])))
    size_um = np.array(section.image.size_px) * pixel_um
    tile_px = max(1, int(min(_EDGE_UM, size_um.min()) / mpp))
    grid = np.maximum(size_um // (tile_px * mpp), 1)
    grid = np.maximum(grid / max(1.0, np.sqrt(grid.prod() / _MOST_TILES)), 1).astype(int)
    x, y = ((np.arange(n) + 0.5) * length / n for n, length in zip(grid, section.image.size_px, strict=True))
    centres = np.stack([axis.ravel() for axis in np.meshgrid(x, y)], axis=1)
    everywhere = replace(section, rows=np.arange(len(centres)), xy_px=centres)
    out = np.empty((len(centres), 3, tile_px, tile_px), np.uint8)
    for positions, tiles in TileReader(everywhere, tile_um=tile_px * mpp, tile_px=tile_px).read():
        out[positions] = tiles
    return out, mpp
