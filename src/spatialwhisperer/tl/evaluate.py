"""Comparing scores with what is known, by one stated convention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access import get_table, section_codes
from spatialwhisperer._utils import found

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from spatialdata import SpatialData

CONVENTION = (
    "AUROC of the class score against presence, within each group, undefined ones skipped; mean over groups within a class, "
    "then over classes (SpatialWhisperer, Table 2). Accuracy and F1 of the best label against the true one over all rows."
)


def evaluate_annotation(
    data: AnnData | SpatialData,
    truth: str | pd.DataFrame,
    *,
    key: str = _keys.LABEL,
    mapping: Mapping[str, str] | None = None,
    threshold: float = 0.0,
    min_rows: int = 1,
    group_key: str | None = None,
    per_group: bool = False,
    table_key: str | None = None,
) -> pd.DataFrame:
    """Measure an annotation against known labels.

    A class is *present* in a row whose true label it is, or whose true share or count of it exceeds ``threshold``. For each
    group (section) and class the AUROC of the class score against presence is taken, undefined ones are skipped, the mean is
    taken over groups within a class and then over classes; this is neither pooled nor the AUROC of the dominant class.

    Parameters
    ----------
    data
        Annotated by :func:`zero_shot_annotate`.
    truth
        Column of ``.obs`` with true labels (NaN: unknown, left out); or slot of ``.obsm`` with shares or counts per class
        (a DataFrame, or an array whose class names are in ``.uns[truth]['classes']``); or such a DataFrame itself, in the
        order of the rows. Boolean values state presence directly.
    key
        Column of ``.obs`` written by the annotation.
    mapping
        From true class to the label it is compared with, where the names differ. Classes without a label are left out.
    threshold
        Share or count above which a class is present.
    min_rows
        Rows that a class needs with and without it, in a group, for its AUROC to be taken there.
    group_key
        Column of ``.obs`` with the group. Not given: the section.
    per_group
        Return one row per group and class instead.
    table_key
        Table of a SpatialData.

    Returns
    -------
    DataFrame. By class: ``auroc`` (mean over groups), ``n_groups``, ``n_present``, ``precision``, ``recall``, ``f1``; the
    last row, ``"macro"``, holds the means over classes and ``accuracy``. With ``per_group``: ``group``, ``class``, ``auroc``,
    ``n_present``, ``n``. The convention is stated in ``.attrs["convention"]``.

    Raises
    ------
    KeyError
        If the annotation or the truth is not there.
    ValueError
        If no true class is among the labels, or no row has both scores and a known truth.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections, reference = sw.datasets.simulate_sections(2, 80, n_genes=100, n_reference_cells=200, random_state=0)
    >>> model = sw.tl.train([sections["P1"], reference], max_epochs=20, tile_px=64)
    >>> labels = dict(zip(reference.obs["cell_type"], reference.obs["text"]))
    >>> sw.tl.zero_shot_annotate(sections["P2"], labels, model=model)
    >>> result = sw.tl.evaluate_annotation(sections["P2"], "cell_type")
    >>> bool(result.loc["macro", "auroc"] > 0.5)
    True
    """
    table = get_table(data, table_key)
    scores = _scores(table, key)
    known = _truth(table, truth)
    mapping = {c: c for c in known.shares} if mapping is None else dict(mapping)
    classes = [c for c in known.shares if mapping.get(c) in scores]
    if not classes:
        raise ValueError(
            f"None of the true classes ({found(known.shares)}) is among the labels ({found(scores)}). "
            "Pass mapping={true: label}."
        )
    scored = np.isfinite(scores.to_numpy()).all(axis=1)
    usable = {c: scored & known.shares[c].notna().to_numpy() for c in classes}
    if not any(rows.any() for rows in usable.values()):
        raise ValueError(
            f"No row has both scores and a known truth ({int(known.shares.notna().any(axis=1).sum())} rows have a known truth)."
        )
    present = {c: known.shares[c].to_numpy() > (0.5 if known.stated else threshold) for c in classes}
    groups = _groups(data, table, group_key, table_key)
    rows = [
        _auroc_row(group, c, present[c][take], scores[mapping[c]].to_numpy()[take], min_rows)
        for group in pd.unique(groups[scored])
        for c in classes
        for take in [usable[c] & (groups == group)]
    ]
    tidy = pd.DataFrame(rows, columns=["group", "class", "auroc", "n_present", "n"])
    out = tidy if per_group else _by_class(tidy, classes, table.obs[key], known.dominant, mapping, scored)
    out.attrs["convention"] = CONVENTION
    return out


def _scores(table: AnnData, key: str) -> pd.DataFrame:
    slot = _keys.scores(key)
    if slot not in table.obsm or key not in table.uns or key not in table.obs:
        raise KeyError(
            f"There is no annotation {key!r} (needs .obs[{key!r}], .obsm[{slot!r}] and .uns[{key!r}]; .obsm holds "
            f"{found(table.obsm)}). Run sw.tl.zero_shot_annotate(data, labels, model=model) first."
        )
    classes = [str(c) for c in table.uns[key]["classes"]]
    return pd.DataFrame(np.asarray(table.obsm[slot]), columns=classes)


class _Known(NamedTuple):
    """What is known: shares by class (NaN: unknown), whether they state presence, and the dominant class (None: unknown)."""

    shares: pd.DataFrame
    stated: bool
    dominant: np.ndarray


def _truth(table: AnnData, truth: Any) -> _Known:
    if isinstance(truth, str) and truth in table.obs:
        return _column_truth(table.obs[truth])
    if isinstance(truth, str):
        if truth not in table.obsm:
            raise KeyError(
                f"truth={truth!r} is neither in .obs (found: {found(table.obs)}) nor in .obsm (found: {found(table.obsm)})."
            )
        truth = _shares(table, truth)
    if not isinstance(truth, pd.DataFrame):
        raise TypeError(f"truth must be a name or a DataFrame, not {type(truth).__name__}.")
    if len(truth) != table.n_obs:
        raise ValueError(f"truth has {len(truth)} rows, the table {table.n_obs}.")
    stated = all(pd.api.types.is_bool_dtype(dtype) for dtype in truth.dtypes)
    values = np.column_stack([truth[c].astype("Float64").to_numpy(dtype=float, na_value=np.nan) for c in truth])
    names = np.array([str(c) for c in truth], dtype=object)
    whole = np.isfinite(values).all(axis=1)
    dominant = np.full(len(values), None, dtype=object)
    dominant[whole] = names[values[whole].argmax(axis=1)]
    return _Known(pd.DataFrame(values, columns=names), stated, dominant)


def _column_truth(column: pd.Series) -> _Known:
    values = column.astype(object)
    known = ~values.isna().to_numpy()
    order = column.cat.categories if hasattr(column, "cat") else pd.unique(values[known])
    labels = np.where(known, values.astype(str).to_numpy(dtype=object), None)
    shares = {str(c): np.where(known, labels == str(c), np.nan) for c in order}
    return _Known(pd.DataFrame(shares), True, labels)


def _shares(table: AnnData, slot: str) -> pd.DataFrame:
    values = table.obsm[slot]
    if isinstance(values, pd.DataFrame):
        return values
    classes = table.uns.get(slot, {}).get("classes")
    if classes is None:
        raise KeyError(
            f".obsm[{slot!r}] is an array without class names. Put them in .uns[{slot!r}]['classes'], or pass a DataFrame."
        )
    return pd.DataFrame(np.asarray(values), columns=[str(c) for c in classes])


def _groups(data: Any, table: AnnData, group_key: str | None, table_key: str | None) -> np.ndarray:
    if group_key is None:
        return section_codes(data, table_key=table_key)
    if group_key not in table.obs:
        raise KeyError(f"group_key={group_key!r} not in .obs (found: {found(table.obs)}).")
    return table.obs[group_key].astype(str).to_numpy(dtype=object)


def _auroc_row(group: str, name: str, present: np.ndarray, scores: np.ndarray, min_rows: int) -> tuple[Any, ...]:
    from sklearn.metrics import roc_auc_score

    n, total = int(present.sum()), len(present)
    defined = n >= max(1, min_rows) and total - n >= max(1, min_rows)
    return group, name, float(roc_auc_score(present, scores)) if defined else np.nan, n, total


def _by_class(
    tidy: pd.DataFrame,
    classes: list[str],
    predicted: pd.Series,
    dominant: np.ndarray,
    mapping: Mapping[str, str],
    scored: np.ndarray,
) -> pd.DataFrame:
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    by = tidy.groupby("class", sort=False)
    out = pd.DataFrame(
        {"auroc": by["auroc"].mean(), "n_groups": by["auroc"].count(), "n_present": by["n_present"].sum()}
    )
    # labels are compared in the words of the annotation; an abstained row is a miss of its class
    take = scored & np.isin(dominant.astype(str), classes)
    true = np.array([mapping[c] for c in dominant[take]], dtype=object)
    guess = predicted.astype(object).where(predicted.notna(), "").to_numpy(dtype=object)[take]
    names = [mapping[c] for c in classes]
    # shares may state presence of classes that dominate nowhere: these have ranks and no hard label
    precision = recall = f1 = np.nan
    if take.any():
        precision, recall, f1, _ = precision_recall_fscore_support(true, guess, labels=names, zero_division=0)
    out = out.loc[classes].assign(precision=precision, recall=recall, f1=f1)
    macro = out[["auroc", "precision", "recall", "f1"]].mean()
    out.loc["macro"] = macro.to_dict() | {"n_groups": out["n_groups"].max(), "n_present": out["n_present"].sum()}
    out["accuracy"] = np.nan
    out.loc["macro", "accuracy"] = accuracy_score(true, guess) if take.any() else np.nan
    return out.astype({"n_groups": int, "n_present": int})
