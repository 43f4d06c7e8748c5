"""Checks of single arguments, the same for every function."""

from __future__ import annotations

from typing import Any

import numpy as np

from spatialwhisperer import _keys


def check_key_added(key: Any) -> None:
    """Refuse a key that storage formats cannot keep, or that the package uses itself; ``None`` stands for the default key.

    Raises
    ------
    TypeError
        If it is not text.
    ValueError
        If it is empty, holds "/", or is the key of the provenance in ``.uns``.
    """
    if key is None:
        return
    if not isinstance(key, str):
        raise TypeError(f"key_added must be text, not {key!r}. Pass another name, or leave it out.")
    if not key.strip() or "/" in key or key == _keys.UNS:
        raise ValueError(
            f'key_added must be a name without "/" (which divides folders in files), and not {_keys.UNS!r} (which holds the '
            f"provenance of all results); found {key!r}. Pass another name, or leave it out."
        )


def check_batch_size(size: Any) -> None:
    """Refuse a number of rows in one pass that is not a positive whole number; ``None`` takes that of the settings.

    Raises
    ------
    ValueError
        If it is not.
    """
    if size is None:
        return
    if isinstance(size, bool) or not hasattr(size, "__index__") or size < 1:
        raise ValueError(f"batch_size must be a positive whole number, not {size!r}.")


def positive(name: str, value: float) -> float:
    """Return the value as a float.

    Raises
    ------
    ValueError
        If it is not a positive finite number.
    """
    if not np.isfinite(value) or value <= 0:
        raise ValueError(f"{name} must be a positive number, not {value!r}.")
    return float(value)


def one_of(name: str, value: Any, choices: Any) -> Any:
    """Return the value.

    Raises
    ------
    ValueError
        If it is not one of the choices of a ``Literal``.
    """
    if value not in choices.__args__:
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
    if tile_px is not None and (isinstance(tile_px, bool) or int(tile_px) != tile_px or tile_px < 1):
        raise ValueError(f"tile_px must be a positive whole number, not {tile_px!r}.")
