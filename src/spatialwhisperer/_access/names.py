"""Names that a caller writes out: one that no object has is an error, also where the call would not read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from spatialwhisperer._access.contract import libraries_of
from spatialwhisperer._access.sections.libraries import check_no_system
from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from spatialwhisperer._access.slide import Slide


def check_names(slides: Sequence[Slide], *, layer: str | None = None, **columns: str | None) -> None:
    """Refuse names that none of the objects has: those that the objects were opened with, of a layer, and of columns.

    Parameters
    ----------
    slides
        The objects, all opened with the same options.
    layer
        Layer of the table.
    **columns
        Columns of ``.obs``, by the name of the argument.

    Raises
    ------
    KeyError
        If no object has a name.
    ValueError
        If a coordinate system is named and no object has any.
    """
    if not slides:
        return
    _one_has("layer", layer, ".layers", [slide.table.layers for slide in slides])
    for argument, name in columns.items():
        _one_has(argument, name, ".obs", [slide.table.obs for slide in slides])
    options = slides[0].options
    images = [_images(slide) for slide in slides]
    asked = options.get("image_key")
    for name in asked.values() if isinstance(asked, Mapping) else [asked]:
        _one_has("image_key", name, "an image", images)
    _one_has("library_key", options.get("library_key"), ".obs", [slide.table.obs for slide in slides])
    system = options.get("coordinate_system")
    spatial = [slide.data.coordinate_systems for slide in slides if slide.is_spatialdata]  # type: ignore[union-attr]
    if not spatial:
        check_no_system(system)
    _one_has("coordinate_system", system, "a coordinate system", spatial)


def _images(slide: Slide) -> list[str]:
    if slide.is_spatialdata:
        return [str(name) for name in slide.data.images]  # type: ignore[union-attr]
    return list(libraries_of(slide.table))


def _one_has(argument: str, name: object, place: str, found: Sequence[Iterable[object]]) -> None:
    if name is None or any(name in names for names in found):
        return
    every = dict.fromkeys(str(name) for names in found for name in names)
    many = "" if len(found) == 1 else f" of any of the {len(found)} objects"
    what = f"in {place}" if place.startswith(".") else place
    raise KeyError(f"{argument}={name!r} is not {what}{many} (found: {listing(every)}).")
