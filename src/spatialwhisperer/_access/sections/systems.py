"""Coordinate systems of a SpatialData: those that place an element, and the map from one element to the pixels of an image."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.contract import check_affine
from spatialwhisperer._access.images import XY, image_size
from spatialwhisperer._access.sections.scale import MICRONS
from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULT_SYSTEM = "global"
_APART_PX, _APART_PART = 0.5, 1e-3


def systems_of(element: Any) -> dict[str, np.ndarray]:
    """Affine map of x and y to each coordinate system of an element, shape (3, 3)."""
    from spatialdata.transformations import get_transformation

    return {str(k): t.to_affine_matrix(XY, XY) for k, t in get_transformation(element, get_all=True).items()}


def moved(xy: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points after an affine map, shape (n, 2)."""
    return xy @ matrix[:2, :2].T + matrix[:2, 2]


def placing_systems(elements: Mapping[str, Any]) -> dict[str, list[set[str]]]:
    """Coordinate systems in which each region is placed: those of its own, then all.

    The default system and those of several regions may hold other sections too. One of microns, which unrelated sections may share, is
    left out where there are others.
    """
    every = {region: set(systems_of(element)) for region, element in elements.items()}
    every = {r: {name for name in names if not MICRONS.search(name)} or names for r, names in every.items()}
    count = Counter(name for names in every.values() for name in names)
    common = {_DEFAULT_SYSTEM, *(name for name, n in count.items() if n > 1)}
    return {region: [names - common, names] for region, names in every.items()}


def to_image(
    region: str, element: Any, image_name: str, image: Any, coordinate_system: str | None
) -> tuple[str, np.ndarray]:
    """Coordinate system through which a region and an image are aligned, and the affine map from the region to image pixels."""
    own, its = systems_of(element), systems_of(image)
    shared = [name for name in own if name in its]
    if coordinate_system is not None:
        if coordinate_system not in shared:
            raise ValueError(
                f"coordinate_system={coordinate_system!r} is not shared by {region!r} (in {listing(own)}) and image "
                f"{image_name!r} (in {listing(its)})."
            )
        shared = [coordinate_system]
    if not shared:
        raise ValueError(
            f"{region!r} (in {listing(own)}) and image {image_name!r} (in {listing(its)}) share no coordinate system. "
            "Align them with spatialdata.transformations.set_transformation."
        )
    for name in shared:
        check_affine(region, name, own[name])
        check_affine(image_name, name, its[name])
    maps = {name: np.linalg.inv(its[name]) @ own[name] for name in shared}
    first = maps[shared[0]]
    if any(_apart(image_size(image), first, other) > 1 for other in maps.values()):
        raise ValueError(
            f"{region!r} and image {image_name!r} are matched differently in the coordinate systems {listing(shared)}. "
            "Choose one with coordinate_system=…."
        )
    return shared[0], first


def _apart(size: tuple[int, int], one: np.ndarray, other: np.ndarray) -> float:
    """How far apart two maps to an image place its corners, in units of what rounded numbers explain."""
    width, height = size
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]])
    moved = corners @ np.linalg.inv(one).T @ other.T - corners
    return float(np.linalg.norm(moved[:, :2], axis=1).max() / (_APART_PX + _APART_PART * max(width, height)))
