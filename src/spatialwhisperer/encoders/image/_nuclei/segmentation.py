"""Nuclei of one tile: a mask of what is darker in haematoxylin than its surroundings, seeds, and a flooding from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from spatialwhisperer._compute.kernels import kernel
from spatialwhisperer.encoders.image._nuclei import filters

SMALLEST_UM2, LARGEST_UM2 = 12.0, 350.0
"""Smallest and largest area of a nucleus."""

_SMOOTH_UM = 0.8
_LOCAL_UM, _LOCAL_CELL_UM = 25.0, 4.0
_LEAST_H, _LOCAL, _FIXED = 0.22, 0.7, 0.126
_OPENING_UM, _HOLE_UM2 = 0.7, 20.0
_BLOB_UM, _BLOB_CELL_UM, _BLOB_WEIGHT = 2.2, 1.0, 2.5
_DEEPEST_UM, _SEED_DEPTH_UM, _SEED_APART_UM = 5.0, 0.9, 3.0
_LEVELS, _TOP = 1024, 2.5
_CLOSED = -1


@dataclass(frozen=True)
class Scale:
    """The lengths of the recipe in pixels, at one resolution."""

    mpp: float
    smooth: np.ndarray
    local_cell: int
    local: np.ndarray
    opening: int
    hole_px: float
    blob_cell: int
    blob: np.ndarray
    blob_gain: float
    deepest: int
    seed_depth: float
    apart: np.ndarray
    smallest_px: float
    largest_px: float


@lru_cache(maxsize=8)
def scale_of(mpp: float) -> Scale:
    """The recipe at ``mpp`` microns per pixel."""
    local_cell = max(1, round(_LOCAL_CELL_UM / mpp))
    blob_cell = max(1, round(_BLOB_CELL_UM / mpp))
    blob_px = _BLOB_UM / (mpp * blob_cell)
    return Scale(
        mpp=mpp,
        smooth=filters.gaussian_taps(_SMOOTH_UM / mpp),
        local_cell=local_cell,
        local=filters.gaussian_taps(_LOCAL_UM / (mpp * local_cell)),
        opening=max(1, round(_OPENING_UM / mpp)),
        hole_px=_HOLE_UM2 / mpp**2,
        blob_cell=blob_cell,
        blob=filters.gaussian_taps(blob_px),
        # the response of a blob does not depend on its scale
        blob_gain=_BLOB_WEIGHT * blob_px**2,
        deepest=max(1, round(_DEEPEST_UM / mpp)),
        seed_depth=_SEED_DEPTH_UM / mpp,
        apart=_disc(_SEED_APART_UM / mpp),
        smallest_px=SMALLEST_UM2 / mpp**2,
        largest_px=LARGEST_UM2 / mpp**2,
    )


def _disc(radius_px: float) -> np.ndarray:
    """Offsets (row, column) of the pixels around one, up to a distance, int64 (k, 2)."""
    reach = int(np.ceil(radius_px))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    inside = (y * y + x * x <= radius_px**2 + 0.5) & ((y != 0) | (x != 0))
    return np.column_stack([y[inside], x[inside]]).astype(np.int64)


def segment(haematoxylin: np.ndarray, scale: Scale) -> tuple[np.ndarray, int, np.ndarray, np.ndarray]:
    """Find the nuclei of a plane of haematoxylin.

    Parameters
    ----------
    haematoxylin
        Amount of haematoxylin, 1 where it is as dark as the darkest hundredth of the tissue, float32 (n, m).
    scale
        The recipe at the resolution of the plane.

    Returns
    -------
    Number of the nucleus of each pixel from 1 on (0 where there is none, int32), how many there are, the depth inside the mask in
    pixels, and haematoxylin without its finest detail.
    """
    n, m = haematoxylin.shape
    smooth = filters.gaussian(haematoxylin, scale.smooth)
    around = filters.gaussian(filters.pooled(haematoxylin, scale.local_cell), scale.local)
    floor = np.maximum(np.float32(_LEAST_H), np.float32(_LOCAL) * around + np.float32(_FIXED))
    mask = smooth > filters.enlarged(floor.astype(np.float32), scale.local_cell, n, m)
    mask = filters.opened(mask, scale.opening)
    filters.fill_small_holes(mask, scale.hole_px)
    depth = filters.distance_inside(mask, scale.deepest)
    blobs = filters.laplacian(filters.gaussian(filters.pooled(haematoxylin, scale.blob_cell), scale.blob))
    blobs = np.maximum(blobs * np.float32(-scale.blob_gain), np.float32(0))
    height = filters.gaussian(depth / np.float32(scale.deepest), scale.smooth)
    height += filters.enlarged(blobs, scale.blob_cell, n, m)
    seeds = find_seeds(height, mask, depth, scale.seed_depth, scale.apart)
    labels = flood(height, mask, seeds)
    count = keep_sizes(labels, len(seeds), scale.smallest_px, scale.largest_px)
    return labels, count, depth, smooth


@kernel(nogil=True)
def find_seeds(
    height: np.ndarray, mask: np.ndarray, depth: np.ndarray, least_depth: float, around: np.ndarray
) -> np.ndarray:
    """Pixels of a mask that are the highest within some offsets and deep enough, as flat indices; of equal ones the first."""
    n, m = height.shape
    out = np.empty(n * m // 4 + 1, np.int64)
    count = 0
    for i in range(n):
        for j in range(m):
            v = height[i, j]
            if not mask[i, j] or depth[i, j] <= least_depth:
                continue
            if (j > 0 and height[i, j - 1] >= v) or (j < m - 1 and height[i, j + 1] > v):
                continue
            if (i > 0 and height[i - 1, j] >= v) or (i < n - 1 and height[i + 1, j] > v):
                continue
            top = True
            for k in range(len(around)):
                y, x = i + around[k, 0], j + around[k, 1]
                if 0 <= y < n and 0 <= x < m:
                    w = height[y, x]
                    if w > v or (w == v and (y < i or (y == i and x < j))):
                        top = False
                        break
            if top:
                out[count] = i * m + j
                count += 1
    return out[:count]


@kernel(nogil=True)
def flood(height: np.ndarray, mask: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Watershed of a mask from seeds downwards: each pixel joins the seed whose flood reaches it first, the highest pixels first."""
    n, m = height.shape
    # a border of closed pixels around, so that the neighbours of a pixel are at fixed distances
    wide = m + 2
    labels = np.full((n + 2) * wide, _CLOSED, np.int32)
    levels = np.zeros((n + 2) * wide, np.int32)
    unit = np.float32((_LEVELS - 1) / _TOP)
    for i in range(n):
        for j in range(m):
            if mask[i, j]:
                labels[(i + 1) * wide + j + 1] = 0
                levels[(i + 1) * wide + j + 1] = min(int(height[i, j] * unit), _LEVELS - 1)
    # one queue for each level of height
    first = np.full(_LEVELS, -1, np.int32)
    last = np.full(_LEVELS, -1, np.int32)
    following = np.empty((n + 2) * wide, np.int32)
    for k in range(len(seeds)):
        pixel = (seeds[k] // m + 1) * wide + seeds[k] % m + 1
        labels[pixel] = k + 1
        _push(pixel, levels[pixel], first, last, following)
    level = _LEVELS - 1
    while level >= 0:
        pixel = first[level]
        if pixel < 0:
            level -= 1
            continue
        first[level] = following[pixel]
        for other in (pixel + wide, pixel - wide, pixel + 1, pixel - 1):
            if labels[other] == 0:
                labels[other] = labels[pixel]
                _push(other, min(levels[other], level), first, last, following)
    return np.maximum(labels.reshape(n + 2, wide)[1:-1, 1:-1], np.int32(0))


@kernel(nogil=True)
def _push(pixel: int, level: int, first: np.ndarray, last: np.ndarray, following: np.ndarray) -> None:
    following[pixel] = -1
    if first[level] < 0:
        first[level] = pixel
    else:
        following[last[level]] = pixel
    last[level] = pixel


@kernel(nogil=True)
def keep_sizes(labels: np.ndarray, n: int, least_px: float, most_px: float) -> int:
    """Remove regions outside of a range of sizes and number the others from 1 on, in place; returns how many there are."""
    flat = labels.ravel()
    size = np.zeros(n + 1, np.int64)
    for pixel in range(flat.size):
        size[flat[pixel]] += 1
    number = np.zeros(n + 1, np.int32)
    count = 0
    for k in range(1, n + 1):
        if least_px <= size[k] <= most_px:
            count += 1
            number[k] = count
    for pixel in range(flat.size):
        flat[pixel] = number[flat[pixel]]
    return count
