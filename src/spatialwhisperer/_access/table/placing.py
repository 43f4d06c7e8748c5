"""What places the rows of a table, which no result may replace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from spatialwhisperer._access.sections.libraries import LIBRARY_COLUMN, library_column

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
    if isinstance(table.uns.get("spatial"), Mapping):
        try:
            column = library_column(table, library_key)
        except (KeyError, ValueError):
            # what is missing or damaged places no row
            column = None
        # one library needs no column, until several are named in it
        out |= dict.fromkeys({LIBRARY_COLUMN, column or LIBRARY_COLUMN}, "the library (section) of each row")
    return out


def check_kept(table: AnnData, key: str, names: Iterable[str], library_key: str | None = None) -> None:
    """Refuse to write columns that place the rows.

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

    Raises
    ------
    ValueError
        If one of them places the rows.
    """
    placing = placing_columns(table, library_key)
    for name in names:
        if name in placing:
            raise ValueError(
                f"key_added={key!r} would replace .obs[{name!r}], which names {placing[name]}. Pass another name, such as "
                f"key_added={f'sw_{key}'!r}."
            )
