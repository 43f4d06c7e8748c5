"""The ground truth of rows, which labels are correct for them, and whether the best label is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp

from spatialwhisperer._access.table.groups import by_group, group_name, group_names
from spatialwhisperer._access.table.row_names import order_of
from spatialwhisperer._checks.texts import reads_missing
from spatialwhisperer._checks.values import check_texts
from spatialwhisperer._messages import listing, warn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anndata import AnnData


_ROUNDING = 1e-6
"""A proportion may fall below 0 by so much where it was calculated, such as the rest of a sum in single precision."""


class Known(NamedTuple):
    """The ground truth of the rows of a table.

    Attributes
    ----------
    proportions
        Proportion or count of each class, one column per class, in the precision in which it was given; NaN where it is unknown.
    stated
        Whether the values are 0 and 1 and say directly whether a class is present.
    dominant
        True class of each row: the one whose value is the largest, and above 0. ``None`` where a value is unknown, no class is above 0,
        or several have the largest value, such as two that are stated to be present.
    """

    proportions: pd.DataFrame
    stated: bool
    dominant: np.ndarray


def known_truth(table: AnnData, truth: Any) -> Known:
    """Read the ground truth from a column of ``.obs``, a key of ``.obsm``, or a DataFrame.

    Raises
    ------
    KeyError
        If the name is in neither, or an array has no class names.
    TypeError, ValueError
        If it is something else, its rows are not those of the table, or its columns are not numbers of one class each, at least 0.
    """
    if isinstance(truth, str) and truth in table.obs:
        return _column_truth(table.obs[truth])
    if isinstance(truth, str):
        if truth not in table.obsm:
            raise KeyError(
                f"truth={truth!r} is neither in .obs (found: {listing(table.obs)}) nor in .obsm (found: {listing(table.obsm)})."
            )
        truth = _proportions(table, truth)
    if not isinstance(truth, pd.DataFrame):
        raise TypeError(f"truth must be a name or a DataFrame, not {type(truth).__name__}.")
    truth = truth.iloc[order_of(truth.index, table, "truth", "truth")]
    names = _class_names(truth)
    stated = all(_states_presence(truth.iloc[:, i]) for i in range(len(names)))
    values = {name: _numbers(truth.iloc[:, i], name) for i, name in enumerate(names)}
    return Known(pd.DataFrame(values), stated, _dominant(np.column_stack(list(values.values())), names))


def above(values: np.ndarray, threshold: float) -> np.ndarray:
    """Whether each value of a class exceeds the threshold; one that was stored as the threshold in single precision does not."""
    with np.errstate(over="ignore"):
        return values > values.dtype.type(threshold)


def truth_of_each(truth: Any, n: int) -> list[Any]:
    """The ground truth of each of several objects: the same name for all, or one of a list.

    Raises
    ------
    ValueError
        If the list has another length, or one DataFrame is given for several objects.
    """
    if isinstance(truth, list | tuple):
        if len(truth) != n:
            raise ValueError(f"truth lists {len(truth)} names or DataFrames for {n} objects; pass one for each object.")
        return list(truth)
    if isinstance(truth, pd.DataFrame) and n > 1:
        raise ValueError(
            f"truth is one DataFrame for {n} objects. Pass a list with that of each object, such as "
            "[truth.reindex(adata.obs_names) for adata in data]."
        )
    return [truth] * n


def label_sets(
    true: Iterable[str], labels: Sequence[str], mapping: Mapping[Any, str | Sequence[str]] | None
) -> dict[str, list[str]]:
    """Labels that are correct for each true class; classes without one are left out.

    Parameters
    ----------
    true
        True classes.
    labels
        Labels that rows were scored for.
    mapping
        From true class to label, or to several that it covers; ``None`` matches equal names. A class that is a whole number may be
        named by it.

    Raises
    ------
    TypeError
        If ``mapping`` is not a mapping.
    ValueError
        If ``mapping`` names none of the classes or one of them twice, or no class has a label.
    """
    true = list(true)
    mapping = {c: c for c in true} if mapping is None else mapping
    if not hasattr(mapping, "items"):
        raise TypeError(f"mapping must be a mapping from true class to label, not {type(mapping).__name__}.")
    for name, value in mapping.items():
        check_texts(f"mapping[{name!r}]", value)
    named = by_group("mapping", mapping, "class")
    wanted = {c: [v] if isinstance(v, str) else list(v) for c, v in named.items()}
    if wanted.keys().isdisjoint(true):
        raise ValueError(
            f"mapping is for {listing(wanted)}, and none of these is a true class (found: {listing(true)})."
        )
    sets = {c: [label for label in labels if label in wanted.get(c, ())] for c in true}
    sets = {c: own for c, own in sets.items() if own}
    if not sets:
        raise ValueError(
            f"None of the true classes ({listing(true)}) is among the labels ({listing(labels)}). Pass mapping={{true: label}}."
        )
    return sets


def correct_labels(dominant: np.ndarray, sets: Mapping[str, Sequence[str]], labels: Sequence[str]) -> np.ndarray:
    """Which labels are correct in each row, Boolean of shape (n, labels); none in rows of unknown or unmapped class."""
    out = np.zeros((len(dominant), len(labels)), bool)
    for name, own in sets.items():
        out[dominant == name] = np.isin(np.array(labels, object), own)
    return out


def indistinct(sets: Mapping[str, Sequence[str]], labels: Sequence[str]) -> np.ndarray:
    """Sets of labels that the ground truth cannot tell apart: Boolean of shape (labels, sets).

    The labels of a set are correct for the same true classes; a label that is correct for none is a set of its own.
    """
    patterns: dict[Any, list[int]] = {}
    for i, label in enumerate(labels):
        of = tuple(c for c, own in sets.items() if label in own)
        patterns.setdefault(of or i, []).append(i)
    out = np.zeros((len(labels), len(patterns)), bool)
    for part, members in enumerate(patterns.values()):
        out[members, part] = True
    return out


class Judged(NamedTuple):
    """The label of each row, compared with the ground truth.

    Attributes
    ----------
    confidence
        Its probability.
    summed
        Its probability together with those of the labels that the ground truth cannot tell apart from it.
    correct
        Whether the label is correct.
    """

    confidence: np.ndarray
    summed: np.ndarray
    correct: np.ndarray


def judged(
    probability: np.ndarray, correct: np.ndarray, together: np.ndarray, code: np.ndarray | None = None
) -> Judged:
    """Compare the label of each row with the ground truth.

    Parameters
    ----------
    probability, correct
        Probabilities of the labels, and which are correct; shape (n, labels).
    together
        Which label belongs to which set that the ground truth cannot divide, Boolean of shape (labels, sets).
    code
        The label of each row, shape (n,); ``None`` takes the most probable one.
    """
    rows, best = np.arange(len(probability)), probability.argmax(axis=1) if code is None else code
    summed = probability @ together.astype(probability.dtype)
    return Judged(probability[rows, best], summed[rows, together.argmax(axis=1)[best]], correct[rows, best])


def _column_truth(column: Any) -> Known:
    if isinstance(column, pd.DataFrame):
        raise ValueError(f"Several columns of .obs are named {column.columns[0]!r}. Rename or drop all but one.")
    values = column.astype(object)
    if any(isinstance(v, list | dict | set | np.ndarray) for v in values):
        raise ValueError(
            f".obs[{column.name!r}] holds lists or other containers; the ground truth is one class for each row."
        )
    known = ~values.isna().to_numpy()
    labels = group_names(column)
    _warn_of_missing_as_text(labels[known], str(column.name))
    classes = map(group_name, column.cat.categories) if hasattr(column, "cat") else pd.unique(labels[known])
    proportions = {c: np.where(known, labels == c, np.nan) for c in classes}
    return Known(pd.DataFrame(proportions), True, labels)


def _warn_of_missing_as_text(labels: np.ndarray, column: str) -> None:
    """Name classes that are most likely missing values which were turned into text: their rows are compared as those of a class."""
    texts = [name for name in pd.unique(labels) if reads_missing(name)]
    if texts:
        n = int(np.isin(labels, np.array(texts, object)).sum())
        warn(
            f"{n} rows of .obs[{column!r}] are of the class {listing(map(repr, texts))}, which counts as known. If it is unknown: "
            f"adata.obs[{column!r}] = adata.obs[{column!r}].astype(object).replace({texts!r}, np.nan)."
        )


def _proportions(table: AnnData, key: str) -> pd.DataFrame:
    values: Any = table.obsm[key]
    if isinstance(values, pd.DataFrame):
        return values
    stored = table.uns.get(key)
    classes = stored.get("classes") if isinstance(stored, Mapping) else None
    if classes is None:
        raise KeyError(
            f".obsm[{key!r}] is an array without class names. Put them in .uns[{key!r}]['classes'], or pass a DataFrame."
        )
    values = values.toarray() if sp.issparse(values) else np.asarray(values)
    if values.ndim != 2 or np.ndim(classes) != 1 or values.shape[1] != len(classes):
        raise ValueError(
            f".obsm[{key!r}] has the shape {values.shape} and .uns[{key!r}]['classes'] {np.size(classes)} names. Name each column once."
        )
    return pd.DataFrame(values, columns=[group_name(c) for c in classes])


def _class_names(truth: pd.DataFrame) -> list[str]:
    names = [group_name(c) for c in truth.columns]
    if not names:
        raise ValueError("truth has no columns; it needs one for each class.")
    repeated = [name for name, n in Counter(names).items() if n > 1]
    if repeated:
        raise ValueError(f"Several columns of truth are named {listing(repeated, 3)}. Rename or drop all but one.")
    return names


def _states_presence(column: pd.Series) -> bool:
    """Whether a column holds True and False. With missing values, such as those of rows that were added by name, it is one of objects."""
    return pd.api.types.is_bool_dtype(column.dtype) or pd.api.types.infer_dtype(column, skipna=True) == "boolean"


def _numbers(column: pd.Series, name: str) -> np.ndarray:
    """Values of a class, in their own precision; float64 where they are no decimals. NaN where they are unknown."""
    # of nullable, sparse and plain columns
    dtype: Any = getattr(column.dtype, "numpy_dtype", getattr(column.dtype, "subtype", column.dtype))
    try:
        values = column.astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError):
        raise TypeError(
            f"The column {name!r} of truth must hold proportions, counts or True and False, not {column.dtype}. Leave out columns that "
            "are no classes."
        ) from None
    negative = values < -_ROUNDING
    if negative.any():
        raise ValueError(
            f"The column {name!r} of truth holds {int(negative.sum())} negative values (lowest {np.nanmin(values):g}), and proportions and "
            "counts have none. Pass values before they were centred or transformed; if 0 is meant: truth.clip(lower=0)."
        )
    return values.astype(dtype) if dtype.kind == "f" else values


def _dominant(values: np.ndarray, names: Sequence[str]) -> np.ndarray:
    whole = np.isfinite(values).all(axis=1)
    largest = np.where(whole, values.max(axis=1), 0.0)
    clear = (largest > 0) & ((values == largest[:, None]).sum(axis=1) == 1)
    out = np.full(len(values), None, dtype=object)
    out[clear] = np.array(names, dtype=object)[values[clear].argmax(axis=1)]
    return out
