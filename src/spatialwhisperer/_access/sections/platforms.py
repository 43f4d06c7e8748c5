"""What objects tell that readers of spatialdata-io made: Visium HD and Xenium register nothing to microns, and Visium reads smaller copies of a slide."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.elements.circles import radii_of
from spatialwhisperer._access.sections.scale import Scale, stretch_of, unit_scale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from spatialdata import SpatialData

XENIUM_PIXEL_UM = 0.2125
_BINS = re.compile(r"square_(\d{3})um(?![0-9A-Za-z])")
_IN_MICRONS = ("cell_circles", "cell_boundaries", "nucleus_boundaries", "transcripts")
_ALIKE = 1e-3
_DOWNSCALED = re.compile(r"(?:(.+)_)?downscaled_(?:hires|lowres)")
_WITHOUT_NAME = "global"


def full_resolution_system(systems: Iterable[str]) -> str | None:
    """The coordinate system whose unit is a pixel of the full resolution; ``None`` where the image of these systems is no smaller copy.

    The reader of Visium registers the image ``hires`` to ``<dataset>_downscaled_hires`` and to ``<dataset>``.

    Parameters
    ----------
    systems
        Coordinate systems of an image.
    """
    names = list(systems)
    found = (_DOWNSCALED.fullmatch(name) for name in names)
    return next((name for match in found if match and (name := match.group(1) or _WITHOUT_NAME) in names), None)


def of_bins(region: str, element: Any, matrix: np.ndarray) -> tuple[Scale, ...]:
    """Scale by the bins of Visium HD, whose size is part of their name (``…_square_008um``).

    Parameters
    ----------
    region, element
        Name of the shapes, and the shapes: squares, or circles inside them.
    matrix
        Affine map from them to the pixels of the image.
    """
    found = _BINS.search(region)
    if found is None or not hasattr(element, "geometry"):
        return ()
    radii = radii_of(element)
    edge = float(np.sqrt(np.median(element.geometry.area)) if radii is None else 2 * np.median(radii))
    um = float(found.group(1))
    return (Scale(um / (edge * unit_scale(matrix)), f"bins of {um:g} µm"),) if edge > 0 else ()


def of_xenium(
    sdata: SpatialData, system: str, image: np.ndarray, systems: Callable[[Any], Mapping[str, np.ndarray]]
) -> tuple[Scale, ...]:
    """Scale by the cells or transcripts of Xenium: they are in microns, and placed in a system of pixels of 0.2125 µm.

    Parameters
    ----------
    sdata
        The object.
    system
        The coordinate system through which rows and image are aligned.
    image
        Affine map from the pixels of the image to it.
    systems
        Gives the affine maps of an element by coordinate system.
    """
    for name in (*sdata.shapes, *sdata.points):
        if not str(name).startswith(_IN_MICRONS):
            continue
        matrix = systems(sdata[name]).get(system)
        if matrix is not None and abs(unit_scale(matrix) * XENIUM_PIXEL_UM - 1) < _ALIKE:
            return (Scale(XENIUM_PIXEL_UM * unit_scale(image), "Xenium pixels of 0.2125 µm", stretch_of(image)),)
    return ()
