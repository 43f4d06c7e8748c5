"""The arguments with which a slide is opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict, cast

from spatialwhisperer._access.table.groups import by_group
from spatialwhisperer._checks.values import check_text, positive
from spatialwhisperer._messages import listing

_BY_SECTION = ("image_key", "mpp")


class SlideOptions(TypedDict, total=False):
    """Arguments of every function that reads images or positions.

    Attributes
    ----------
    table_key
        Table of a SpatialData.
    image_key
        Image to read, one for all or by section.
    coordinate_system
        Coordinate system through which shapes and image of a SpatialData are aligned.
    library_key
        Column of ``.obs`` that names the library of each row, for an AnnData with several libraries.
    mpp
        Microns per full-resolution pixel, one for all or by section (or image). Where a SpatialData does not tell the full resolution,
        the pixels are those of the image.
    spot_pitch_um
        Centre-to-centre distance of the spots in microns, from which ``mpp`` follows.
    """

    table_key: str | None
    image_key: str | Mapping[str, str] | None
    coordinate_system: str | None
    library_key: str | None
    mpp: float | Mapping[str, float] | None
    spot_pitch_um: float | None


def check_values(options: Mapping[str, object]) -> None:
    """Refuse values that no object can be opened with, also where a call reads neither images nor positions.

    Raises
    ------
    TypeError
        If a name is not text.
    ValueError
        If a size is not a positive number.
    """
    for name, value in options.items():
        each = value.values() if isinstance(value, Mapping) and name in _BY_SECTION else (value,)
        for one in each:
            if one is None:
                continue
            if name in ("mpp", "spot_pitch_um"):
                positive(name, one)
            else:
                check_text(name, one)


def named_options(options: SlideOptions) -> SlideOptions:
    """The same options, in which mappings from section have their names as keys, also where a column holds whole numbers.

    Raises
    ------
    ValueError
        If two keys name one section.
    """
    named = {
        name: by_group(name, value) if isinstance(value, Mapping) and name in _BY_SECTION else value
        for name, value in options.items()
    }
    return cast("SlideOptions", named)


def check_options(options: Mapping[str, object]) -> None:
    """Raise an error for arguments that do not exist, with the name that was probably meant.

    Raises
    ------
    TypeError
        If there are any.
    """
    from difflib import get_close_matches

    known = list(SlideOptions.__annotations__)
    for name in options:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"An object is opened with {listing(known)}."
            raise TypeError(f"There is no argument {name!r}. {hint}")
