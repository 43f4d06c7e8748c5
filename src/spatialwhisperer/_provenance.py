"""Where a result comes from: stored beside it, in a form that every storage format keeps."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from spatialwhisperer import _keys

if TYPE_CHECKING:
    from anndata import AnnData


def record(adata: AnnData, key: str, **parameters: Any) -> None:
    """Store the provenance of a result: the version and one JSON string, which every storage format keeps."""
    uns = dict(adata.uns.get(_keys.UNS, {}))
    uns[key] = {"version": version("spatialwhisperer"), "parameters": json.dumps(parameters, default=_plain)}
    adata.uns[_keys.UNS] = uns


def recorded(adata: AnnData, key: str) -> dict[str, Any] | None:
    """Read back the parameters that `record` stored, or ``None``."""
    entry = adata.uns.get(_keys.UNS, {}).get(key)
    # joining objects keeps of an entry what they share, which may be the version alone
    return json.loads(str(entry["parameters"])) if entry is not None and "parameters" in entry else None


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)
