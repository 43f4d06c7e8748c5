"""Which image of a SpatialData is meant: the one that is named, else the only picture that there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.contract import check_affine
from spatialwhisperer._access.images import find_image, rgb_names
from spatialwhisperer._access.sections.copies import finest_copy
from spatialwhisperer._access.sections.systems import systems_of, to_image
from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData


def choose_image(
    sdata: SpatialData,
    region: str,
    element: Any,
    image_key: str | Mapping[str, str] | None,
    coordinate_system: str | None,
    systems: Sequence[set[str]],
) -> str | None:
    """The image of a region: the one that is named, else the only RGB picture that lies where the region does.

    Several images are one picture if they show the same at different resolutions. The finest is read.

    Parameters
    ----------
    sdata
        The object.
    region, element
        Name of what the rows annotate, and the element.
    image_key
        Name of the image, one for all or by region.
    coordinate_system
        Coordinate system through which both are aligned; ``None`` takes what they share.
    systems
        Sets of coordinate systems; the first that holds an image counts.

    Raises
    ------
    KeyError
        If the image that is named does not exist.
    ValueError
        If there are several pictures.
    """
    wanted = image_key.get(region) if isinstance(image_key, Mapping) else image_key
    if wanted is not None:
        return _named(sdata, wanted)
    images = {name: set(systems_of(sdata.images[name])) for name in rgb_names(sdata)}
    for wide in systems:
        names = [name for name, its in images.items() if its & wide]
        if len(names) > 1:
            return _finest(sdata, region, element, names, coordinate_system)
        if names:
            return names[0]
    return None


def the_image(sdata: SpatialData, image_key: str | None) -> str:
    """The image of a slide without a table: the one that is named, else the only RGB picture.

    Raises
    ------
    KeyError
        If it does not exist, or there are several pictures and none is named.
    """
    if image_key is not None:
        return _named(sdata, image_key)
    names = pictures(sdata)
    if len(names) == 1:
        return names[0]
    if not names:
        raise KeyError("This SpatialData holds no H&E image. Read one: sw.io.read_slide(path).")
    raise KeyError(f"This SpatialData holds several images ({listing(names)}); choose one with image_key=….")


def pictures(sdata: SpatialData) -> list[str]:
    """Names of the RGB images, without those that show the picture of another one at a lower resolution."""
    names = rgb_names(sdata)
    systems = {name: systems_of(sdata.images[name]) for name in names}
    coarser: set[str] = set()
    for system in dict.fromkeys(system for its in systems.values() for system in its):
        here = {name: its[system] for name, its in systems.items() if system in its}
        coarser |= _coarser(sdata, system, here)
    return [name for name in names if name not in coarser]


def _coarser(sdata: SpatialData, system: str, matrices: Mapping[str, np.ndarray]) -> set[str]:
    """Those of the images in a coordinate system that are coarser copies of the finest one."""
    if len(matrices) < 2:
        return set()
    for name, matrix in matrices.items():
        check_affine(name, system, matrix)
    placed = {name: np.linalg.inv(matrix) for name, matrix in matrices.items()}
    finest = finest_copy({name: find_image(sdata, name) for name in placed}, placed)
    return set() if finest is None else placed.keys() - {finest}


def _finest(sdata: SpatialData, region: str, element: Any, names: Sequence[str], coordinate_system: str | None) -> str:
    placed = {name: to_image(region, element, name, sdata.images[name], coordinate_system)[1] for name in names}
    finest = finest_copy({name: find_image(sdata, name) for name in names}, placed)
    if finest is None:
        raise ValueError(
            f"Several images share a coordinate system with {region!r}: {listing(names)}. They do not show one picture at several "
            "resolutions. Choose one with image_key=… (a name, or a mapping from region to image)."
        )
    return finest


def _named(sdata: SpatialData, image_key: str) -> str:
    if image_key not in sdata.images:
        raise KeyError(f"image_key={image_key!r} is not an image of this SpatialData (found: {listing(sdata.images)}).")
    return str(image_key)
