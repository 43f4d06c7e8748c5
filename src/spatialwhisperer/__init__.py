"""Joins H&E images, gene expression and text in one space.

``import spatialwhisperer as sw`` loads nothing heavy: each namespace is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from spatialwhisperer.settings import settings

if TYPE_CHECKING:
    from spatialwhisperer import datasets, models, pl, pp, tl
    from spatialwhisperer import protocols as benchmarks

__version__ = version("spatialwhisperer")
__all__ = ["datasets", "models", "pl", "pp", "settings", "tl"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'spatialwhisperer' has no attribute {name!r}; it has {', '.join(__all__)}.")
    # importing a submodule also binds it here, so this runs once per name
    return import_module(f"spatialwhisperer.{name}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
