"""Writing results to a table: all of them, or none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.elements.colours import stored_colours
from spatialwhisperer._access.records import TilesRecord
from spatialwhisperer._access.table.placing import check_kept, check_others_kept, without_others
from spatialwhisperer._frozen import frozen
from spatialwhisperer._provenance import entry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData


_PARTS = ("obs", "obsm", "uns")


@dataclass(frozen=True)
class Result:
    """What one call writes.

    Attributes
    ----------
    key
        Name of the result, under which its provenance is stored.
    parameters
        The provenance: plain values, or a record.
    obs, obsm, uns
        Values by name. Where the categories of a column of ``.obs`` change, its colours are removed.
    colours
        Of a column of ``.obs``, the colour of each of its categories; colours that fit already are kept.
    of
        Key of the labels that it is a part of, if it is.
    gone
        Names in ``.obs``, ``.obsm`` or ``.uns`` to remove, which an earlier result of this key may have written.
    """

    key: str
    parameters: Any
    obs: Mapping[str, Any] = field(default_factory=frozen)
    obsm: Mapping[str, Any] = field(default_factory=frozen)
    uns: Mapping[str, Any] = field(default_factory=frozen)
    gone: tuple[str, ...] = ()
    colours: Mapping[str, Mapping[str, str]] = field(default_factory=frozen)
    of: str | None = None


def write_results(table: AnnData, results: tuple[Result, ...], *, library_key: str | None = None) -> None:
    """Write results to a table. After an error the table is unchanged, including the order of its columns.

    Parameters
    ----------
    table
        Changed in place.
    results
        What is written.
    library_key
        Column with the libraries, as the caller passed it.

    Raises
    ------
    ValueError
        If a result would replace what places the rows (a column, or the record of the tiles), a column of the caller, or a result of
        another name.
    """
    for result in results:
        check_others_kept(table, result.key, [*result.obs, *result.obsm], result.of)
        gone = without_others(table, result.key, result.gone)
        check_kept(table, result.key, [*result.obs, *gone], library_key, of=result.of)
        if result.key == _keys.TILES and not isinstance(result.parameters, TilesRecord):
            raise ValueError(
                f"key_added={result.key!r} would replace the tiles that sw.pp.tiles stores under that key. Pass another name."
            )
    before = {part: dict(getattr(table, part)) for part in _PARTS}
    try:
        for result in results:
            _write(table, result)
    except BaseException:
        for part, values in before.items():
            _restore(getattr(table, part), values)
        raise


def _restore(part: Any, values: Mapping[str, Any]) -> None:
    """Put ``.obs``, ``.obsm`` or ``.uns`` back to former values, in their order."""
    for name in list(part):
        del part[name]
    for name, value in values.items():
        part[name] = value


def _write(table: AnnData, result: Result) -> None:
    for name, values in result.obs.items():
        colours = f"{name}_colors"
        if isinstance(values, pd.Categorical) and colours in table.uns and not _same_categories(table, name, values):
            # colours are assigned by position and would go to other labels
            del table.uns[colours]
        table.obs[name] = values
        if name in result.colours and len(stored_colours(table, name)) != len(values.categories):
            table.uns[colours] = [result.colours[name][category] for category in values.categories]
    for name, values in result.obsm.items():
        table.obsm[name] = values
    for name, values in result.uns.items():
        table.uns[name] = values
    for name in without_others(table, result.key, result.gone):
        for part in (getattr(table, place) for place in _PARTS):
            if name in part:
                del part[name]
    table.uns[_keys.UNS] = {**table.uns.get(_keys.UNS, {}), result.key: entry(result.parameters)}


def _same_categories(table: AnnData, name: str, values: pd.Categorical) -> bool:
    former = table.obs[name] if name in table.obs else None
    return former is not None and hasattr(former, "cat") and list(former.cat.categories) == list(values.categories)
