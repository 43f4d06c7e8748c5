"""Which level of a pyramid is read. A coarse level counts only where it is the average of the finest one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._access.images import read_pixels
from spatialwhisperer._access.tiles.resample import Cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialwhisperer._access.images import Level, RasterImage

ENOUGH_PX = 8.0
"""Pixels of a coarse level across one pixel of a tile. With fewer, labels of a real section change with the level."""

_WINDOW_PX = 32
_N_WINDOWS = 6
_BLOCK = 4
_MOST_ERROR = 0.5
_MOST_BIAS = 1.0
_MOST_FACTOR = 64


@dataclass(frozen=True)
class View:
    """One level of an image, and how its pixels lie on the full resolution.

    Attributes
    ----------
    level
        The level.
    scale_x, scale_y
        Full-resolution pixels per pixel of the level.
    start_x, start_y
        Where its first pixel begins, in full-resolution pixels.
    bias
        What its values lack on average: a pyramid whose means were cut off to whole numbers is too dark.
    """

    level: Level
    scale_x: float
    scale_y: float
    start_x: float = 0.0
    start_y: float = 0.0
    bias: float = 0.0

    def place(self, xy_px: np.ndarray) -> np.ndarray:
        """Full-resolution coordinates, shape (n, 2), in pixels of the level."""
        return (xy_px - [self.start_x, self.start_y]) / [self.scale_x, self.scale_y]


def choose_view(image: RasterImage, cell_px: tuple[float, float], xy_px: np.ndarray) -> View:
    """The coarsest level with enough pixels across a pixel of a tile that is an average of the finest level, else the finest.

    Parameters
    ----------
    image
        The image.
    cell_px
        Width and height of one pixel of a tile, in full-resolution pixels.
    xy_px
        Places where levels are compared, in full-resolution pixels, shape (n, 2).
    """
    finest = image.levels[0]
    for level in reversed(image.levels[1:]):
        enough = all(
            cell >= ENOUGH_PX * scale for cell, scale in zip(cell_px, (level.scale_x, level.scale_y), strict=True)
        )
        if enough:
            view = _averaged_view(finest, level, xy_px)
            if view is not None:
                return view
    return View(finest, finest.scale_x, finest.scale_y)


def _averaged_view(finest: Level, level: Level, xy_px: np.ndarray) -> View | None:
    """How a level lies on the finest one, where its pixels are averages of that; else ``None``.

    A size that is no multiple of the factor leaves pixels over, which writers drop at the end (openslide, OME), at the start
    (spatialdata) or distribute over all (scikit-image). The levels themselves tell: they are compared in a few windows.
    """
    windows = _windows(level, xy_px)
    coarse = [read_pixels(level, x, y, x + _WINDOW_PX, y + _WINDOW_PX).astype(np.float32) for x, y in windows]
    best: tuple[float, View] | None = None
    for across, down in product(_axis(finest, level, 2), _axis(finest, level, 1)):
        differences = [one - _mean(finest, across, down, x, y) for one, (x, y) in zip(coarse, windows, strict=True)]
        bias = float(np.mean(differences)) if differences else 0.0
        error = _error(differences, bias)
        if error <= _MOST_ERROR and abs(bias) <= _MOST_BIAS and (best is None or error < best[0]):
            best = (
                error,
                View(
                    level,
                    across[0] * finest.scale_x,
                    down[0] * finest.scale_y,
                    across[1] * finest.scale_x,
                    down[1] * finest.scale_y,
                    -bias,
                ),
            )
    return None if best is None else best[1]


def _axis(finest: Level, level: Level, axis: int) -> Sequence[tuple[float, float]]:
    """Pixels of the finest level per pixel of another along an axis, and the first of them, as far as is possible."""
    fine, coarse = finest.pixels.shape[axis], level.pixels.shape[axis]
    factor = round(fine / coarse)
    if factor > _MOST_FACTOR:
        return ()
    left_over = float(fine - factor * coarse)
    places = {(fine / coarse, 0.0)}
    if 0 <= left_over < factor:
        places |= {(float(factor), 0.0), (float(factor), left_over)}
    return sorted(places)


def _windows(level: Level, xy_px: np.ndarray) -> list[tuple[int, int]]:
    """Left and upper corner of some windows around places on a level."""
    _, height, width = level.pixels.shape
    xy = xy_px[np.isfinite(xy_px).all(axis=1)] / [level.scale_x, level.scale_y]
    xy = xy[((xy >= 0) & (xy < [width, height])).all(axis=1)]
    if not len(xy) or min(width, height) < _WINDOW_PX:
        return []
    some = xy[np.unique(np.linspace(0, len(xy) - 1, _N_WINDOWS).astype(int))]
    corners = (some - _WINDOW_PX / 2).clip(0, [width - _WINDOW_PX, height - _WINDOW_PX]).astype(int)
    return [(int(x), int(y)) for x, y in np.unique(corners, axis=0)]


def _mean(finest: Level, across: tuple[float, float], down: tuple[float, float], x: int, y: int) -> np.ndarray:
    """Averages of the finest level over the pixels of a window of another, shape (3, height, width)."""
    cells = Cells(_WINDOW_PX, across[0], down[0])
    left, top = across[1] + x * across[0], down[1] + y * down[0]
    x0, y0 = int(np.floor(left)), int(np.floor(top))
    x1, y1 = int(np.ceil(left + cells.size[0])) + 1, int(np.ceil(top + cells.size[1])) + 1
    pixels = read_pixels(finest, x0, y0, x1, y1)[None]
    zero = np.zeros(1, np.int64)
    return cells.average(pixels, zero, zero + left - x0, zero + top - y0)[0].astype(np.float32)


def _error(differences: Sequence[np.ndarray], bias: float) -> float:
    """Root mean square of differences over blocks, which do not see the noise of single pixels; infinite without windows."""
    if not differences:
        return float("inf")
    edge = _WINDOW_PX // _BLOCK
    blocks = [d.reshape(3, edge, _BLOCK, edge, _BLOCK).mean(axis=(2, 4)) - bias for d in differences]
    return float(np.sqrt(np.mean(np.square(blocks))))
