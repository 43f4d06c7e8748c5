"""Joins H&E images, gene expression and text in one space.

``import spatialwhisperer as sw`` loads nothing heavy: each namespace is imported when it is first used.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import typing

if typing.TYPE_CHECKING:
    from spatialwhisperer import datasets, io, models, pl, pp, tl
    from spatialwhisperer._settings import settings

__version__ = importlib.metadata.version("spatialwhisperer")
__all__ = ["datasets", "io", "models", "pl", "pp", "settings", "tl"]


def __getattr__(name: str) -> typing.Any:
    if name not in __all__:
        raise AttributeError(f"module 'spatialwhisperer' has no attribute {name!r}; it has {', '.join(__all__)}.")
    if name == "settings":
        # read only now: the command line says in one line what is wrong in the environment
        return importlib.import_module("spatialwhisperer._settings").settings
    # importing a submodule also binds it here, so this runs once per name
    return importlib.import_module(f"spatialwhisperer.{name}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
