"""Checks of single values, each with the name of its argument in the error."""

from __future__ import annotations

import os
from difflib import get_close_matches
from typing import Any

import numpy as np

from spatialwhisperer import _keys
from spatialwhisperer._annotations import is_number, is_path, is_text, is_whole, iterated, shown
from spatialwhisperer._messages import listing
from spatialwhisperer._settings import settings

_MOST = 2**31 - 1
_MOST_SEED = 2**32 - 1
_LONGEST_TILE_PX = 2**15
_LONGEST_NAME = 200
_PLACES = {
    "spatial": "the positions and the images of the rows",
    "spatialdata_attrs": "the elements that a table annotates",
    "array_row": "the row of each spot on its array",
    "array_col": "the column of each spot on its array",
}


def check_key_added(key: Any) -> None:
    """Refuse a key that storage formats cannot keep, or that the package uses itself; ``None`` stands for the default key.

    The rule is that of SpatialData, whose elements, columns and keys are folders in a zarr store.

    Raises
    ------
    TypeError
        If it is not text.
    ValueError
        If it is empty, longer than 200 bytes, holds other characters than letters, digits, "_", "-" and ".", or is the key of the
        provenance in ``.uns`` or of what places the rows, such as ``"spatial"``.
    """
    if key is None:
        return
    if not isinstance(key, str):
        raise TypeError(f"key_added must be text, not {key!r}. Pass another name, or leave it out.")
    plain = all(c.isalnum() or c in "_-." for c in key)
    if not key.strip(".") or not plain or key.startswith("__") or key in (_keys.UNS, "_index"):
        raise ValueError(
            f'key_added must be a name of letters, digits, "_", "-" and ".", as SpatialData stores no other, and not {_keys.UNS!r} '
            f"(which holds the provenance of all results); found {key!r}. Pass another name, or leave it out."
        )
    if key in _PLACES:
        raise ValueError(
            f"key_added must be another name than {key!r}, under which AnnData holds {_PLACES[key]}. Pass another name, or leave it out."
        )
    if len(key.encode()) > _LONGEST_NAME:
        raise ValueError(
            f"key_added must be a name of at most {_LONGEST_NAME} bytes, as it is the name of a file; found {len(key.encode())}. "
            "Pass a shorter one."
        )


def check_batch_size(size: Any) -> None:
    """Refuse a number of rows in one pass that is not a positive whole number; ``None`` takes that of the settings.

    Raises
    ------
    ValueError
        If it is not.
    """
    if size is not None:
        check_whole("batch_size", size)


def check_device(device: Any) -> None:
    """Refuse a device that does not exist, before any work; ``None`` takes that of the settings.

    Raises
    ------
    ValueError
        If this is not the name of a device, or this machine has no such device.
    """
    # without a wish there is nothing to check, and torch need not be imported
    if device is not None or settings.device is not None:
        settings.resolve_device(device)


def check_seed(name: str, value: Any) -> None:
    """Refuse a seed that one of the libraries would refuse.

    Raises
    ------
    ValueError
        If it is not a whole number from 0 to 2**32 - 1.
    """
    if not is_whole(value) or not 0 <= value <= _MOST_SEED:
        raise ValueError(f"{name} must be a whole number from 0 to {_MOST_SEED}, not {value!r}.")


def check_whole(name: str, value: Any, *, least: int = 1, most: int = _MOST) -> None:
    """Refuse a value that is not a whole number of a range.

    Raises
    ------
    ValueError
        If it is not.
    """
    if not is_whole(value) or value < least:
        kinds = {0: "a whole number of at least 0", 1: "a positive whole number", 2: "a whole number above 1"}
        raise ValueError(f"{name} must be {kinds.get(least, f'a whole number of at least {least}')}, not {value!r}.")
    if value > most:
        raise ValueError(f"{name} must be at most {most}, not {value!r}.")


def check_number(name: str, value: Any, *, least: float = -np.inf, most: float = np.inf) -> None:
    """Refuse a value that is not a finite number of a range.

    Raises
    ------
    ValueError
        If it is not.
    """
    if not _is_finite(value) or not least <= value <= most:
        limits = f" between {least:g} and {most:g}" if np.isfinite(most) else f" of at least {least:g}"
        raise ValueError(f"{name} must be a number{limits if np.isfinite(least) else ''}, not {value!r}.")


def check_text(name: str, value: Any) -> None:
    """Refuse a name that is not text.

    Raises
    ------
    TypeError
        If it is not.
    """
    if not is_text(value):
        raise TypeError(f"{name} must be text, not {shown(value)}.")


def check_texts(name: str, value: Any) -> None:
    """Refuse what is neither a name nor several.

    Raises
    ------
    TypeError
        If it is not.
    """
    if hasattr(value, "__next__"):
        # an iterator can be read only once
        return
    several = [value] if isinstance(value, str) else iterated(value)
    if several is None or not all(map(is_text, several)):
        raise TypeError(f"{name} must be text, or a list of texts, not {shown(value)}.")


def check_flag(name: str, value: Any) -> None:
    """Refuse a switch that is neither on nor off.

    Raises
    ------
    TypeError
        If it is not.
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, not {value!r}.")


def check_path(name: str, value: Any) -> None:
    """Refuse what cannot name a file or a folder.

    Raises
    ------
    TypeError
        If it is neither text nor a path.
    ValueError
        If it is empty or holds a character that no file system takes.
    """
    if not is_path(value):
        raise TypeError(f"{name} must be a path, not {shown(value)}.")
    if not os.fspath(value) or "\0" in str(value):
        raise ValueError(f"{name} must name a file or folder; found {shown(value)}.")


def check_colour_map(name: str, value: Any) -> None:
    """Refuse a name that is not a colour map of matplotlib; an object is left to matplotlib.

    Raises
    ------
    ValueError
        If there is no such colour map.
    """
    import matplotlib as mpl

    known = list(mpl.colormaps)
    if not isinstance(value, mpl.colors.Colormap) and not (isinstance(value, str) and value in known):
        near = get_close_matches(str(value), known, n=3)
        raise ValueError(
            f"{name} must be a colour map of matplotlib, not {shown(value)} (such as {listing(near or known, 5)})."
        )


def positive(name: str, value: Any) -> float:
    """Return the value as a float.

    Raises
    ------
    ValueError
        If it is not a positive finite number.
    """
    if not _is_finite(value) or value <= 0:
        raise ValueError(f"{name} must be a positive number, not {value!r}.")
    return float(value)


def _is_finite(value: Any) -> bool:
    return is_number(value) and bool(np.isfinite(float(value)))


def one_of(name: str, value: Any, choices: Any) -> Any:
    """Return the value.

    Raises
    ------
    ValueError
        If it is not one of the choices of a ``Literal``.
    """
    if not isinstance(value, str) or value not in choices.__args__:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices.__args__))}, not {value!r}.")
    return value


def check_tile(tile_um: float, tile_px: int | None) -> None:
    """Refuse an edge of a tile, in microns and in pixels, that is not a size.

    Raises
    ------
    TypeError
        If ``tile_um`` is not one number.
    ValueError
        If a size is not positive, or ``tile_px`` not whole.
    """
    if np.ndim(tile_um):
        raise TypeError(f"tile_um must be one number here, not {tile_um!r}; sw.pp.embed_images takes several sizes.")
    positive("tile_um", tile_um)
    check_tile_px("tile_px", tile_px)


def check_tile_px(name: str, value: Any) -> None:
    """Refuse an edge of a tile in pixels that is not a positive whole number; ``None`` passes.

    Raises
    ------
    ValueError
        If it is not.
    """
    if value is not None:
        whole = int(value) if isinstance(value, float) and value.is_integer() else value
        check_whole(name, whole, most=_LONGEST_TILE_PX)
