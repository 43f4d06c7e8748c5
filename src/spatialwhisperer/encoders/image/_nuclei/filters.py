"""Compiled filters of planes and masks; every one has a plain SciPy twin in the tests."""

from __future__ import annotations

import math

import numpy as np

from spatialwhisperer._compute.kernels import kernel

# sums may be added in another order, which lets them run on vector units; no value here is ever NaN
_SUMS = {"reassoc", "nsz", "contract", "nnan"}

_TRUNCATE = 3.0


def gaussian_taps(sigma_px: float) -> np.ndarray:
    """Weights of a Gaussian from its centre outwards, float32; both halves sum to 1. They end at three standard deviations."""
    reach = np.arange(max(1, int(_TRUNCATE * sigma_px + 0.5)) + 1)
    weights = np.exp(-0.5 * (reach / sigma_px) ** 2)
    return (weights / (2 * weights.sum() - weights[0])).astype(np.float32)


@kernel(nogil=True)
def _mirror(k: int, n: int) -> int:
    """The entry that stands for one outside of 0 to n - 1: borders are reflected, and the last entry is repeated."""
    while k < 0 or k >= n:
        k = -k - 1 if k < 0 else 2 * n - 1 - k
    return k


@kernel(nogil=True, fastmath=_SUMS)
def gaussian(plane: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Blur a float32 plane with the weights of `gaussian_taps`; borders are reflected."""
    n, m = plane.shape
    r = len(taps) - 1
    rows = np.empty((n, m), np.float32)
    for i in range(n):
        _scale(plane[i], taps[0], rows[i])
        for k in range(1, r + 1):
            _add(plane[_mirror(i - k, n)], plane[_mirror(i + k, n)], taps[k], rows[i])
    out = np.empty((n, m), np.float32)
    padded = np.empty(m + 2 * r, np.float32)
    for i in range(n):
        _scale(rows[i], np.float32(1), padded[r : r + m])
        for k in range(1, r + 1):
            padded[r - k] = rows[i, _mirror(-k, m)]
            padded[r + m - 1 + k] = rows[i, _mirror(m - 1 + k, m)]
        _scale(padded[r : r + m], taps[0], out[i])
        for k in range(1, r + 1):
            _add(padded[r - k : r - k + m], padded[r + k : r + k + m], taps[k], out[i])
    return out


# functions of their own for loops over a row, which then run on vector units


@kernel(nogil=True, fastmath=_SUMS)
def _scale(row: np.ndarray, weight: float, out: np.ndarray) -> None:
    for j in range(out.size):
        out[j] = weight * row[j]


@kernel(nogil=True, fastmath=_SUMS)
def _add(one: np.ndarray, other: np.ndarray, weight: float, out: np.ndarray) -> None:
    for j in range(out.size):
        out[j] += weight * (one[j] + other[j])


@kernel(nogil=True, fastmath=_SUMS)
def _lower(one: np.ndarray, other: np.ndarray, step: float, out: np.ndarray) -> None:
    for j in range(out.size):
        out[j] = min(out[j], min(one[j], other[j]) + step)


@kernel(nogil=True, fastmath=_SUMS)
def pooled(plane: np.ndarray, q: int) -> np.ndarray:
    """Mean over squares of ``q`` pixels, float32; incomplete squares at the end are averaged over what they hold."""
    n, m = plane.shape
    rows, columns = (n + q - 1) // q, (m + q - 1) // q
    out = np.zeros((rows, columns), np.float32)
    for i in range(n):
        for j in range(m):
            out[i // q, j // q] += plane[i, j]
    for a in range(rows):
        for b in range(columns):
            out[a, b] /= np.float32((min((a + 1) * q, n) - a * q) * (min((b + 1) * q, m) - b * q))
    return out


@kernel(nogil=True)
def enlarged(cells: np.ndarray, q: int, n: int, m: int) -> np.ndarray:
    """Interpolate the means of `pooled` linearly to (n, m) pixels; what lies outside the outer centres is repeated."""
    rows, columns = cells.shape
    left, right = np.empty(m, np.int64), np.empty(m, np.int64)
    part = np.empty(m, np.float32)
    for j in range(m):
        x = min(max((j + 0.5) / q - 0.5, 0.0), columns - 1.0)
        left[j] = int(x)
        right[j] = min(left[j] + 1, columns - 1)
        part[j] = x - left[j]
    out = np.empty((n, m), np.float32)
    line = np.empty(columns, np.float32)
    for i in range(n):
        y = min(max((i + 0.5) / q - 0.5, 0.0), rows - 1.0)
        top = int(y)
        bottom, share = min(top + 1, rows - 1), np.float32(y - top)
        for b in range(columns):
            line[b] = cells[top, b] + share * (cells[bottom, b] - cells[top, b])
        for j in range(m):
            out[i, j] = line[left[j]] + part[j] * (line[right[j]] - line[left[j]])
    return out


@kernel(nogil=True)
def laplacian(plane: np.ndarray) -> np.ndarray:
    """Five-point Laplacian of a float32 plane per squared pixel; borders are repeated."""
    n, m = plane.shape
    out = np.empty((n, m), np.float32)
    for i in range(n):
        up, down = plane[max(i - 1, 0)], plane[min(i + 1, n - 1)]
        for j in range(m):
            sides = plane[i, max(j - 1, 0)] + plane[i, min(j + 1, m - 1)]
            out[i, j] = up[j] + down[j] + sides - np.float32(4) * plane[i, j]
    return out


@kernel(nogil=True)
def opened(mask: np.ndarray, steps: int) -> np.ndarray:
    """Binary opening with a cross of radius 1, ``steps`` times each way; outside there is nothing while it shrinks or grows."""
    out = mask.copy()
    for step in range(2 * steps):
        grow = step >= steps
        before = out.copy()
        n, m = before.shape
        for i in range(n):
            for j in range(m):
                if before[i, j] == grow:
                    continue
                up = before[i - 1, j] if i > 0 else False
                down = before[i + 1, j] if i < n - 1 else False
                left = before[i, j - 1] if j > 0 else False
                right = before[i, j + 1] if j < m - 1 else False
                out[i, j] = (up | down | left | right) if grow else (up & down & left & right)
    return out


@kernel(nogil=True)
def fill_small_holes(mask: np.ndarray, most_px: float) -> None:
    """Add the 4-connected parts of the background that have fewer pixels than ``most_px``, in place."""
    n, m = mask.shape
    flat = mask.ravel()
    seen = mask.copy().ravel()
    limit = int(math.ceil(most_px))
    part = np.empty(limit, np.int64)
    stack = np.empty(n * m, np.int64)
    for start in range(n * m):
        if seen[start]:
            continue
        size, top = 0, 1
        stack[0] = start
        seen[start] = True
        while top:
            top -= 1
            pixel = stack[top]
            if size < limit:
                part[size] = pixel
            size += 1
            i, j = pixel // m, pixel % m
            for side in range(4):
                y, x = i + (side == 0) - (side == 1), j + (side == 2) - (side == 3)
                if 0 <= y < n and 0 <= x < m and not seen[y * m + x]:
                    seen[y * m + x] = True
                    stack[top] = y * m + x
                    top += 1
        if size < most_px:
            for k in range(size):
                flat[part[k]] = True


@kernel(nogil=True)
def distance_inside(mask: np.ndarray, most: int) -> np.ndarray:
    """Euclidean distance of each pixel of a mask to the nearest one outside, float32, at most ``most`` pixels; 0 outside."""
    n, m = mask.shape
    far = np.float32(most)
    down = np.empty((n, m), np.float32)
    for j in range(m):
        down[0, j] = far if mask[0, j] else np.float32(0)
    for i in range(1, n):
        for j in range(m):
            down[i, j] = min(down[i - 1, j] + np.float32(1), far) if mask[i, j] else np.float32(0)
    for i in range(n - 2, -1, -1):
        for j in range(m):
            down[i, j] = min(down[i, j], down[i + 1, j] + np.float32(1))
    out = np.empty((n, m), np.float32)
    line = np.empty(m + 2 * most, np.float32)
    line[:] = far * far
    for i in range(n):
        best = out[i]
        for j in range(m):
            line[most + j] = down[i, j] * down[i, j]
            best[j] = line[most + j]
        for k in range(1, most):
            _lower(line[most - k : most - k + m], line[most + k : most + k + m], np.float32(k * k), best)
        for j in range(m):
            best[j] = math.sqrt(best[j])
    return out


@kernel(nogil=True)
def stain_planes(tile: np.ndarray, densities: np.ndarray, matrix: np.ndarray, blank: int) -> np.ndarray:
    """Combine the optical densities of a uint8 (3, h, w) tile to planes, float32 (k, h, w).

    `densities` (3, 256) holds the optical density of each intensity, and `matrix` (3, k) the weights of the densities in R, G and B.
    Pixels of at most `blank` in R, G and B hold no stain.
    """
    h, w = tile.shape[1], tile.shape[2]
    n = matrix.shape[1]
    out = np.zeros((n, h, w), np.float32)
    for i in range(h):
        for j in range(w):
            r, g, b = tile[0, i, j], tile[1, i, j], tile[2, i, j]
            if max(r, g, b) <= blank:
                continue
            x, y, z = densities[0, r], densities[1, g], densities[2, b]
            for k in range(n):
                out[k, i, j] = x * matrix[0, k] + y * matrix[1, k] + z * matrix[2, k]
    return out
