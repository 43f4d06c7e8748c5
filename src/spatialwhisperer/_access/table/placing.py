"""What no result may replace: what places the rows of a table, what the package did not write, and the parts of other results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from spatialwhisperer import _keys
from spatialwhisperer._access.sections.libraries import LIBRARY_COLUMN, library_column
from spatialwhisperer._provenance import provenance_of

if TYPE_CHECKING:
    from anndata import AnnData


def placing_columns(table: AnnData, library_key: str | None = None) -> dict[str, str]:
    """Columns of ``.obs`` that place the rows, with what each of them names.

    Parameters
    ----------
    table
        The table.
    library_key
        Column with the libraries, as the caller passed it.
    """
    out = {}
    attrs = table.uns.get("spatialdata_attrs")
    if isinstance(attrs, Mapping):
        out[str(attrs.get("region_key"))] = "the element of a SpatialData that each row annotates"
        out[str(attrs.get("instance_key"))] = "the instance of its element that each row annotates"
    try:
        column = library_column(table, library_key)
    except (KeyError, ValueError):
        # what is missing or damaged places no row
        column = None
    # one library needs no column, until several are named in it
    named = [LIBRARY_COLUMN] if isinstance(table.uns.get("spatial"), Mapping) else []
    return dict.fromkeys([*named, *([column] if column else [])], "the library (section) of each row") | out


def check_kept(
    table: AnnData, key: str, names: Iterable[str], library_key: str | None = None, *, of: str | None = None
) -> None:
    """Refuse to write columns that place the rows, or that are there and were not written by the package.

    A column counts as its own where a result of that key is recorded, and where its name begins as those of the package do: the
    record is lost when tables are joined.

    Parameters
    ----------
    table
        The table.
    key
        Key of the result.
    names
        Columns of ``.obs`` that it would write.
    library_key
        See `placing_columns`.
    of
        See `check_others_kept`.

    Raises
    ------
    ValueError
        If one of them places the rows, or is not the package's own.
    """
    placing = placing_columns(table, library_key)
    recorded = key in provenance_of(table)
    for name in names:
        if name in placing:
            raise ValueError(
                f"{_writer(key, of)} would replace .obs[{name!r}], which names {placing[name]}. {_remedy(_keys.PREFIX + key, of)}."
            )
        if name in table.obs and not recorded and not name.startswith(_keys.PREFIX):
            raise ValueError(
                f"{_writer(key, of)} would replace .obs[{name!r}], which is not recorded as a result of this package. "
                f"{_remedy(_keys.PREFIX + key, of)}, or drop the column first: del adata.obs[{name!r}]."
            )


def check_others_kept(table: AnnData, key: str, names: Iterable[str], of: str | None = None) -> None:
    """Refuse to write or remove what belongs to a result of another name: itself, or what lies beside its labels.

    Parameters
    ----------
    table
        The table.
    key
        Key of the result.
    names
        Names in ``.obs`` and ``.obsm`` that it would write or remove.
    of
        Key of the labels that it is a part of.

    Raises
    ------
    ValueError
        If one of them belongs to another result.
    """
    others = [other for other in provenance_of(table) if other not in (key, of)]
    labels = [other for other in others if _keys.scores(other) in table.obsm]
    stored = {*table.obs, *table.obsm, *table.uns}
    parts = {part: other for other in labels for part in _keys.beside_labels(other) if part in stored}
    there = [other for other in others if other in table.obs or other in table.obsm]
    # the agreement of labels is a part of them that has a record of its own
    owners = parts | {other: other for other in there if other != _keys.agreement(key)}
    for name in names:
        if name in owners:
            whose = "is a result" if owners[name] == name else f"belongs to the result {owners[name]!r}"
            raise ValueError(
                f"{_writer(key, of)} would replace {name!r}, which {whose} of an earlier call. {_remedy(f'{key}_2', of)}."
            )


def _writer(key: str, of: str | None) -> str:
    """The argument that named the result; a part of labels takes its name from theirs."""
    return f"key_added={key!r}" if of is None else f"A part of the labels {of!r}"


def _remedy(name: str, of: str | None) -> str:
    if of is None:
        return f"Pass another name, such as key_added={name!r}"
    return "Annotate under another name (sw.tl.zero_shot_annotate(…, key_added=…))"


def without_others(table: AnnData, key: str, names: Iterable[str]) -> list[str]:
    """Those of the names beside the labels of a result that are no result of their own, and not the colours of one."""
    others = [other for other in provenance_of(table) if other not in (key, _keys.agreement(key))]
    kept = {*others, *(f"{other}_colors" for other in others)}
    return [name for name in names if name not in kept]
