"""Namespaces whose names are imported when they are first used, and that show these names alone."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def lazy_namespace(
    package: str, places: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Make ``__getattr__``, ``__dir__`` and ``__all__`` of a package.

    Parameters
    ----------
    package
        Its full name.
    places
        Public name to the module that defines it, relative to the outermost package.
    """
    names = sorted(places)
    top = package.partition(".")[0]

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {', '.join(names)}.")
        value = getattr(import_module(f"{top}.{places[name]}"), name)
        # a submodule of the same name, which the import has just bound here, gives way
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: names, names
