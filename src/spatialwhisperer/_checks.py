"""Checks of single arguments, the same for every function."""

from __future__ import annotations

from typing import Any

import numpy as np

from spatialwhisperer import _keys


def check_key_added(key: Any) -> None:
    """Refuse a name of slots that storage formats cannot keep, or that belongs to the package; ``None`` is the function's own name.

    Raises
    ------
    TypeError, ValueError
        If it is not text, is empty, holds "/", or is the slot of the provenance.
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
    """Refuse a number of rows in one pass that is not a positive whole number; ``None`` leaves it to the settings."""
    if size is None:
        return
    if isinstance(size, bool) or not hasattr(size, "__index__") or size < 1:
        raise ValueError(f"batch_size must be a positive whole number, not {size!r}.")


def positive(name: str, value: float) -> float:
    """Return the value, or raise where it is not a positive finite number."""
    if not np.isfinite(value) or value <= 0:
        raise ValueError(f"{name} must be a positive number, not {value!r}.")
    return float(value)


def one_of(name: str, value: Any, choices: Any) -> Any:
    """Return the value, or raise where it is not one of a Literal's choices."""
    if value not in choices.__args__:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices.__args__))}, not {value!r}.")
    return value


def check_tile(tile_um: float, tile_px: int | None) -> None:
    """Raise where the size of a tile is not a size."""
    if np.ndim(tile_um):
        raise TypeError(f"tile_um must be one number here, not {tile_um!r}; sw.pp.embed_images takes several sizes.")
    positive("tile_um", tile_um)
    if tile_px is not None and (isinstance(tile_px, bool) or int(tile_px) != tile_px or tile_px < 1):
        raise ValueError(f"tile_px must be a positive whole number, not {tile_px!r}.")
