"""Joins H&E images, gene expression and text in one space.

``import spatialwhisperer as sw`` loads nothing heavy: each namespace is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spatialwhisperer import benchmarks, datasets, models, pl, pp, tl
    from spatialwhisperer.settings import settings

__version__ = version("spatialwhisperer")
__all__ = ["benchmarks", "datasets", "models", "pl", "pp", "settings", "tl"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'spatialwhisperer' has no attribute {name!r}; it has {', '.join(__all__)}.")
    module = import_module(f"spatialwhisperer.{name}")
    value = module.settings if name == "settings" else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
