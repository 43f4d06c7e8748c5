"""Rows of a table by their names: what a caller passes in another order is brought into that of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from anndata import AnnData


def order_of(index: pd.Index, table: AnnData, what: str, name: str, *, fill: str = "NaN") -> np.ndarray:
    """Where the rows of a table are in a Series or DataFrame: by their names, or as they are where they have none (0, 1, 2, …).

    Parameters
    ----------
    index
        Of the Series or DataFrame.
    table
        The table.
    what, name
        What it is, and the name of its variable, for the message.
    fill
        Value of rows that it does not name, for the message: one that leaves them out.

    Returns
    -------
    Positions, shape (n,).

    Raises
    ------
    ValueError
        If its rows are not those of the table.
    """
    n = table.n_obs
    names = index.map(str)
    if len(index) != n:
        raise ValueError(
            f"{what} has {len(index)} rows, the table {n} (such as {listing(names[:2])}, and {listing(table.obs_names[:2])}). "
            f"{_how_to_order(index, table, name, fill)}"
        )
    if index.equals(pd.RangeIndex(n)) or index.equals(table.obs_names):
        return np.arange(n)
    where = names.get_indexer(table.obs_names) if names.is_unique else np.full(n, -1)
    if (where < 0).any() or not table.obs_names.is_unique:
        raise ValueError(
            f"The rows of {what[0].lower()}{what[1:]} ({listing(names, 3)}) are not those of the table ({listing(table.obs_names, 3)}). "
            f"{_how_to_order(index, table, name, fill)} If they have its order, drop their names: {name}.reset_index(drop=True)."
        )
    return np.asarray(where)


def _how_to_order(index: pd.Index, table: AnnData, name: str, fill: str) -> str:
    """The call that brings a Series or DataFrame to the rows of a table, by which of them holds the names of the other."""
    names, own = index.map(str), table.obs_names
    for repeated, where in ((names[names.duplicated()], name), (own[own.duplicated()], "adata")):
        if len(repeated):
            return f"Names repeat in {where} ({listing(repeated.unique(), 3)}), so that rows cannot be found by them: name each row once."
    if not own.isin(names).any():
        return "No row has the name of one of the table. Name them as in .obs_names."
    # .obs_names are text
    named = name if index.equals(names) else f"{name}.rename(index=str)"
    if own.isin(names).all():
        return f"Bring it to the same rows: {named}.loc[adata.obs_names]."
    filled = "" if fill == "NaN" else f", fill_value={fill}"
    return (
        f"Bring it to the same rows, with {fill} in the {int((~own.isin(names)).sum())} that it does not name: "
        f"{named}.reindex(adata.obs_names{filled})."
    )


def places_of(names: pd.Index, table: AnnData, what: str) -> np.ndarray:
    """Where rows that are named are in a table, shape (len(names),).

    Parameters
    ----------
    names
        The names, as text.
    table
        The table. Other names may repeat in it.
    what
        What names the rows, for the message.

    Raises
    ------
    KeyError
        If a name is not there.
    ValueError
        If several rows have a name that is asked for.
    """
    own = table.obs_names
    first = np.flatnonzero(~own.duplicated())
    at = own[first].get_indexer(names)
    if (at < 0).any():
        raise KeyError(f"{what} name rows that are not in .obs_names: {listing(names[at < 0], 4)}.")
    repeated = own[own.duplicated()]
    several = names[names.isin(repeated)].unique()
    if len(several):
        raise ValueError(
            f"{what} name {several[0]!r}, which {int((own == several[0]).sum())} rows of the table are named. Pass positions of rows, or run "
            "adata.obs_names_make_unique() first."
        )
    return np.asarray(first[at])


def check_same_rows(prediction: AnnData, table: AnnData) -> None:
    """Refuse a prediction whose rows are not those of the table, in its order.

    Raises
    ------
    ValueError
        If they are not. The message names the call that brings both to the same rows.
    """
    if prediction.n_obs != table.n_obs:
        raise ValueError(
            f"The prediction has {prediction.n_obs} rows, the table {table.n_obs}. {_how_to_match(prediction, table)}"
        )
    differ = np.flatnonzero(np.asarray(prediction.obs_names != table.obs_names))
    if len(differ):
        i = int(differ[0])
        raise ValueError(
            f"The rows of prediction and table differ in {len(differ)} names, first at row {i}: "
            f"{prediction.obs_names[i]!r} against {table.obs_names[i]!r}. {_how_to_match(prediction, table)}"
        )


def _how_to_match(prediction: AnnData, table: AnnData) -> str:
    """The call that brings both to the same rows, by which of them holds the names of the other."""
    known, asked = prediction.obs_names, table.obs_names
    if asked.isin(known).all() and known.is_unique:
        return (
            "Pass that of these rows, in their order: prediction=prediction[adata.obs_names].copy(), or predict again."
        )
    if known.isin(asked).all() and known.is_unique and asked.is_unique:
        return "Pass the rows that were predicted: adata[prediction.obs_names].copy()."
    if asked.isin(known).all():
        return "Names repeat, so that rows cannot be matched by them: predict again, sw.tl.predict_expression(…)."
    return "Their names differ too, so that one of them is of other rows: predict again, sw.tl.predict_expression(…)."
