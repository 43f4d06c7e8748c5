"""What objects tell that other tools made.

Readers of spatialdata-io register Visium HD and Xenium to nothing in microns, and keep smaller copies of a slide; wsidata keeps a thumbnail.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.contract import check_affine
from spatialwhisperer._access.elements.circles import radii_of
from spatialwhisperer._access.images import image_size
from spatialwhisperer._access.sections.scale import GivenPixel, Scale, stretch_of, unit_scale
from spatialwhisperer._access.sections.systems import moved, systems_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from spatialdata import SpatialData

XENIUM_PIXEL_UM = 0.2125
_BINS = re.compile(r"square_(\d{3})um(?![0-9A-Za-z])")
_IN_MICRONS = ("cell_circles", "cell_boundaries", "nucleus_boundaries", "transcripts")
_ALIKE = 1e-3
_DOWNSCALED = re.compile(r"(?:(.+)_)?downscaled_(?:hires|lowres)")
_WITHOUT_NAME = "global"
_WSIDATA = "slide_properties"


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


def slide_system(sdata: SpatialData, image: str) -> str | None:
    """The coordinate system whose unit is a pixel of the slide, as far as the object tells; else ``None``.

    It is that of a smaller copy, or the one in which an image fills the slide whose size wsidata (LazySlide) states.
    """
    its = systems_of(sdata.images[image])
    found = full_resolution_system(its)
    size = _size_by_wsidata(sdata)
    if found is not None or size is None:
        return found
    return next((name for name, matrix in its.items() if _fills(image_size(sdata.images[image]), matrix, size)), None)


def _size_by_wsidata(sdata: SpatialData) -> np.ndarray | None:
    """Width and height of the slide; ``None`` where the object is not from wsidata."""
    properties = sdata.attrs.get(_WSIDATA)
    shape = properties.get("shape") if isinstance(properties, Mapping) else None
    size = np.array(() if shape is None else shape)[::-1]
    return size if size.shape == (2,) and size.dtype.kind in "iuf" else None


def mpp_by_wsidata(sdata: SpatialData) -> float | None:
    """Microns per pixel of the slide; ``None`` where the object is not from wsidata, or the file of the slide states none."""
    properties = getattr(sdata, "attrs", {}).get(_WSIDATA)
    mpp = properties.get("mpp") if isinstance(properties, Mapping) else None
    if isinstance(mpp, bool) or not isinstance(mpp, int | float):
        return None
    return float(mpp) if 0 < mpp < np.inf else None


def _fills(image: tuple[int, int], matrix: np.ndarray, slide: np.ndarray) -> bool:
    """Whether an image reaches from the origin of a system to the size of the slide, to one of its pixels."""
    ends = moved(np.array([[0.0, 0.0], image]), matrix)
    return bool((abs(ends - [[0.0, 0.0], slide]) <= np.linalg.norm(matrix[:2, :2], axis=0)).all())


def pixel_of(sdata: SpatialData, image: str) -> GivenPixel:
    """The pixel that an ``mpp`` of the caller is about: one of the slide where the object tells these, else one of the image."""
    width, height = image_size(sdata.images[image])
    own = f"image {image!r} ({width} x {height} pixels)"
    system = slide_system(sdata, image)
    if system is None:
        return GivenPixel(f"pixel of {own}", own)
    matrix = systems_of(sdata.images[image])[system]
    check_affine(image, system, matrix)
    return GivenPixel(f"pixel of the full resolution, coordinate system {system!r}", own, unit_scale(matrix))


def of_wsidata(sdata: SpatialData, image: str) -> tuple[Scale, ...]:
    """Scale by the microns per pixel of the slide that wsidata (LazySlide) states, for an image that fills the slide."""
    mpp = mpp_by_wsidata(sdata)
    system = None if mpp is None or _size_by_wsidata(sdata) is None else slide_system(sdata, image)
    if mpp is None or system is None:
        return ()
    matrix = systems_of(sdata.images[image])[system]
    check_affine(image, system, matrix)
    return (Scale(mpp * unit_scale(matrix), f"{_WSIDATA} of wsidata", stretch_of(matrix)),)


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
