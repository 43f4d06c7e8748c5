"""Namespaces whose names are imported when they are first used, and that list only these names."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Name:
    """One public name of a namespace.

    Python looks up a data descriptor of a class before the attributes of the instance. So a submodule of the same name, which its
    import binds to the package, does not hide the function.
    """

    def __init__(self, name: str, place: str) -> None:
        self.name, self.place = name, place
        self.value: Any = None

    def __get__(self, module: Any, _kind: Any) -> Any:
        if self.value is None:
            self.value = getattr(import_module(self.place), self.name)
        return self.value

    def __set__(self, module: Any, value: Any) -> None:
        if not isinstance(value, ModuleType):
            self.value = value


def lazy_namespace(package: str, places: Mapping[str, str]) -> list[str]:
    """Give a package its public names; returns them for ``__all__``.

    Parameters
    ----------
    package
        Its full name.
    places
        Module that defines each name, relative to the outermost package.
    """
    names = sorted(places)
    top = package.partition(".")[0]

    def unknown(_module: Any, name: str) -> Any:
        raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {', '.join(names)}.")

    members = {name: _Name(name, f"{top}.{place}") for name, place in places.items()}
    kind = type("Namespace", (ModuleType,), {**members, "__dir__": lambda _: names, "__getattr__": unknown})
    sys.modules[package].__class__ = kind
    return names
