"""Images that show one picture at several resolutions, as readers of Visium store it."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._access.images import read_boxes
from spatialwhisperer._access.sections.systems import moved

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spatialwhisperer._access.images import Level, RasterImage

_FINER = 1.2
_APART_PX, _APART_PART = 2.0, 5e-3
_WINDOWS, _WINDOW_PX = 8, 8
# a level of a pyramid is read where its pixels are so many times smaller than those of the coarser image
_FINE_ENOUGH = 4
# of the variance of the colours: copies differ by how they were resampled, which is less, and other pictures by more
_LEFT_OVER = 0.015


def finest_copy(images: Mapping[str, RasterImage], placed: Mapping[str, np.ndarray]) -> str | None:
    """Name of the finest of several images that show the same picture, each at another resolution.

    Parameters
    ----------
    images
        The images by name.
    placed
        Affine map from a frame that all have in common to the pixels of each image, shape (3, 3).

    Returns
    -------
    The name, or ``None`` where two images are as fine as each other, do not cover the same area, or differ in what they show.
    """
    names = sorted(images, key=lambda name: _pixels_per_unit(placed[name]), reverse=True)
    if any(_pixels_per_unit(placed[a]) < _FINER * _pixels_per_unit(placed[b]) for a, b in pairwise(names)):
        return None
    finest = images[names[0]]
    to_finest = {name: placed[names[0]] @ np.linalg.inv(placed[name]) for name in names[1:]}
    if all(_covers(finest, images[name], to_finest[name]) for name in to_finest) and all(
        _shows(finest, images[name], to_finest[name]) for name in to_finest
    ):
        return names[0]
    return None


def _pixels_per_unit(matrix: np.ndarray) -> float:
    return float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))


def _covers(finest: RasterImage, coarser: RasterImage, to_finest: np.ndarray) -> bool:
    """Whether the corners of both images are the same, up to the rounding of their sizes. One may be mirrored or turned in the other."""
    corners = _corners(finest)
    apart = np.linalg.norm(moved(_corners(coarser), to_finest)[:, None] - corners, axis=2)
    tolerance = _APART_PX * _pixels_per_unit(to_finest) + _APART_PART * max(finest.size_px)
    nearest = apart.argmin(axis=1)
    return len(set(nearest.tolist())) == len(corners) and bool((apart.min(axis=1) <= tolerance).all())


def _corners(image: RasterImage) -> np.ndarray:
    width, height = image.size_px
    return np.array([[0.0, 0.0], [width, 0.0], [0.0, height], [width, height]])


def _shows(finest: RasterImage, coarser: RasterImage, to_finest: np.ndarray) -> bool:
    """Whether windows all over the two images have the same colours."""
    starts, edge = _windows(coarser)
    one = _colours(coarser.levels[0], starts, starts + edge)
    level = _level(finest, _pixels_per_unit(to_finest) / _FINE_ENOUGH)
    scale = np.array([level.scale_x, level.scale_y])
    own = np.array([coarser.levels[0].scale_x, coarser.levels[0].scale_y])
    # of a mirrored or turned window the first corner is another one
    corners = np.stack([np.rint(moved(at * own, to_finest) / scale).astype(int) for at in (starts, starts + edge)])
    other = _colours(level, corners.min(axis=0), corners.max(axis=0))
    varies = ((one - one.mean(axis=0)) ** 2).sum()
    return bool(varies > 0 and ((one - other) ** 2).sum() <= _LEFT_OVER * varies)


def _windows(image: RasterImage) -> tuple[np.ndarray, int]:
    """Upper left corners of windows on a regular grid, shape (n, 2), and their edge, in pixels of the finest level."""
    _, height, width = image.levels[0].pixels.shape
    edge = max(1, min(_WINDOW_PX, min(height, width) // _WINDOWS))
    x, y = (np.linspace(0, length - edge, _WINDOWS).astype(int) for length in (width, height))
    return np.stack([axis.ravel() for axis in np.meshgrid(x, y)], axis=1), edge


def _level(image: RasterImage, largest_px: float) -> Level:
    """The coarsest level whose pixels are at most so many full-resolution pixels wide, else the finest."""
    return next((level for level in reversed(image.levels) if level.scale_x <= largest_px), image.levels[0])


def _colours(level: Level, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Mean colour of each window, shape (n, 3); what lies outside of the image is white."""
    boxes = np.column_stack([first, np.maximum(last, first + 1)])
    return np.array([pixels.mean(axis=(1, 2)) for pixels in read_boxes(level, [tuple(box) for box in boxes.tolist()])])
