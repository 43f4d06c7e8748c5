"""Comparing scores with what is known, by one stated convention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    known, shares, dominant = _truth(table, truth)
    mapping = {c: c for c in shares} if mapping is None else dict(mapping)
    classes = [c for c in shares if mapping.get(c) in scores]
    if not classes:
        raise ValueError(
            f"None of the true classes ({found(shares)}) is among the labels ({found(scores)}). Pass mapping={{true: label}}."
        )
    present = shares[classes] if shares.dtypes.eq(bool).all() else shares[classes] > threshold
    groups = _groups(data, table, group_key, table_key)
    usable = known & np.isfinite(scores.to_numpy()).all(axis=1)
    if not usable.any():
        raise ValueError(f"No row has both scores and a known truth ({int(known.sum())} rows have a known truth).")
    rows = [
        _auroc_row(group, c, present[c].to_numpy()[take], scores[mapping[c]].to_numpy()[take], min_rows)
        for group in pd.unique(groups[usable])
        for take in [usable & (groups == group)]
        for c in classes
    ]
    tidy = pd.DataFrame(rows, columns=["group", "class", "auroc", "n_present", "n"])
    out = tidy if per_group else _by_class(tidy, classes, table.obs[key], dominant, mapping, usable)
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


def _truth(table: AnnData, truth: Any) -> tuple[np.ndarray, pd.DataFrame, np.ndarray]:
    """Which rows are known, presence or shares by class, and the dominant class of each row."""
    if isinstance(truth, str) and truth in table.obs:
        values = table.obs[truth].astype(object)
        known = ~values.isna().to_numpy()
        column = table.obs[truth]
        order = column.cat.categories if hasattr(column, "cat") else pd.unique(values[known])
        names = [str(c) for c in order]
        labels = values.astype(str).to_numpy(dtype=object)
        return known, pd.DataFrame({c: labels == c for c in names}), labels
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
    truth = truth.reset_index(drop=True).rename(columns=str)
    known = ~truth.isna().any(axis=1).to_numpy()
    names = np.array(truth.columns, dtype=object)
    return known, truth, names[truth.fillna(0).to_numpy(dtype=float).argmax(axis=1)]


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
    usable: np.ndarray,
) -> pd.DataFrame:
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    by = tidy.groupby("class", sort=False)
    out = pd.DataFrame(
        {"auroc": by["auroc"].mean(), "n_groups": by["auroc"].count(), "n_present": by["n_present"].sum()}
    )
    # labels are compared in the words of the annotation; an abstained row is a miss of its class
    take = usable & np.isin(dominant.astype(str), classes)
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
