"""The table of metadata of a folder: one row for each section, with its patient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from spatialwhisperer._messages import listing
from spatialwhisperer._storage.untrusted import opening

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NOT_STATED = "not stated"
"""Patient of the sections that name none. They count as one patient, so that no two of them are on both sides of a split."""

_KINDS = (".csv", ".tsv", ".csv.gz", ".tsv.gz")


def read_metadata(folder: Path, name: str | None, *, id_key: str = "id", patient_key: str = "patient") -> pd.DataFrame:
    """Metadata by section: the only table of the folder with both columns, or the one that is named.

    Parameters
    ----------
    folder, name
        Folder, and name of the table in it; ``None`` looks for it.
    id_key, patient_key
        Columns with the name of a section and its patient.

    Raises
    ------
    FileNotFoundError
        If there is no such table, or there are several.
    ValueError
        If a section is named twice or not at all.
    """
    paths = [folder / name] if name else sorted(p for p in folder.glob("*") if p.name.endswith(_KINDS))
    tables: dict[str, pd.DataFrame] = {}
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"There is no table of metadata {path}.")
        with opening(f"The table {path}"):
            sep = "\t" if ".tsv" in path.name else ","
            table = pd.read_csv(path, sep=sep, dtype={id_key: str, patient_key: str})
        if {id_key, patient_key} <= set(table.columns):
            tables[path.name] = table
    if len(tables) != 1:
        raise FileNotFoundError(
            f"{folder} must hold one table of metadata, a .csv with the columns {id_key} and {patient_key}; found {listing(tables)} among "
            f"{listing(p.name for p in paths)}. That of HEST-1k is HEST_v1_1_0.csv or a later one; metadata=… (--metadata) names one of several."
        )
    (table,) = tables.values()
    table[id_key] = table[id_key].str.strip()
    repeated = table[id_key][table[id_key].duplicated()].unique()
    if len(repeated) or table[id_key].isna().any():
        raise ValueError(f"The metadata must name each section once; {listing(repeated) or 'a row without id'} is not.")
    return table.set_index(id_key)


def patients_of(metadata: pd.DataFrame, patient_key: str = "patient") -> dict[str, str]:
    """Patient of each section; sections of one data set that name none count as one patient.

    A name that several data sets (``dataset_title``) give is followed by that of the data set: "Patient 1" of two studies is two people.
    """
    names = [_text(value) for value in metadata[patient_key]]
    titles = [_text(value) for value in metadata.get("dataset_title", [None] * len(metadata))]
    given: dict[str, set[str]] = {}
    for name, title in zip(names, titles, strict=True):
        given.setdefault(name, set()).add(title)
    return {
        str(section): f"{name or NOT_STATED} ({title})"
        if title and (not name or len(given[name]) > 1)
        else name or NOT_STATED
        for section, name, title in zip(metadata.index, names, titles, strict=True)
    }


def _text(value: Any) -> str:
    return "" if pd.isna(value) else str(value).strip()


def sections_of(metadata: pd.DataFrame, there: Mapping[str, Path], query: str | None, folder: Path) -> list[str]:
    """Names of the sections that fit a query and have a file.

    Parameters
    ----------
    metadata, there
        One row for each section, and the file of each.
    query
        A query of pandas over the metadata.
    folder
        Where the files are, for an error.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If a file has no row, or the query cannot be read or fits no row.
    """
    if unknown := [name for name in there if name not in metadata.index]:
        raise ValueError(
            f"The metadata have no row for {listing(unknown)} of {folder}: their patient is not known. Add the rows, or move the files "
            "away."
        )
    chosen = [str(name) for name in queried(metadata, query).index if name in there]
    if not chosen:
        raise FileNotFoundError(f"{folder} holds no section that was asked for; found {listing(there)}.")
    return chosen


def queried(metadata: pd.DataFrame, query: str | None) -> pd.DataFrame:
    """Rows of the metadata that fit a query of pandas.

    Raises
    ------
    ValueError
        If the query cannot be read, or no row fits.
    """
    if query is None:
        return metadata
    try:
        found = metadata.query(query)
    except Exception as error:
        raise ValueError(
            f"query={query!r} cannot be read ({type(error).__name__}: {error}). Columns: {listing(metadata.columns, 40)}. Example: "
            "\"organ == 'Breast' and species == 'Homo sapiens'\"."
        ) from error
    if not isinstance(found, pd.DataFrame) or not len(found):
        raise ValueError(f"No section fits query={query!r}. Columns: {listing(metadata.columns, 40)}.")
    return found
