"""Comparing scores with what is known, by one stated convention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._messages import listing
from spatialwhisperer.tl.evaluation.truth import Known, known_truth, label_sets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
    mapping: Mapping[str, str | Sequence[str]] | None = None,
    threshold: float = 0.0,
    min_rows: int = 1,
    group_key: str | None = None,
    per_group: bool = False,
    table_key: str | None = None,
) -> pd.DataFrame:
    """Measure an annotation against known labels.

    A class is *present* in a row whose true label it is, or whose true proportion or count of it exceeds ``threshold``. For each
    group (section) and class the AUROC of the class score against presence is taken, undefined ones are skipped, the mean is
    taken over groups within a class and then over classes; this is neither pooled nor the AUROC of the dominant class. A row that
    abstained, or was rolled up to a coarser term, is a miss of its class in accuracy and F1.

    Parameters
    ----------
    data
        Annotated by :func:`zero_shot_annotate`.
    truth
        Column of ``.obs`` with true labels (NaN: unknown, left out); or key of ``.obsm`` with proportions or counts per class
        (a DataFrame, or an array whose class names are in ``.uns[truth]['classes']``); or such a DataFrame itself, in the
        order of the rows. Boolean values state presence directly.
    key
        Column of ``.obs`` written by the annotation.
    mapping
        From true class to the label it is compared with, where the names differ, or to several that it covers, of which the best
        score counts. Classes without a label are left out.
    threshold
        Proportion or count above which a class is present.
    min_rows
        Rows that a class needs with and without it, in a group, for its AUROC to be taken there.
    group_key
        Column of ``.obs`` with the group; ``None`` takes the section.
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
    slide = Slide.open(data, table_key=table_key)
    compared = compare(slide, truth, key=key, mapping=mapping, threshold=threshold, group_key=group_key)
    rows = [_auroc_row(pair, min_rows) for pair in compared.pairs]
    tidy = pd.DataFrame(rows, columns=["group", "class", "auroc", "n_present", "n"])
    known = compared.known.dominant
    out = tidy if per_group else _by_class(tidy, compared.sets, slide.table.obs[key], known, compared.scored)
    out.attrs["convention"] = CONVENTION
    return out


class Pair(NamedTuple):
    """Rows of a group in which it is known whether a class is there, with its scores."""

    group: str
    name: str
    present: np.ndarray
    scores: np.ndarray

    def defined(self, min_rows: int) -> bool:
        """Whether enough rows have the class, and enough have not, for its scores to be judged."""
        n, least = int(self.present.sum()), max(1, min_rows)
        return n >= least and len(self.present) - n >= least


class Comparison(NamedTuple):
    """Scores beside what is known.

    Attributes
    ----------
    pairs
        Every class in every group.
    sets
        Labels that are correct for each class.
    known
        The truth.
    scored
        Rows that have scores.
    """

    pairs: list[Pair]
    sets: dict[str, list[str]]
    known: Known
    scored: np.ndarray


def compare(
    slide: Slide,
    truth: str | pd.DataFrame,
    *,
    key: str,
    mapping: Mapping[str, str | Sequence[str]] | None,
    threshold: float,
    group_key: str | None,
) -> Comparison:
    """Put scores beside the truth by the convention of :func:`evaluate_annotation`.

    Raises
    ------
    KeyError
        If the annotation, the truth or the group is not there.
    ValueError
        If no true class is among the labels, or no row has both scores and a known truth.
    """
    table = slide.table
    scores = label_scores(table, key)
    known = known_truth(table, truth)
    sets = label_sets(known.proportions, list(scores), mapping)
    scored = np.isfinite(scores.to_numpy()).all(axis=1)
    usable = {c: scored & known.proportions[c].notna().to_numpy() for c in sets}
    if not any(rows.any() for rows in usable.values()):
        raise ValueError(
            f"No row has both scores and a known truth ({int(known.proportions.notna().any(axis=1).sum())} rows have a known truth)."
        )
    present = {c: known.proportions[c].to_numpy() > (0.5 if known.stated else threshold) for c in sets}
    groups = _groups(slide, group_key)
    pairs = [
        Pair(group, c, present[c][take], scores[own].max(axis=1).to_numpy()[take])
        for group in pd.unique(groups[scored])
        for c, own in sets.items()
        for take in [usable[c] & (groups == group)]
    ]
    return Comparison(pairs, sets, known, scored)


def label_scores(table: AnnData, key: str) -> pd.DataFrame:
    """Stored scores of an annotation, one column per label.

    Raises
    ------
    KeyError
        If the table was not annotated under this name.
    """
    scores = _keys.scores(key)
    if scores not in table.obsm or key not in table.uns or key not in table.obs:
        raise KeyError(
            f"There is no annotation {key!r} (needs .obs[{key!r}], .obsm[{scores!r}] and .uns[{key!r}]; .obsm holds "
            f"{listing(table.obsm)}). Run sw.tl.zero_shot_annotate(data, labels, model=model) first."
        )
    classes = [str(c) for c in table.uns[key]["classes"]]
    return pd.DataFrame(np.asarray(table.obsm[scores]), columns=classes)


def _groups(slide: Slide, group_key: str | None) -> np.ndarray:
    table = slide.table
    if group_key is None:
        return slide.sections
    if group_key not in table.obs:
        raise KeyError(f"group_key={group_key!r} not in .obs (found: {listing(table.obs)}).")
    return table.obs[group_key].astype(str).to_numpy(dtype=object)


def _auroc_row(pair: Pair, min_rows: int) -> tuple[Any, ...]:
    from sklearn.metrics import roc_auc_score

    auroc = float(roc_auc_score(pair.present, pair.scores)) if pair.defined(min_rows) else np.nan
    return pair.group, pair.name, auroc, int(pair.present.sum()), len(pair.present)


def _by_class(
    tidy: pd.DataFrame,
    sets: Mapping[str, Sequence[str]],
    predicted: pd.Series,
    dominant: np.ndarray,
    scored: np.ndarray,
) -> pd.DataFrame:
    by = tidy.groupby("class", sort=False)
    out = pd.DataFrame(
        {"auroc": by["auroc"].mean(), "n_groups": by["auroc"].count(), "n_present": by["n_present"].sum()}
    ).loc[list(sets)]
    # labels are compared in the words of the annotation; an abstained row is a miss of its class
    take = scored & np.isin(dominant.astype(str), list(sets))
    true = dominant[take]
    guess = predicted.astype(object).where(predicted.notna(), "").to_numpy(dtype=object)[take]
    for name, own in sets.items():
        # shares may state presence of classes that dominate nowhere: these have ranks and no hard label
        same = np.isin(true.astype(str), [c for c in sets if sets[c] == own])
        out.loc[name, ["precision", "recall", "f1"]] = _hits(np.isin(guess.astype(str), own), same, take.any())
    macro = out[["auroc", "precision", "recall", "f1"]].mean()
    out.loc["macro"] = macro.to_dict() | {"n_groups": out["n_groups"].max(), "n_present": out["n_present"].sum()}
    out["accuracy"] = np.nan
    right = np.array([g in sets[c] for g, c in zip(guess, true, strict=True)])
    out.loc["macro", "accuracy"] = right.mean() if take.any() else np.nan
    return out.astype({"n_groups": int, "n_present": int})


def _hits(guessed: np.ndarray, true: np.ndarray, defined: bool) -> list[float]:
    """Precision, recall and F1 of one class; 0 where one divides by 0, NaN without rows."""
    if not defined:
        return [np.nan] * 3
    both, n_guessed, n_true = int((guessed & true).sum()), int(guessed.sum()), int(true.sum())
    return [both / max(n_guessed, 1), both / max(n_true, 1), 2 * both / max(n_guessed + n_true, 1)]
