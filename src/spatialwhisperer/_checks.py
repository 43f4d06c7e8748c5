"""Checks of single arguments, the same for every function.

A public function is decorated with `checked`. Arguments whose names are in `RULES` are then checked before anything else happens, and
the others by their annotations.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

from spatialwhisperer import _keys
from spatialwhisperer._annotations import check_annotated, is_number, is_path, is_text, is_whole, iterated, shown
from spatialwhisperer._messages import listing
from spatialwhisperer.settings import settings

P = ParamSpec("P")
R = TypeVar("R")
Rule = Callable[[str, Any], None]

_MOST = 2**31 - 1
_MOST_SEED = 2**32 - 1
_MOST_REPEATS = 1_000_000
_LONGEST_TILE_PX = 2**15
_LONGEST_NAME = 200


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Check the arguments of a public function by the rules of their names, else by their annotations, before it is called.

    A default that is passed by name is always right.
    """
    return _watched(function, RULES)


def checked_options(cls: type[R]) -> type[R]:
    """Check the fields of a dataclass, as `checked` does arguments, whenever one is made."""
    cls.__init__ = _watched(cls.__init__, RULES)  # type: ignore[method-assign]
    return cls


def checked_fields(cls: type[R]) -> type[R]:
    """Check the fields of a dataclass by their annotations whenever one is made; it checks their range itself."""
    cls.__init__ = _watched(cls.__init__, {})  # type: ignore[method-assign]
    return cls


def _watched(function: Callable[P, R], known: Mapping[str, Rule]) -> Callable[P, R]:
    signature = inspect.signature(function)
    parameters = signature.parameters
    rules = {name: known.get(name) or partial(_annotated, p.annotation) for name, p in parameters.items() if _is_one(p)}

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            # Python's own message names the function
            return function(*args, **kwargs)
        for name, rule in rules.items():
            if name in given and given[name] is not parameters[name].default:
                rule(name, given[name])
                if given[name] is None:
                    # a rule lets it pass for all functions, where some know what it stands for
                    check_annotated(name, None, parameters[name].annotation)
        return function(*args, **kwargs)

    return call


def _annotated(annotation: Any, name: str, value: Any) -> None:
    check_annotated(name, value, annotation)


def _is_one(parameter: inspect.Parameter) -> bool:
    return parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)


def check_key_added(key: Any) -> None:
    """Refuse a key that storage formats cannot keep, or that the package uses itself; ``None`` stands for the default key.

    The rule is that of SpatialData, whose elements, columns and keys are folders in a zarr store.

    Raises
    ------
    TypeError
        If it is not text.
    ValueError
        If it is empty, longer than 200 bytes, holds other characters than letters, digits, "_", "-" and ".", or is the key of the
        provenance in ``.uns``.
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
    _check_tile_px(tile_px)


def _check_tile_px(value: Any) -> None:
    if value is not None:
        whole = int(value) if isinstance(value, float) and value.is_integer() else value
        check_whole("tile_px", whole, most=_LONGEST_TILE_PX)


def _optional(rule: Rule) -> Rule:
    def check(name: str, value: Any) -> None:
        if value is not None:
            rule(name, value)

    return check


def _one_size(name: str, value: Any) -> None:
    positive(name, value)


def _sizes(name: str, value: Any) -> None:
    """One size or several."""
    several = None if isinstance(value, str) else iterated(value)
    for one in [value] if several is None else several:
        positive(name, one)


def _own_words(name: str, value: Any) -> None:
    """Nothing: the function checks it."""


_whole = _optional(check_whole)
_path = _optional(check_path)
_repeats = _optional(partial(check_whole, most=_MOST_REPEATS))
_text = _optional(check_text)
_size = _optional(_one_size)

RULES: dict[str, Rule] = {
    "batch_size": lambda _, value: check_batch_size(value),
    "device": lambda _, value: check_device(value),
    "key_added": lambda _, value: check_key_added(value),
    "random_state": check_seed,
    # numbers of things
    "k": _whole,
    "n": check_whole,
    "n_shots": _whole,
    "n_top_genes": _whole,
    "n_pcs": _whole,
    "n_latent": check_whole,
    "n_neighbors": check_whole,
    "n_top": check_whole,
    "n_genes": check_whole,
    "n_columns": check_whole,
    "max_rows": check_whole,
    "max_epochs": _whole,
    "min_genes": check_whole,
    "min_rows": partial(check_whole, least=0),
    "min_spots": partial(check_whole, least=0),
    "n_domains": _optional(partial(check_whole, least=2)),
    # how often something is done: a number that is a thousand times too large would run for days
    "n_bins": _repeats,
    "n_init": _repeats,
    "n_seeds": _repeats,
    # sizes and limits
    "tile_px": lambda _, value: _check_tile_px(value),
    "tile_um": _optional(_sizes),
    "stride_um": _size,
    "diameter_um": _size,
    "alpha": partial(check_number, least=0, most=1),
    "min_tissue": partial(check_number, least=0, most=1),
    "ridge": _optional(partial(check_number, least=0)),
    "threshold": check_number,
    "cmap": check_colour_map,
    # names
    "batch_key": _text,
    "embedding_key": _text,
    "gene_ids_key": _text,
    "group_key": _text,
    "labels_key": _text,
    "layer": _text,
    "modality": _text,
    "patient_key": _text,
    "scalar_key": _text,
    "section": _text,
    "section_key": _text,
    "shapes_key": _text,
    "table_key": _text,
    "value_space": _text,
    "embedding": check_texts,
    "embeddings": check_texts,
    "ignore": check_texts,
    "key": check_texts,
    "use": check_texts,
    "genes": _optional(check_texts),
    "classes": _optional(check_texts),
    "sections": _optional(check_texts),
    # the functions say in words of their own what these may be
    **dict.fromkeys(("labels", "model", "text", "texts"), _own_words),
    # files
    "data_dir": _path,
    "folder": _path,
    "path": check_path,
    # switches
    "inplace": check_flag,
    "with_image": check_flag,
    "confidence": check_flag,
    "per_gene": check_flag,
    "per_group": check_flag,
    "baselines": check_flag,
    "allow_overlap": check_flag,
    "per_section": check_flag,
    "intervals": check_flag,
}
