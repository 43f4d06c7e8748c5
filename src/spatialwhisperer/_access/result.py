"""Writing results: all keys of a result, or none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._frozen import frozen
from spatialwhisperer._provenance import entry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData


@dataclass(frozen=True)
class Result:
    """What one call writes.

    Attributes
    ----------
    key
        Name of the result; its provenance is stored under it.
    parameters
        Its provenance: plain values, or a record.
    obs, obsm, uns
        Values by name. A categorical column of ``.obs`` takes the colours of other categories away.
    gone
        Names that an earlier result of this key may have left in ``.obs``, ``.obsm`` or ``.uns``, and that this one has not.
    """

    key: str
    parameters: Any
    obs: Mapping[str, Any] = field(default_factory=frozen)
    obsm: Mapping[str, Any] = field(default_factory=frozen)
    uns: Mapping[str, Any] = field(default_factory=frozen)
    gone: tuple[str, ...] = ()


def write_results(table: AnnData, results: tuple[Result, ...]) -> None:
    """Write results to a table; after an error the table is as it was."""
    before = {name: dict(getattr(table, name)) for name in ("obsm", "uns")}
    columns = {name: table.obs[name] for name in table.obs}
    try:
        for result in results:
            _write(table, result)
    except BaseException:
        for name in list(table.obs):
            if name not in columns:
                del table.obs[name]
        for name, values in columns.items():
            table.obs[name] = values
        for part, values in before.items():
            current = getattr(table, part)
            for name in list(current):
                if name not in values:
                    del current[name]
            for name, value in values.items():
                current[name] = value
        raise


def _write(table: AnnData, result: Result) -> None:
    for name, values in result.obs.items():
        colours = f"{name}_colors"
        if isinstance(values, pd.Categorical) and colours in table.uns and not _same_categories(table, name, values):
            # colours go by position and would belong to other labels
            del table.uns[colours]
        table.obs[name] = values
    for name, values in result.obsm.items():
        table.obsm[name] = values
    for name, values in result.uns.items():
        table.uns[name] = values
    for name in result.gone:
        for part in (table.obs, table.obsm, table.uns):
            if name in part:
                del part[name]
    table.uns[_keys.UNS] = {**table.uns.get(_keys.UNS, {}), result.key: entry(result.parameters)}


def _same_categories(table: AnnData, name: str, values: pd.Categorical) -> bool:
    former = table.obs[name] if name in table.obs else None
    return former is not None and hasattr(former, "cat") and list(former.cat.categories) == list(values.categories)
