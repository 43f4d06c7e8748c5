"""An annotation compared with the ground truth, by one stated convention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.contract import number_matrix
from spatialwhisperer._access.elements.colours import lost_classes
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import listing, warn
from spatialwhisperer.statistics.intervals.auroc import auroc
from spatialwhisperer.tl._annotation.consistency import check_labels
from spatialwhisperer.tl.evaluation.rows.groups import row_groups
from spatialwhisperer.tl.evaluation.rows.truth import Known, above, known_truth, label_sets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

_OF_LABELS = ["precision", "recall", "f1"]

CONVENTION = (
    "AUROC of the class score against presence, within each group, undefined ones skipped; mean over groups within a class, "
    "then over classes (SpatialWhisperer, Table 2). Accuracy and F1 of the best label against the true one over all rows."
)


@shared
@checked
def evaluate_annotation(
    data: AnnData | SpatialData,
    truth: str | pd.DataFrame,
    *,
    key: str = _keys.LABEL,
    mapping: Mapping[Any, str | Sequence[str]] | None = None,
    threshold: float = 0.0,
    min_rows: int = 1,
    group_key: str | None = None,
    per_group: bool = False,
    table_key: str | None = None,
) -> pd.DataFrame:
    """Measure an annotation against known labels.

    A class is *present* in a row if it is the true label of the row, or if its true proportion or count exceeds ``threshold``. The
    AUROC of the class score against presence is computed for each group (section) and class; undefined ones are skipped. The mean
    is taken over groups within a class, then over classes. Accuracy and F1 compare the best label with the true one; a row that
    abstained, or was rolled up to a coarser term, counts as missed. Of proportions, counts and Boolean values the true label is the
    class with the largest value. A row in which no class is above 0, or several have the largest value, has no true label and counts
    for the AUROC alone. A class that is the true label of no row, such as one that is
    present in many rows and never the largest proportion, has no F1, and does not count in its mean. Classes with the same labels
    have one precision, recall and F1 together, which count once in the means.

    Parameters
    ----------
    data
        Annotated by :func:`zero_shot_annotate`.
    truth
        Column of ``.obs`` with true labels (rows with NaN are left out); or key of ``.obsm`` with proportions or counts per class
        (a DataFrame, or an array whose class names are in ``.uns[truth]['classes']``); or such a DataFrame itself. Its rows are
        found by the names of the table, in any order; a DataFrame without names (a default index) is in the order of the table.
        Every column is a class. Boolean values state presence directly.
    key
        Column of ``.obs`` written by the annotation.
    mapping
        From true class to the label it is compared with, where the names differ, or to several labels that it covers, of which the
        highest score counts. Classes without a label are left out.
    threshold
        Proportion or count above which a class is present; rounded to the precision of the ground truth. Estimated abundances are
        often above 0 in every row: with 0 no class has an AUROC then, and a warning names them.
    min_rows
        Smallest number of rows with and without a class in a group for which its AUROC is computed.
    group_key
        Column of ``.obs`` with the group; ``None`` takes the section.
    per_group
        Return one row per group and class instead.
    %(table_key)s

    Returns
    -------
    DataFrame. By class: ``auroc`` (mean over groups), ``n_groups``, ``n_present``, ``precision``, ``recall``, ``f1``; the
    last row, ``"macro"``, holds the means over classes and ``accuracy``. With ``per_group``: ``group``, ``class``, ``auroc``,
    ``n_present``, ``n``. ``.attrs["convention"]`` states the convention.

    Raises
    ------
    KeyError
        If the annotation or the truth is not there.
    TypeError
        If a column of the truth holds no numbers.
    ValueError
        If no true class is among the labels, no row has both scores and a known truth, proportions are negative, or the rows of a
        DataFrame are not those of the table.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> section = sw.datasets.simulate_sections(1, 40, n_genes=100, n_reference_cells=50, random_state=0).sections["P1"]
    >>> sw.tl.zero_shot_annotate(section, ["T cell", "fibroblast", "adipocyte"], unknown="label")
    >>> result = sw.tl.evaluate_annotation(section, "cell_type")
    >>> result.index.tolist()
    ['T cell', 'fibroblast', 'adipocyte', 'macro']
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
    """Presence and scores of one class, in the rows of one group where presence is known."""

    group: str
    name: str
    present: np.ndarray
    scores: np.ndarray

    def defined(self, min_rows: int) -> bool:
        """Whether enough rows have the class, and enough do not, for an AUROC."""
        n, least = int(self.present.sum()), max(1, min_rows)
        return n >= least and len(self.present) - n >= least


class Comparison(NamedTuple):
    """Scores and the ground truth of the same rows.

    Attributes
    ----------
    pairs
        Every class in every group.
    sets
        Labels that are correct for each class.
    known
        The ground truth.
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
    mapping: Mapping[Any, str | Sequence[str]] | None,
    threshold: float,
    group_key: str | None,
) -> Comparison:
    """Scores and the ground truth by the convention of :func:`evaluate_annotation`.

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
    sets = label_sets(names_of(known.proportions), names_of(scores), mapping)
    scored = np.isfinite(scores.to_numpy()).all(axis=1)
    usable = {c: scored & known.proportions[c].notna().to_numpy() for c in sets}
    if not any(rows.any() for rows in usable.values()):
        raise ValueError(
            f"No row has both scores and a known truth ({int(known.proportions.notna().any(axis=1).sum())} rows have a known truth)."
        )
    present = {c: above(known.proportions[c].to_numpy(), 0.5 if known.stated else threshold) for c in sets}
    groups = row_groups(slide, group_key)
    pairs = [
        Pair(group, c, present[c][take], scores[own].max(axis=1).to_numpy()[take])
        for group in pd.unique(groups[scored])
        for c, own in sets.items()
        for take in [usable[c] & (groups == group)]
    ]
    if not known.stated:
        _warn_of_constant(pairs, threshold)
    return Comparison(pairs, sets, known, scored)


def _warn_of_constant(pairs: Sequence[Pair], threshold: float) -> None:
    """Name the classes that the threshold makes present in every row, or in none: they have no AUROC."""
    present: dict[str, list[np.ndarray]] = {}
    for pair in pairs:
        present.setdefault(pair.name, []).append(pair.present)
    rows = {name: np.concatenate(parts) for name, parts in present.items()}
    every = [name for name, its in rows.items() if len(its) and its.all()]
    none = [name for name, its in rows.items() if len(its) and not its.any()]
    found = [f"{listing(every)} in every row (pass a higher threshold=…)"] if every else []
    if none:
        found.append(f"{listing(none)} in none" + (" (pass a lower threshold=…)" if threshold > 0 else ""))
    if found:
        warn(
            f"At threshold={threshold:g}, classes are present in all rows or in none, and have no AUROC: {'; '.join(found)}. The mean "
            "is over the other classes."
        )


def label_scores(table: AnnData, key: str) -> pd.DataFrame:
    """Stored scores of an annotation, one column per label.

    Raises
    ------
    KeyError
        If the table was not annotated under this name.
    ValueError
        If labels and scores are of different annotations.
    """
    scores = _keys.scores(key)
    if key in table.obs and (lost := lost_classes(table, key)):
        raise KeyError(f"There are no class names for the scores of {key!r}: {lost}")
    if scores not in table.obsm or key not in table.uns or key not in table.obs:
        raise KeyError(
            f"There is no annotation {key!r} (needs .obs[{key!r}], .obsm[{scores!r}] and .uns[{key!r}]; .obsm holds "
            f"{listing(table.obsm)}). Run sw.tl.zero_shot_annotate(data, labels, model=model) first."
        )
    values, classes = number_matrix(table.obsm[scores], f".obsm[{scores!r}]"), class_names(table, key)
    if values.shape[1] != len(classes):
        raise ValueError(
            f".obsm[{scores!r}] has {values.shape[1]} columns, .uns[{key!r}]['classes'] {len(classes)} labels: annotate again."
        )
    check_labels(table, key, values, classes)
    dtype = getattr(table.obsm[scores], "dtype", np.dtype(np.float32))
    return pd.DataFrame(values.astype(dtype if dtype.kind == "f" else np.float32), columns=classes)


def class_names(table: AnnData, key: str) -> list[str]:
    """Label of each column of the scores of an annotation.

    Raises
    ------
    ValueError
        If they are not there.
    """
    stored: Any = table.uns[key]
    names: Any = stored.get("classes") if isinstance(stored, Mapping) else None
    if np.ndim(names) != 1:
        raise ValueError(f".uns[{key!r}]['classes'] must list the labels of the scores: annotate again.")
    return [str(c) for c in names]


def names_of(frame: pd.DataFrame) -> list[str]:
    """Names of the columns."""
    return [str(name) for name in frame.columns]


def _auroc_row(pair: Pair, min_rows: int) -> tuple[Any, ...]:
    value = auroc(pair.scores, pair.present) if pair.defined(min_rows) else np.nan
    return pair.group, pair.name, value, int(pair.present.sum()), len(pair.present)


def _by_class(
    tidy: pd.DataFrame,
    sets: Mapping[str, Sequence[str]],
    predicted: Any,
    dominant: np.ndarray,
    scored: np.ndarray,
) -> pd.DataFrame:
    by = tidy.groupby("class", sort=False)
    out = pd.DataFrame(
        {"auroc": by["auroc"].mean(), "n_groups": by["auroc"].count(), "n_present": by["n_present"].sum()}
    ).loc[list(sets)]
    # labels are compared by the names of the annotation; a row that abstained counts as missed
    take = scored & np.isin(dominant, np.array(list(sets), dtype=object))
    true = dominant[take]
    guess = predicted.astype(object).where(predicted.notna(), "").to_numpy(dtype=object)[take]
    occurs = {name: bool((true == name).any()) for name in sets}
    for name, own in sets.items():
        same = np.isin(true.astype(str), [c for c in sets if sets[c] == own])
        hits = _hits(np.isin(guess.astype(str), own), same)
        # a class that is the true label of no row has an AUROC, but no precision, recall and F1, also where another one has its labels
        out.loc[name, _OF_LABELS] = hits if occurs[name] else np.nan
    once = list({tuple(own): name for name, own in sets.items() if occurs[name]}.values())
    macro = out.loc[once, _OF_LABELS].mean().to_dict() | {"auroc": out["auroc"].mean()}
    out.loc["macro"] = macro | {"n_groups": out["n_groups"].max(), "n_present": out["n_present"].sum()}
    out["accuracy"] = np.nan
    correct = np.array([g in sets[c] for g, c in zip(guess, true, strict=True)])
    out.loc["macro", "accuracy"] = correct.mean() if take.any() else np.nan
    return out.astype({"n_groups": int, "n_present": int})


def _hits(guessed: np.ndarray, true: np.ndarray) -> list[float]:
    """Precision, recall and F1 of one class."""
    both, n_guessed, n_true = int((guessed & true).sum()), int(guessed.sum()), int(true.sum())
    return [both / max(n_guessed, 1), both / max(n_true, 1), 2 * both / max(n_guessed + n_true, 1)]
