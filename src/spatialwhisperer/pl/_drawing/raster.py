"""Very many small marks as one picture: their colours and opacities, pixel by pixel."""

from __future__ import annotations

import numpy as np

_OPAQUE = 1 - 1e-4


def rasterize(
    xy: np.ndarray, colours: np.ndarray, diameter: float, size: tuple[int, int], *, square: bool
) -> np.ndarray:
    """Draw circles or squares into an empty picture.

    Where marks overlap, the colour is their mean, weighted with opacity, whatever their order; the opacity is that of all of them on top
    of each other.

    Parameters
    ----------
    xy
        Centres in pixels, y upwards, shape (n, 2).
    colours
        RGBA of each mark from 0 to 1, shape (n, 4) or (1, 4).
    diameter
        Size of a mark in pixels.
    size
        Width and height of the picture.
    square
        Squares instead of circles.

    Returns
    -------
    uint8 of shape (height, width, 4), its first row at the bottom.
    """
    width, height = size
    inside = ((xy > -diameter) & (xy < np.array(size) + diameter)).all(axis=1)
    xy = xy[inside]
    rgba = np.broadcast_to(colours, (len(inside), 4))[inside]
    through = np.log1p(-np.minimum(rgba[:, 3], _OPAQUE))
    weighted = [rgba[:, i] * -through for i in range(3)] + [-through]
    sums = np.zeros((4, height * width))
    corner = np.floor(xy - diameter / 2 + 0.5).astype(np.int64)
    for dx, dy in np.ndindex(*[int(np.ceil(diameter)) + 1] * 2):
        column, row = corner[:, 0] + dx, corner[:, 1] + dy
        x, y = column + 0.5 - xy[:, 0], row + 0.5 - xy[:, 1]
        reach = diameter / 2
        covered = (np.maximum(abs(x), abs(y)) <= reach) if square else (x * x + y * y <= reach * reach)
        covered &= (column >= 0) & (column < width) & (row >= 0) & (row < height)
        at = row[covered] * width + column[covered]
        for total, values in zip(sums, weighted, strict=True):
            total += np.bincount(at, values[covered], minlength=height * width)
    mean = sums[:3] / np.maximum(sums[3], 1e-300)
    picture = np.concatenate([mean, -np.expm1(-sums[3:])])
    return np.rint(255 * picture.T.reshape(height, width, 4)).astype(np.uint8)
