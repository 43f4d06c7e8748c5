"""Outlines of labelled regions; a compiled loop, whose twin in the tests is scikit-image's ``find_contours``."""

from __future__ import annotations

import numpy as np

from spatialwhisperer._compute.kernels import kernel

# right, down, left, up, as rows and columns
_DY = (0, 1, 0, -1)
_DX = (1, 0, -1, 0)
# the pixels ahead of a corner, on the right and on the left of each direction
_RIGHT = ((0, 0), (0, -1), (-1, -1), (-1, 0))
_LEFT = ((-1, 0), (0, 0), (0, -1), (-1, -1))


@kernel(nogil=True)
def trace(labels: np.ndarray, numbers: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outline regions: the middles of the edges between a pixel of the region and one outside, clockwise; without holes.

    Parameters
    ----------
    labels
        Number of the region of each pixel, shape (height, width). Regions are 4-connected.
    numbers
        Numbers of the regions, shape (n,).
    box
        First and last row and column of each, shape (n, 4).

    Returns
    -------
    x and y of the corners of all outlines, one after the other, where the first pixel covers 0 to 1; and corners of each outline.
    """
    height, width = labels.shape
    lengths = np.zeros(len(numbers), np.int64)
    corners = np.empty((1024, 2))
    n = 0
    for k in range(len(numbers)):
        number, y, x = numbers[k], box[k, 0], box[k, 2]
        while labels[y, x] != number:
            x += 1
        first_y, first_x, direction, start = y, x, 0, n
        while n == start or not (y == first_y and x == first_x and direction == 0):
            if n == len(corners):
                wider = np.empty((2 * n, 2))
                wider[:n] = corners
                corners = wider
            corners[n, 0] = x + _DX[direction] / 2
            corners[n, 1] = y + _DY[direction] / 2
            n += 1
            y += _DY[direction]
            x += _DX[direction]
            i, j = y + _RIGHT[direction][0], x + _RIGHT[direction][1]
            right = 0 <= i < height and 0 <= j < width and labels[i, j] == number
            i, j = y + _LEFT[direction][0], x + _LEFT[direction][1]
            left = 0 <= i < height and 0 <= j < width and labels[i, j] == number
            if not right:
                direction = (direction + 1) % 4
            elif left:
                direction = (direction + 3) % 4
        lengths[k] = n - start
    return corners[:n], lengths
