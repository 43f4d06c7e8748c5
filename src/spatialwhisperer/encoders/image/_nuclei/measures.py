"""Measurements of each nucleus of a tile: its shape, its stain, the ring around it, and its neighbours."""

from __future__ import annotations

import math

import numpy as np

from spatialwhisperer._compute.kernels import kernel
from spatialwhisperer.encoders.image._nuclei.table import MEASURES, Nuclei, X, Y

_RING_UM = 3.0
_RIM_UM, _CORE_UM = 1.0, 1.75
_WHITE_OD = 0.05
_AROUND_UM, _FARTHEST_UM = 25.0, 100.0

# sums over the pixels of a nucleus, then over those of its ring
_N, _SX, _SY, _SXX, _SYY, _SXY, _H, _HH, _E, _FINE, _NRIM, _HRIM, _NCORE, _HCORE, _EDGE = range(15)
_RN, _RH, _RE, _REE, _ROD, _RWHITE = range(15, 21)
_N_SUMS = 21


def measure(
    labels: np.ndarray, n: int, planes: np.ndarray, smooth: np.ndarray, depth: np.ndarray, mpp: float
) -> Nuclei:
    """Measure the nuclei of a tile.

    Parameters
    ----------
    labels, n
        Number of the nucleus of each pixel, from 1 to ``n``, 0 where there is none, int32 (p, p).
    planes
        Haematoxylin, eosin and mean optical density, float32 (3, p, p).
    smooth, depth
        Haematoxylin without its finest detail, and the depth inside the mask in pixels, as `segment` returns them.
    mpp
        Microns per pixel.
    """
    if n == 0:
        return Nuclei(np.empty((0, 3)), np.empty((0, len(MEASURES)), np.float32))
    ring = rings(labels, max(1, round(_RING_UM / mpp)))
    sums = _sums(labels, ring, n, planes, smooth, depth, _RIM_UM / mpp, _CORE_UM / mpp)
    places = np.column_stack([sums[:, _SX] / sums[:, _N], sums[:, _SY] / sums[:, _N], sums[:, _N]])
    nearest, sixth, within = neighbours(places, float(labels.shape[1]), float(labels.shape[0]), mpp)
    columns = _of_sums(sums, mpp)
    columns += [np.log(nearest), np.log(sixth), np.log1p(within)]
    return Nuclei(places, np.column_stack(columns).astype(np.float32))


def _of_sums(s: np.ndarray, mpp: float) -> list[np.ndarray]:
    n = s[:, _N]
    x, y = s[:, _SX] / n, s[:, _SY] / n
    # the square of a pixel has a variance of its own
    xx, yy, xy = s[:, _SXX] / n - x * x + 1 / 12, s[:, _SYY] / n - y * y + 1 / 12, s[:, _SXY] / n - x * y
    half, width = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    h = s[:, _H] / n
    core = s[:, _HCORE] / np.maximum(s[:, _NCORE], 1) - s[:, _HRIM] / np.maximum(s[:, _NRIM], 1)
    around = np.maximum(s[:, _RN], 1)
    ring_h, ring_e = s[:, _RH] / around, s[:, _RE] / around
    return [
        np.log(n * mpp**2),
        np.sqrt(np.maximum(half - width, 1e-3) / (half + width)),
        np.minimum(4 * np.pi * n / np.maximum(s[:, _EDGE], 1) ** 2, 1.5),
        h,
        _sd(s[:, _HH] / n, h),
        np.sqrt(s[:, _FINE] / n),
        np.where((s[:, _NCORE] > 3) & (s[:, _NRIM] > 0), core / np.maximum(h, 0.05), 0),
        s[:, _E] / n,
        ring_h,
        ring_e,
        _sd(s[:, _REE] / around, ring_e),
        s[:, _ROD] / around,
        s[:, _RWHITE] / around,
        h - ring_h,
    ]


def _sd(mean_square: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(mean_square - mean * mean, 0))


@kernel(nogil=True)
def rings(labels: np.ndarray, steps: int) -> np.ndarray:
    """Number of the nearest nucleus of each pixel outside that is at most ``steps`` pixels away, 0 elsewhere, int32.

    Nuclei grow by four neighbours and by eight in turn, so that they grow to octagons.
    """
    n, m = labels.shape
    grown = labels.copy().ravel()
    queue = np.empty(n * m, np.int64)
    end = 0
    for i in range(n):
        for j in range(m):
            k = labels[i, j]
            if k == 0:
                continue
            border = (i > 0 and labels[i - 1, j] == 0) or (i < n - 1 and labels[i + 1, j] == 0)
            border = border or (j > 0 and labels[i, j - 1] == 0) or (j < m - 1 and labels[i, j + 1] == 0)
            if border:
                queue[end] = i * m + j
                end += 1
    start = 0
    for step in range(steps):
        stop = end
        for at in range(start, stop):
            i, j = queue[at] // m, queue[at] % m
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    if step % 2 == 0 and dy != 0 and dx != 0:
                        continue
                    y, x = i + dy, j + dx
                    if 0 <= y < n and 0 <= x < m and grown[y * m + x] == 0:
                        grown[y * m + x] = grown[queue[at]]
                        queue[end] = y * m + x
                        end += 1
        start = stop
    flat = labels.ravel()
    for pixel in range(n * m):
        if flat[pixel]:
            grown[pixel] = 0
    return grown.reshape(n, m)


@kernel(nogil=True)
def _sums(
    labels: np.ndarray,
    ring: np.ndarray,
    count: int,
    planes: np.ndarray,
    smooth: np.ndarray,
    depth: np.ndarray,
    rim_px: float,
    core_px: float,
) -> np.ndarray:
    n, m = labels.shape
    out = np.zeros((count, _N_SUMS))
    for i in range(n):
        for j in range(m):
            k = labels[i, j]
            if k:
                s = out[k - 1]
                h = planes[0, i, j]
                s[_N] += 1
                s[_SX] += j
                s[_SY] += i
                s[_SXX] += j * j
                s[_SYY] += i * i
                s[_SXY] += i * j
                s[_H] += h
                s[_HH] += h * h
                s[_E] += planes[1, i, j]
                fine = h - smooth[i, j]
                s[_FINE] += fine * fine
                if depth[i, j] <= rim_px:
                    s[_NRIM] += 1
                    s[_HRIM] += h
                elif depth[i, j] >= core_px:
                    s[_NCORE] += 1
                    s[_HCORE] += h
                sides = 0
                sides += i == 0 or labels[i - 1, j] != k
                sides += i == n - 1 or labels[i + 1, j] != k
                sides += j == 0 or labels[i, j - 1] != k
                sides += j == m - 1 or labels[i, j + 1] != k
                # a pixel with two free sides lies on a diagonal part of the outline
                s[_EDGE] += math.sqrt(2.0) if sides == 2 else min(sides, 2)
            elif ring[i, j]:
                s = out[ring[i, j] - 1]
                e = planes[1, i, j]
                s[_RN] += 1
                s[_RH] += planes[0, i, j]
                s[_RE] += e
                s[_REE] += e * e
                s[_ROD] += planes[2, i, j]
                s[_RWHITE] += planes[2, i, j] < _WHITE_OD
    return out


@kernel(nogil=True)
def neighbours(
    places: np.ndarray, width: float, height: float, mpp: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance to the nearest and the sixth nucleus in microns, at most 100; and how many are within 25 µm.

    The number is divided by the fraction of the 25 µm that lies inside the tile, along rows and along columns.
    """
    n = len(places)
    nearest, sixth, within = np.empty(n), np.empty(n), np.empty(n)
    least = np.empty(6)
    reach = _AROUND_UM / mpp
    for a in range(n):
        least[:] = (_FARTHEST_UM / mpp) ** 2
        count = 0
        x, y = places[a, X], places[a, Y]
        for b in range(n):
            if b == a:
                continue
            d = (places[b, X] - x) ** 2 + (places[b, Y] - y) ** 2
            count += d <= reach * reach
            if d < least[5]:
                k = 5
                while k > 0 and least[k - 1] > d:
                    least[k] = least[k - 1]
                    k -= 1
                least[k] = d
        # two centres of nuclei are at least a pixel apart, except where one encloses the other
        nearest[a], sixth[a] = max(math.sqrt(least[0]), 1.0) * mpp, max(math.sqrt(least[5]), 1.0) * mpp
        across = min(reach, x + 0.5) + min(reach, width - 0.5 - x)
        down = min(reach, y + 0.5) + min(reach, height - 0.5 - y)
        within[a] = count / (across / (2 * reach)) / (down / (2 * reach))
    return nearest, sixth, within
