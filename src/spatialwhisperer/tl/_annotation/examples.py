"""Examples: a few labelled rows that move the embedding of a label towards the rows it is meant for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialwhisperer._access.columns import column
from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

HALF = 10
"""Number of examples that weigh as much as the words of the label: a few examples count, and a single wrong one does little."""


def example_rows(table: AnnData, examples: Any, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Rows of the examples of each label, as positions.

    Parameters
    ----------
    table
        The rows.
    examples
        Column of ``.obs`` with labels (missing: no example), or a mapping from label to names or positions of rows.
    classes
        The labels.

    Raises
    ------
    KeyError
        If the column, or a row that is named, does not exist.
    ValueError
        If a label is not among the labels, a position is out of range, a row is an example of two labels, or there is none.
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
    at = table.obs_names.get_indexer(rows.astype(str))
    if (at < 0).any():
        raise KeyError(f"examples of {label!r} name rows that are not in .obs_names: {listing(rows[at < 0], 4)}.")
    return at


def refine(
    text: np.ndarray,
    z: np.ndarray,
    rows: Mapping[str, np.ndarray],
    classes: Sequence[str],
    sections: np.ndarray,
) -> np.ndarray:
    """Move the embedding of each label towards the examples of it.

    The mean of each section is subtracted from its rows. From the mean of the examples of a label the average of these means over
    all labels is subtracted (a label without examples has the mean 0). The result, scaled to unit length, is mixed with the
    embedding of the words, ``(1 - w) text + w mean`` with ``w = n / (n + 10)`` for n examples, and scaled back to unit length.

    Parameters
    ----------
    text
        Unit embeddings of the labels, shape (c, u).
    z
        Unit embeddings of the rows, shape (n, u); rows with NaN are left out.
    rows
        Rows of the examples by label.
    classes
        The labels.
    sections
        Section of each row.

    Raises
    ------
    ValueError
        If no example has an embedding.
    """
    whole = np.isfinite(z).all(axis=1)
    centred = z.astype(np.float64)
    for section in pd.unique(sections):
        here = sections == section
        centred[here] -= centred[here & whole].mean(axis=0) if (here & whole).any() else 0
    usable = {name: r[whole[r]] for name, r in rows.items()}
    n = np.array([len(usable.get(name, ())) for name in classes])
    if not n.any():
        raise ValueError("No example has an embedding: the tiles of all of them leave the slide. Choose other rows.")
    means = np.zeros((len(classes), text.shape[1]))
    for i, name in enumerate(classes):
        if n[i]:
            means[i] = centred[usable[name]].mean(axis=0)
    contrast = _unit(means - means.mean(axis=0))
    weight = (n / (n + HALF))[:, None]
    return np.where(n[:, None] > 0, _unit((1 - weight) * text + weight * contrast), text).astype(np.float32)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True).clip(min=1e-12)
