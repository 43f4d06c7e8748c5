"""What a value is, whose code it is, and where its content lies."""

from __future__ import annotations

import copyreg
import functools
import sys
from pathlib import Path
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

_LIBRARIES = {"spatialwhisperer", "timm", "torch", "torchvision", "transformers"} | sys.stdlib_module_names
"""Packages whose code is not looked at: it is not edited in a notebook, and a new version of it is not a new encoder."""


def as_written(value: Any) -> Any:
    """A module or function without wrappers that compute the same, such as that of ``torch.compile`` or ``functools.cache``."""
    inner = value
    if type(value).__module__.startswith("torch._dynamo") and "_orig_mod" in getattr(value, "_modules", ()):
        inner = value._modules["_orig_mod"]
    elif isinstance(value, staticmethod | classmethod):
        inner = value.__func__
    elif isinstance(value, functools._lru_cache_wrapper):
        inner = value.__wrapped__
    elif isinstance(value, FunctionType):
        inner = vars(value).get("_torchdynamo_orig_callable", value)
    return value if inner is value else as_written(inner)


def codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield from codes(value)


def is_plain(value: Any) -> bool:
    """Whether the text of a value is its content."""
    if isinstance(value, tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic)


def is_library(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _LIBRARIES


def is_own(module: str | None) -> bool:
    """Whether code is of the caller's: a script, a notebook, or a package that is not installed."""
    if module in (None, "__main__") or is_library(module):
        return not is_library(module)
    file = getattr(sys.modules.get(str(module)), "__file__", None)
    return file is None or not {"site-packages", "dist-packages"} & set(Path(file).parts)


def in_library(value: Any, name: str) -> bool:
    """Whether a value, for which a pickle has its name alone, is of a module that is not the caller's."""
    stated = getattr(value, "__module__", None)
    # a compiled function states its own module, other values at most that of their class
    if isinstance(stated, str) and stated != type(value).__module__:
        return not is_own(stated)
    first, *rest = name.split(".")
    for module, content in list(sys.modules.items()):
        found = getattr(content, "__dict__", {}).get(first)
        for part in rest:
            found = getattr(found, part, None)
        if found is value and not is_own(module):
            return True
    return False


def attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """Attributes of an object, those of ``__slots__`` too."""
    yield from getattr(value, "__dict__", {}).items()
    for name in _slots(type(value)):
        if hasattr(value, name):
            yield name, getattr(value, name)


def _slots(kind: type) -> list[str]:
    return copyreg._slotnames(kind)  # type: ignore[attr-defined]


def holds_more(kind: type) -> bool:
    """Whether values of a class hold more than attributes, in C; :func:`copy.copy` tells it by their size too."""
    pointer = np.dtype(np.intp).itemsize
    known = len(_slots(kind)) + (kind.__dictoffset__ > 0) + (kind.__weakrefoffset__ > 0)
    return kind.__itemsize__ > 0 or kind.__basicsize__ > object.__basicsize__ + pointer * known


def pickles_itself(kind: type) -> bool:
    methods = ("__reduce__", "__reduce_ex__", "__getstate__")
    return any(getattr(kind, name, None) is not getattr(object, name, None) for name in methods)


def empty(cell: Any) -> bool:
    """Whether a variable of a closure has no value yet."""
    try:
        _ = cell.cell_contents
    except ValueError:
        return True
    return False
