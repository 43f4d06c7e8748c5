"""Examples: a few labelled rows that say, beside the words, which rows a label is meant for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from spatialwhisperer._access.columns import column
from spatialwhisperer._access.table.row_names import order_of, places_of
from spatialwhisperer._messages import listing
from spatialwhisperer.statistics.labels.few_shot import fit_few_shot, standardized

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


def example_rows(table: AnnData, examples: Any, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Rows of the examples of each label, as positions.

    Parameters
    ----------
    table
        The rows.
    examples
        Column of ``.obs`` with labels (missing: no example), or a mapping from label to names or positions of rows, or to a mask.
        A mask that is a Series is brought into the order of the rows by their names.
    classes
        The labels.

    Raises
    ------
    KeyError
        If the column, or a row that is named, does not exist.
    ValueError
        If a label is not among the labels, a position is out of range, a name that is asked for repeats, the rows of a mask are others, a
        row is an example of two labels, or there is none.
    TypeError
        If ``examples`` is neither.
    """
    if isinstance(examples, str):
        values = column(table, examples, "examples")
        given = {str(name): np.flatnonzero(values == name) for name in dict.fromkeys(values) if name is not None}
    elif isinstance(examples, Mapping):
        given = {str(name): _positions(table, rows, str(name)) for name, rows in examples.items()}
    else:
        raise TypeError(
            f"examples must be a column of .obs or a mapping from label to rows, not {type(examples).__name__}."
        )
    unknown = [name for name in given if name not in classes]
    if unknown:
        raise ValueError(f"examples holds {listing(unknown)}, which is not among the labels ({listing(classes)}).")
    out = {name: np.unique(rows) for name, rows in given.items() if len(rows)}
    if not out:
        raise ValueError("examples holds no example; leave it out to annotate by words alone.")
    rows, times = np.unique(np.concatenate(list(out.values())), return_counts=True)
    if (times > 1).any():
        twice = table.obs_names[rows[times > 1]]
        raise ValueError(f"examples names {listing(twice, 4)} for more than one label; a row is an example of one.")
    return out


def _positions(table: AnnData, rows: Any, label: str) -> np.ndarray:
    if isinstance(rows, pd.Series) and pd.api.types.is_bool_dtype(rows.dtype):
        # a missing value is no example
        mask = rows.to_numpy(dtype=bool, na_value=False)
        order = order_of(rows.index, table, f"The mask of {label!r} in examples", "mask", fill="False")
        return np.flatnonzero(mask[order])
    rows = np.atleast_1d(np.asarray(rows))
    if not rows.size:
        return np.zeros(0, np.int64)
    if rows.dtype == bool:
        if rows.shape != (table.n_obs,):
            raise ValueError(
                f"The mask of {label!r} in examples has {rows.shape} entries, the table {table.n_obs} rows."
            )
        return np.flatnonzero(rows)
    if np.issubdtype(rows.dtype, np.integer):
        off = rows[(rows < 0) | (rows >= table.n_obs)]
        if len(off):
            raise ValueError(
                f"examples of {label!r} hold row {listing(off, 4)}; the table has rows 0 to {table.n_obs - 1}."
            )
        return rows.astype(np.int64)
    return places_of(pd.Index(rows.astype(str)), table, f"examples of {label!r}")


class Refined(NamedTuple):
    """Scores that examples and words give together.

    Attributes
    ----------
    scores
        Logarithm of the probability, times the temperature; float32, shape (n, labels).
    words
        Weight of the standardised scores of the words.
    """

    scores: np.ndarray
    words: float


def check_enough(rows: Mapping[str, np.ndarray], whole: np.ndarray) -> dict[str, np.ndarray]:
    """The examples that have an embedding, by label.

    Parameters
    ----------
    rows
        Rows of the examples by label.
    whole
        Which rows have an embedding, Boolean, shape (n,).

    Raises
    ------
    ValueError
        If fewer than two labels have one.
    """
    usable = {name: own[whole[own]] for name, own in rows.items() if whole[own].any()}
    if not usable:
        raise ValueError("No example has an embedding: the tiles of all of them leave the slide. Choose other rows.")
    if len(usable) < 2:
        raise ValueError(
            f"Only {listing(usable)} has examples with an embedding; a row of it cannot be told from other rows by these alone. "
            "Add examples of a second label, or leave examples out."
        )
    return usable


def refine(
    scores: np.ndarray,
    z: np.ndarray,
    rows: Mapping[str, np.ndarray],
    classes: Sequence[str],
    *,
    sections: np.ndarray,
    temperature: float,
    empty: np.ndarray | None = None,
) -> Refined:
    """Scores of labels from their examples, with those of the words as a start.

    The labels that have examples are told apart by a logistic regression on the embeddings with an offset for each label
    (:func:`~spatialwhisperer.statistics.labels.few_shot.fit_few_shot`). The mean of each section is subtracted from its rows before.
    Words alone say how probable the labels without examples are, and all labels with examples together.

    Parameters
    ----------
    scores
        Of the words, shape (n, labels).
    z
        Embeddings of the rows, shape (n, u); rows with NaN are left out.
    rows
        Rows of the examples by label.
    classes
        The labels.
    sections
        Section of each row.
    temperature
        That turns the scores of the words into probabilities.
    empty
        Rows that show no tissue, and have no part in the means of their section, Boolean, shape (n,); ``None`` where that is not known.

    Raises
    ------
    ValueError
        If fewer than two labels have an example with an embedding.
    """
    from scipy.special import log_softmax, logsumexp

    whole = np.isfinite(z).all(axis=1) & np.isfinite(scores).all(axis=1)
    usable = check_enough(rows, whole)
    shown = np.array([name in usable for name in classes])
    x, prior = z.astype(np.float64), scores[:, shown].astype(np.float64)
    counted = whole if empty is None else whole & ~empty
    for section in pd.unique(sections):
        here = sections == section
        if (here & counted).any():
            x[here] -= x[here & counted].mean(axis=0)
            prior[here] = standardized(prior[here], counted[here])
    x /= max(float(np.sqrt((x[counted] ** 2).sum(axis=1).mean())), 1e-12)
    names = [name for name, own in zip(classes, shown, strict=True) if own]
    at = np.concatenate([usable[name] for name in names])
    fitted = fit_few_shot(x[at], prior[at], np.repeat(np.arange(len(names)), [len(usable[name]) for name in names]))
    log_p = log_softmax(scores.astype(np.float64) / temperature, axis=1)
    out = log_p.copy()
    together = logsumexp(log_p[:, shown], axis=1, keepdims=True)
    out[:, shown] = together + log_softmax(fitted.logits(x, prior), axis=1)
    out[~whole] = np.nan
    return Refined((temperature * out).astype(np.float32), fitted.words)
