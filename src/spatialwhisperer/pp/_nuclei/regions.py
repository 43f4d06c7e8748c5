"""Nuclei in a window of an image: regions of haematoxylin with a sharp outline and the shape of a nucleus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from spatialwhisperer._compute.kernels import kernel
from spatialwhisperer.pp._nuclei import component_tree as tree

LONGEST_UM = 40.0
"""Longest extent of a nucleus along rows and columns. What is longer is never looked at, so a window needs no wider margin."""

MARGIN_UM = LONGEST_UM + 4.0
"""Margin of a window around the nuclei that it is asked for: their extent, and the reach of the filters."""

# constants were chosen on one half of the labelled images of `spatialwhisperer.protocols.nuclei`
_SMOOTH_UM = 0.3
_SLOPE_SMOOTH_UM = 0.5
_LOWEST, _HIGHEST, _N_LEVELS = 0.05, 1.3, 64
_LEAST_SLOPE = 0.04
_LEAST_FILL, _FULL_FILL = 0.7, 0.95
_LEAST_UM2, _MOST_UM2 = 16.0, 400.0
_SPLIT_UM, _SPLIT_FILL, _BLUR_UM = 0.3, 0.94, 0.5
_TRUNCATE = 3.0
_EIGHT = np.ones((3, 3))


@dataclass(frozen=True)
class Window:
    """A part of an image in which nuclei are looked for.

    Attributes
    ----------
    density
        Optical density of haematoxylin, 1 where it is as dark as the darkest hundredth of the tissue; float32, shape (height, width).
    mpp
        Microns per pixel.
    cut
        Whether the image goes on beyond the top, bottom, left and right edge. Regions that touch such an edge are left out.
    core
        First row, last row + 1, first column and last column + 1 of the part whose nuclei are asked for.
    """

    density: np.ndarray
    mpp: float
    cut: tuple[bool, bool, bool, bool]
    core: tuple[int, int, int, int]


def find_regions(window: Window, min_area_um2: float, max_area_um2: float) -> np.ndarray:
    """Find the nuclei whose centroid lies in the core of a window.

    The regions at or above each level of density form a tree. Of all sets of disjoint regions, the one is taken with the largest sum of
    a worth: the length of the outline times the mean gradient along it, weighted by how much the region resembles an ellipse, above a
    threshold. Every nucleus so gets a level of its own. Two that touch without a lighter gap are then divided by a
    watershed of the distance to the outline.

    Parameters
    ----------
    window
        The window, with a margin of `MARGIN_UM` around its core where the image goes on.
    min_area_um2, max_area_um2
        Smallest and largest area of a nucleus.

    Returns
    -------
    int32, shape (height, width): number of the nucleus from 1 on, 0 elsewhere. A nucleus does not depend on the window.
    """
    labels = np.zeros(window.density.shape, np.int32)
    smooth = _smoothed(window.density, _SMOOTH_UM / window.mpp)
    levels = np.ceil((smooth - _LOWEST) * (_N_LEVELS / (_HIGHEST - _LOWEST))).clip(0, _N_LEVELS).astype(np.uint8)
    if np.count_nonzero(levels) * window.mpp**2 < min_area_um2:
        return labels
    slope = tree.slopes(_smoothed(window.density, _SLOPE_SMOOTH_UM / window.mpp))
    parent, joined, sums, box, region = tree.component_tree(levels, slope, _N_LEVELS)
    # a narrower range must not move outlines to another level, so it is applied to what was chosen
    limits = _limits(window, min(min_area_um2, _LEAST_UM2), max(max_area_um2, _MOST_UM2))
    kept, flat = tree.choose_regions(parent, joined, _worth(sums, box, window.mpp, limits), region)
    labels = flat.reshape(labels.shape)
    sums, box = sums[kept], box[kept]
    tree.fill_holes(labels, box, np.argsort(-sums[:, tree.AREA], kind="stable"))
    _keep(labels, np.append(False, _in_core(sums, window.core)))
    slender = np.array([tree.fill_factor(one) < _SPLIT_FILL for one in sums], bool)
    _divide(labels, box, np.flatnonzero(slender), window.mpp)
    area = np.bincount(labels.ravel()) * window.mpp**2
    _keep(labels, (area >= min_area_um2) & (area <= max_area_um2))
    return labels


def _smoothed(plane: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(plane, sigma, truncate=_TRUNCATE)


def _limits(window: Window, min_area_um2: float, max_area_um2: float) -> np.ndarray:
    """Smallest and largest area and longest edge in pixels; first and last row and column that a region may reach."""
    height, width = window.density.shape
    top, bottom, left, right = window.cut
    area = window.mpp**2
    return np.array(
        [
            min_area_um2 / area,
            max_area_um2 / area,
            LONGEST_UM / window.mpp,
            1 if top else 0,
            height - 2 if bottom else height - 1,
            1 if left else 0,
            width - 2 if right else width - 1,
        ]
    )


@kernel(nogil=True)
def _worth(sums: np.ndarray, box: np.ndarray, mpp: float, limits: np.ndarray) -> np.ndarray:
    """Worth of each region as a nucleus; 0 where its size, shape or place rules it out."""
    least, most, longest, top, bottom, left, right = limits
    out = np.zeros(len(sums))
    for k in range(len(sums)):
        b = box[k]
        if not least <= sums[k, tree.AREA] <= most or max(b[1] - b[0], b[3] - b[2]) >= longest:
            continue
        if b[0] < top or b[1] > bottom or b[2] < left or b[3] > right:
            continue
        shape = (tree.fill_factor(sums[k]) - _LEAST_FILL) / (_FULL_FILL - _LEAST_FILL)
        length = sums[k, tree.CRACK]
        if shape > 0 and length > 0:
            slope = sums[k, tree.SLOPE] / tree.SLOPE_UNIT / length / mpp
            out[k] = length * mpp * (slope * min(shape, 1.0) - _LEAST_SLOPE)
    return out


def _in_core(sums: np.ndarray, core: tuple[int, int, int, int]) -> np.ndarray:
    """Whether the centroid of each region lies in the core."""
    n, x, y = sums[:, tree.AREA], sums[:, tree.X], sums[:, tree.Y]
    top, bottom, left, right = core
    # a pixel covers half a pixel around its centre; doubled, all numbers are whole
    x, y = 2 * x + n, 2 * y + n
    return (x >= 2 * left * n) & (x < 2 * right * n) & (y >= 2 * top * n) & (y < 2 * bottom * n)


def _keep(labels: np.ndarray, kept: np.ndarray) -> None:
    """Set the other regions to 0; the first entry stands for no region."""
    labels *= kept[labels] & (labels > 0)


def _divide(labels: np.ndarray, box: np.ndarray, some: np.ndarray, mpp: float) -> None:
    """Divide those of some regions that are several nuclei, in place; the new ones get numbers after the last."""
    from skimage.morphology import h_maxima
    from skimage.segmentation import watershed

    last = len(box)
    least = _LEAST_UM2 / mpp**2
    for k in some:
        top, bottom, left, right = box[k]
        part = labels[top : bottom + 1, left : right + 1]
        inside = np.pad(part == k + 1, 1)
        if np.count_nonzero(inside) < 2 * least or _fill_factor(inside) > _SPLIT_FILL:
            continue
        distance = _smoothed((ndimage.distance_transform_edt(inside) * mpp).astype(np.float32), _BLUR_UM / mpp)
        # most regions have one peak, which is found much faster than how far others rise
        peaks = (distance == ndimage.maximum_filter(distance, 3)) & inside
        if ndimage.label(peaks, _EIGHT)[1] < 2:
            continue
        seeds, n = ndimage.label(h_maxima(distance, _SPLIT_UM) * inside, _EIGHT)
        if n < 2:
            continue
        pieces = watershed(-distance, seeds, mask=inside)[1:-1, 1:-1]
        if np.bincount(pieces.ravel())[1:].min() < least:
            continue
        part[pieces > 1] = pieces[pieces > 1] + (last - 1)
        last += n - 1


def _fill_factor(inside: np.ndarray) -> float:
    y, x = np.nonzero(inside)
    sums = np.array([len(x), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum(), 0, 0])
    return float(tree.fill_factor(sums))
