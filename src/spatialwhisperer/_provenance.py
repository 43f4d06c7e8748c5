"""How a result was computed: stored beside it, in a form that every storage format keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar

from spatialwhisperer import _keys
from spatialwhisperer._storage.schema import from_plain, to_plain

if TYPE_CHECKING:
    from anndata import AnnData

R = TypeVar("R")


def entry(parameters: Any) -> dict[str, str]:
    """What is stored for a result: the version of the package, and its parameters as one JSON string."""
    plain = json.dumps(to_plain(parameters), default=str, ensure_ascii=False)
    return {"version": version("spatialwhisperer"), "parameters": plain}


def record(table: AnnData, key: str, parameters: Any) -> None:
    """Store the provenance of a result of a table that is not yet part of an object."""
    table.uns[_keys.UNS] = {**table.uns.get(_keys.UNS, {}), key: entry(parameters)}


def provenance_of(table: AnnData) -> Mapping[str, Any]:
    """What is stored of the provenance of results, by their keys.

    Raises
    ------
    ValueError
        If it is not a dictionary.
    """
    every = table.uns.get(_keys.UNS, {})
    if not isinstance(every, Mapping):
        raise ValueError(
            f".uns[{_keys.UNS!r}] must be a dictionary with the provenance of results, not {type(every).__name__}. Delete it: "
            f"del adata.uns[{_keys.UNS!r}]."
        )
    return every


def recorded(table: AnnData, key: str | None) -> dict[str, Any] | None:
    """Parameters of the result that is stored under a key, or ``None``."""
    stored = provenance_of(table).get(key or "")
    # anndata.concat keeps what the entries of both objects have in common, which may be the version alone
    if not isinstance(stored, Mapping) or "parameters" not in stored:
        return None
    try:
        plain = json.loads(str(stored["parameters"]))
    except (ValueError, RecursionError):
        plain = None
    # a record that was changed by hand says nothing
    return plain if isinstance(plain, dict) else None


def lost_record(table: AnnData, key: str) -> bool:
    """Whether the package wrote a result whose parameters are gone: anndata.concat keeps what the entries of all objects agree on."""
    stored = provenance_of(table).get(key)
    return isinstance(stored, Mapping) and "version" in stored and "parameters" not in stored


def recorded_as(table: AnnData, key: str | None, kind: type[R]) -> R | None:
    """The record of that kind that is stored under a key; ``None`` where there is none that this version reads."""
    plain = recorded(table, key)
    if plain is None:
        return None
    try:
        return from_plain(kind, plain, "a record")
    except ValueError:
        return None
