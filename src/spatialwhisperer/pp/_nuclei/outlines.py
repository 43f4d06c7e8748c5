"""Outlines and measures of labelled nuclei."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer.pp._nuclei.tracing import trace

if TYPE_CHECKING:
    from collections.abc import Sequence

MEASURES = ("area_um2", "eccentricity", "solidity", "haematoxylin")
_REPEATED = 0.5


@dataclass(frozen=True)
class Nuclei:
    """Nuclei of an image.

    Attributes
    ----------
    outlines
        Polygons in full-resolution pixels (shapely), shape (n,).
    measures
        Area in square microns, eccentricity, solidity and mean optical density of haematoxylin, by name.
    block
        Number of the part of the image in which each was found.
    """

    outlines: np.ndarray
    measures: dict[str, np.ndarray]
    block: np.ndarray

    def __len__(self) -> int:
        return len(self.outlines)

    def picked(self, at: np.ndarray) -> Nuclei:
        """Some of them, in that order."""
        return Nuclei(self.outlines[at], {name: v[at] for name, v in self.measures.items()}, self.block[at])

    @property
    def centres(self) -> np.ndarray:
        """X and y of their centroids, shape (n, 2)."""
        import shapely

        points = shapely.centroid(self.outlines)
        return np.column_stack([shapely.get_x(points), shapely.get_y(points)])


def joined(parts: Sequence[Nuclei]) -> Nuclei:
    """The nuclei of all parts of an image, from top to bottom: their order does not depend on the parts."""
    if not parts:
        return Nuclei(np.empty(0, object), {name: np.empty(0) for name in MEASURES}, np.empty(0, np.int64))
    every = Nuclei(
        np.concatenate([p.outlines for p in parts]),
        {name: np.concatenate([p.measures[name] for p in parts]) for name in MEASURES},
        np.concatenate([p.block for p in parts]),
    )
    x, y = every.centres.T
    return every.picked(np.lexsort([x, y]))


def without_repeats(nuclei: Nuclei) -> Nuclei:
    """Leave out what two parts of an image found twice: of two that overlap by half of the smaller one, that of the later part."""
    import shapely

    tree = shapely.STRtree(nuclei.outlines)
    a, b = tree.query(nuclei.outlines, predicate="intersects")
    later = nuclei.block[a] < nuclei.block[b]
    a, b = a[later], b[later]
    area = shapely.area(nuclei.outlines)
    common = shapely.area(shapely.intersection(nuclei.outlines[a], nuclei.outlines[b]))
    repeated = np.zeros(len(nuclei), bool)
    repeated[b[common > _REPEATED * np.minimum(area[a], area[b])]] = True
    return nuclei.picked(np.flatnonzero(~repeated))


def measure(
    labels: np.ndarray,
    haematoxylin: np.ndarray,
    *,
    mpp: float,
    origin: tuple[int, int],
    scale: tuple[float, float],
    block: int,
    stretch: float = 1.0,
) -> Nuclei:
    """Outline and measure the nuclei of a window.

    Parameters
    ----------
    labels
        Number of the nucleus of each pixel, 0 where there is none, shape (height, width).
    haematoxylin
        Optical density of haematoxylin, of the same shape.
    mpp
        Microns per pixel: the edge of a square of the same area.
    origin
        Row and column of the first pixel in the image.
    scale
        Full-resolution pixels per pixel, along x and y.
    block
        Number of the window.
    stretch
        Width of a pixel divided by its height.
    """
    import shapely
    from scipy.ndimage import find_objects

    found = [(number, box) for number, box in enumerate(find_objects(labels), 1) if box is not None]
    if not found:
        return joined([])
    numbers = np.array([number for number, _ in found])
    boxes = np.array([(y.start, y.stop - 1, x.start, x.stop - 1) for _, (y, x) in found])
    corners, lengths = trace(labels, numbers, boxes)
    corners = (corners + (origin[1], origin[0])) * scale
    outlines = shapely.polygons(shapely.linearrings(corners, indices=np.repeat(np.arange(len(found)), lengths)))
    measures = _of_pixels(labels, haematoxylin, mpp, stretch, numbers, boxes)
    measures["solidity"] = shapely.area(outlines) / shapely.area(shapely.convex_hull(outlines))
    return Nuclei(np.asarray(outlines), measures, np.full(len(found), block))


def _of_pixels(
    labels: np.ndarray, haematoxylin: np.ndarray, mpp: float, stretch: float, numbers: np.ndarray, boxes: np.ndarray
) -> dict[str, np.ndarray]:
    """Area, eccentricity and mean haematoxylin."""
    y, x = np.nonzero(labels)
    stain = haematoxylin[y, x]
    at = np.searchsorted(numbers, labels[y, x])
    # relative to the box, so that sums do not depend on where the window begins
    y, x = y - boxes[at, 0], x - boxes[at, 2]

    def total(values: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(at, weights=values, minlength=len(numbers))

    n = total()
    dx, dy = x - (total(x) / n)[at], y - (total(y) / n)[at]
    # the square of a pixel has a variance of its own
    xx, yy, xy = total(dx * dx) / n + 1 / 12, total(dy * dy) / n + 1 / 12, total(dx * dy) / n
    # in square pixels
    xx, yy = xx * stretch, yy / stretch
    half, width = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    return {
        "area_um2": n * mpp**2,
        "eccentricity": np.sqrt(2 * width / (half + width)),
        "haematoxylin": total(stain) / n,
    }
