"""The tree of connected regions above each level of a map, and the choice of disjoint ones; compiled loops.

All sums are of whole numbers, so that a region has the same measures in every window that holds it.
"""

from __future__ import annotations

import math

import numpy as np

from spatialwhisperer._compute.kernels import kernel

AREA, X, Y, XX, YY, XY, CRACK, SLOPE = range(8)
"""Columns of the sums of a region: pixels, their coordinates and products of these, edges between a pixel in it and one outside, and
the gradient summed over these edges."""

SLOPE_UNIT = 2.0**20
"""A gradient of 1 per pixel, as a whole number."""

_DY = (-1, 1, 0, 0)
_DX = (0, 0, -1, 1)


@kernel(nogil=True)
def slopes(plane: np.ndarray) -> np.ndarray:
    """Gradient length (Sobel) of a float32 plane per pixel in units of `SLOPE_UNIT`, int32; borders are repeated."""
    n, m = plane.shape
    out = np.empty((n, m), np.int32)
    for i in range(n):
        up, down = max(i - 1, 0), min(i + 1, n - 1)
        for j in range(m):
            left, right = max(j - 1, 0), min(j + 1, m - 1)
            nw, ne, sw, se = plane[up, left], plane[up, right], plane[down, left], plane[down, right]
            gy = ((sw + se) - (nw + ne)) + 2 * (plane[down, j] - plane[up, j])
            gx = ((ne + se) - (nw + sw)) + 2 * (plane[i, right] - plane[i, left])
            out[i, j] = int(math.sqrt(gx * gx + gy * gy) / 8 * SLOPE_UNIT + 0.5)
    return out


@kernel(nogil=True)
def _root(above: np.ndarray, pixel: int) -> int:
    root = pixel
    while above[root] != root:
        root = above[root]
    while above[pixel] != root:
        above[pixel], pixel = root, above[pixel]
    return root


@kernel(nogil=True)
def _descending(levels: np.ndarray, n_levels: int) -> np.ndarray:
    """Pixels above level 0, from the highest level to the lowest, row by row within a level."""
    counts = np.zeros(n_levels + 1, np.int64)
    for level in levels:
        counts[level] += 1
    place = np.zeros(n_levels + 1, np.int64)
    for level in range(n_levels - 1, -1, -1):
        place[level] = place[level + 1] + counts[level + 1]
    order = np.empty(place[0], np.int32)
    for pixel in range(levels.size):
        level = levels[pixel]
        if level:
            order[place[level]] = pixel
            place[level] += 1
    return order


@kernel(nogil=True)
def component_tree(levels: np.ndarray, slope: np.ndarray, n_levels: int) -> tuple:
    """Build the tree of the 4-connected regions of pixels at or above each level.

    Parameters
    ----------
    levels
        Level of each pixel, uint8, shape (height, width); 0 belongs to no region.
    slope
        Gradient of each pixel (`slopes`).
    n_levels
        The highest level.

    Returns
    -------
    Parent of each region (-1 for a root; a region that was joined to another of its level has ``joined`` set and names that one),
    ``joined``, sums of each region (n, 8), its box (n, 4) as first and last row and column, and the region of each pixel, shape
    (height * width,), -1 where there is none. The regions of higher levels come first.
    """
    height, width = levels.shape
    flat, weight = levels.ravel(), slope.ravel()
    order = _descending(flat, n_levels)
    above = np.full(flat.size, -1, np.int32)
    region_of_root = np.empty(flat.size, np.int32)
    region = np.full(flat.size, -1, np.int32)
    parent = np.empty(order.size, np.int32)
    joined = np.zeros(order.size, np.bool_)
    level_of = np.empty(order.size, np.uint8)
    sums = np.empty((order.size, 8), np.int64)
    box = np.empty((order.size, 4), np.int32)
    n = 0
    for pixel in order:
        y, x, level = pixel // width, pixel % width, flat[pixel]
        above[pixel] = pixel
        own = -1
        for side in range(4):
            i, j = y + _DY[side], x + _DX[side]
            if own < 0 and 0 <= i < height and 0 <= j < width and above[i * width + j] >= 0:
                root = _root(above, i * width + j)
                if level_of[region_of_root[root]] == level:
                    own = region_of_root[root]
                    above[pixel] = root
        if own < 0:
            own = n
            n += 1
            parent[own], level_of[own], region_of_root[pixel] = -1, level, own
            sums[own] = 0
            box[own, 0], box[own, 1], box[own, 2], box[own, 3] = y, y, x, x
        region[pixel] = own
        s = sums[own]
        s[AREA] += 1
        s[X] += x
        s[Y] += y
        s[XX] += x * x
        s[YY] += y * y
        s[XY] += x * y
        b = box[own]
        b[0], b[1], b[2], b[3] = min(b[0], y), max(b[1], y), min(b[2], x), max(b[3], x)
        for side in range(4):
            i, j = y + _DY[side], x + _DX[side]
            if not (0 <= i < height and 0 <= j < width):
                continue
            other = i * width + j
            edge = (weight[pixel] + weight[other]) // 2
            mine = _root(above, pixel)
            own = region_of_root[mine]
            if above[other] < 0:
                sums[own, CRACK] += 1
                sums[own, SLOPE] += edge
                continue
            sums[own, CRACK] -= 1
            sums[own, SLOPE] -= edge
            root = _root(above, other)
            if root == mine:
                continue
            met = region_of_root[root]
            above[root] = mine
            parent[met] = own
            joined[met] = level_of[met] == level
            for k in range(8):
                sums[own, k] += sums[met, k]
            b, c = box[own], box[met]
            b[0], b[1], b[2], b[3] = min(b[0], c[0]), max(b[1], c[1]), min(b[2], c[2]), max(b[3], c[3])
    for k in range(n):
        while parent[k] >= 0 and joined[parent[k]]:
            parent[k] = parent[parent[k]]
    return parent[:n], joined[:n], sums[:n], box[:n], region


@kernel(nogil=True)
def fill_factor(sums: np.ndarray) -> float:
    """Area of a region over that of the ellipse with its second moments: 1 for an ellipse, less for any other shape."""
    n = sums[AREA]
    # whole numbers as far as possible, which do not depend on where the window begins
    xx = (n * sums[XX] - sums[X] * sums[X]) / (n * n) + 1 / 12
    yy = (n * sums[YY] - sums[Y] * sums[Y]) / (n * n) + 1 / 12
    xy = (n * sums[XY] - sums[X] * sums[Y]) / (n * n)
    return n / (4 * math.pi * math.sqrt(max(xx * yy - xy * xy, 1e-9)))


@kernel(nogil=True)
def choose_regions(
    parent: np.ndarray, joined: np.ndarray, worth: np.ndarray, region: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the disjoint regions with the largest sum of worth.

    Parameters
    ----------
    parent, joined, region
        As `component_tree` returns them.
    worth
        Worth of each region; those at or below 0 are never chosen.

    Returns
    -------
    The chosen regions, ascending, and the number of the chosen region that each pixel lies in, from 1 on; 0 where there is none.
    """
    n = len(parent)
    best = np.zeros(n)
    taken = np.zeros(n, np.bool_)
    for k in range(n):
        if joined[k]:
            continue
        taken[k] = worth[k] > 0 and worth[k] >= best[k]
        if taken[k]:
            best[k] = worth[k]
        if parent[k] >= 0:
            best[parent[k]] += best[k]
    chosen = np.full(n, -1, np.int32)
    for k in range(n - 1, -1, -1):
        if joined[k]:
            continue
        if parent[k] >= 0 and chosen[parent[k]] >= 0:
            chosen[k] = chosen[parent[k]]
        elif taken[k]:
            chosen[k] = k
    numbers = np.zeros(n, np.int32)
    kept = np.flatnonzero((chosen == np.arange(n)) & ~joined)
    numbers[kept] = np.arange(1, len(kept) + 1)
    labels = np.zeros(region.size, np.int32)
    for pixel in range(region.size):
        k = region[pixel]
        if k >= 0:
            k = parent[k] if joined[k] else k
            if chosen[k] >= 0:
                labels[pixel] = numbers[chosen[k]]
    return kept, labels


@kernel(nogil=True)
def fill_holes(labels: np.ndarray, box: np.ndarray, order: np.ndarray) -> None:
    """Fill the holes of regions in place, whatever lies in them.

    Parameters
    ----------
    labels
        Region of each pixel, shape (height, width), from 1 on.
    box
        First and last row and column of each region, shape (n, 4).
    order
        Regions from 0 on, the largest first, so that what lies in a hole gives way.
    """
    for k in order:
        top, left = box[k, 0] - 1, box[k, 2] - 1
        height, width = box[k, 1] - top + 2, box[k, 3] - left + 2
        outside = np.zeros((height, width), np.bool_)
        stack = np.empty(height * width, np.int32)
        outside[0, 0] = True
        stack[0] = 0
        n = 1
        while n:
            n -= 1
            y, x = stack[n] // width, stack[n] % width
            for side in range(4):
                i, j = y + _DY[side], x + _DX[side]
                if not (0 <= i < height and 0 <= j < width) or outside[i, j]:
                    continue
                inner = 0 < i < height - 1 and 0 < j < width - 1
                if inner and labels[top + i, left + j] == k + 1:
                    continue
                outside[i, j] = True
                stack[n] = i * width + j
                n += 1
        for i in range(1, height - 1):
            for j in range(1, width - 1):
                if not outside[i, j]:
                    labels[top + i, left + j] = k + 1
