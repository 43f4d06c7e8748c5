"""Whether the confidence of an annotation agrees with its accuracy, and how accuracy rises where uncertain rows abstain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.columns import as_list
from spatialwhisperer._access.contract import number_matrix
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import listing
from spatialwhisperer._provenance import recorded_as
from spatialwhisperer.statistics.calibration import N_BINS, calibration_error, probabilities, reliability_bins
from spatialwhisperer.statistics.intervals.spatial import SpatialErrors
from spatialwhisperer.tl._annotation.decision import chosen
from spatialwhisperer.tl._annotation.record import AnnotationRecord
from spatialwhisperer.tl._annotation.scoring import top_codes
from spatialwhisperer.tl.evaluation.annotation import label_scores, names_of
from spatialwhisperer.tl.evaluation.rows.truth import (
    correct_labels,
    indistinct,
    judged,
    known_truth,
    label_sets,
    truth_of_each,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.tl.evaluation.rows.truth import Judged


@shared
@checked
def evaluate_calibration(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    truth: str | pd.DataFrame | Sequence[str | pd.DataFrame],
    *,
    key: str = _keys.LABEL,
    mapping: Mapping[Any, str | Sequence[str]] | None = None,
    n_bins: int = N_BINS,
    table_key: str | None = None,
) -> pd.DataFrame:
    """Compare the confidence of labels with how often they are correct.

    The label of a row is the one that :func:`zero_shot_annotate` chose; with regions or ``rollup`` another one may be more probable. All
    rows with scores and a known truth count. Rows that abstained count with the label that they would have got. Labels that are correct
    for the same true classes cannot be told apart by the truth: their probabilities are summed.

    Parameters
    ----------
    data
        One object or several, annotated by :func:`zero_shot_annotate` with the same labels.
    truth
        As in :func:`evaluate_annotation`; for several objects a name that all have, or a list with a name or DataFrame for each. Rows
        that have no true label are left out.
    key
        As in :func:`evaluate_annotation`.
    mapping
        From true class to label, or to several that it covers.
    n_bins
        Number of bins of equal width.
    %(table_key)s

    Returns
    -------
    DataFrame, one row per bin: ``low``, ``high``, ``confidence`` and ``accuracy`` (means over the rows of the bin, NaN where it has
    none) and ``n``. ``.attrs`` holds "ece" (expected calibration error: mean over rows of the difference of the two; Guo et al.,
    ICML 2017), "accuracy", "confidence", "n" and "convention". The error is biased upwards where rows are few: "ece_by_chance" is
    what perfectly calibrated confidences would get, "ece_debiased" the error without what chance adds to each bin, and "ece_low" and
    "ece_high" are a 95 % interval that accounts for the dependence of neighbouring rows. It is NaN where rows form fewer than three
    independent patches. Other patients differ by more than the interval says.

    Raises
    ------
    KeyError
        If the annotation or the truth is not there.
    ValueError
        If no true class has a label, no row has both scores and a known truth, or one DataFrame is given for several objects.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> section = sw.datasets.simulate_sections(1, 40, n_genes=100, n_reference_cells=50, random_state=0).sections["P1"]
    >>> sw.tl.zero_shot_annotate(section, ["T cell", "fibroblast", "adipocyte"], unknown="label")
    >>> bins = sw.tl.evaluate_calibration(section, "cell_type")
    >>> 0 < bins.attrs["ece"] < 1
    True
    """
    slides = [Slide.open(d, table_key=table_key) for d in as_list(data)]
    rows, taken = judged_rows(slides, truth, key, mapping)
    confidence, correct = rows.summed, rows.correct
    sections, positions = places(slides, taken)
    residual = SpatialErrors(positions, sections).mean(correct - confidence.astype(float))
    error = calibration_error(confidence, correct, residual, n_bins=n_bins)
    bins = pd.DataFrame(reliability_bins(confidence, correct, n_bins=n_bins)._asdict())
    bins.attrs |= {
        "ece": error.value,
        "ece_debiased": error.debiased,
        "ece_by_chance": error.by_chance,
        "ece_low": error.low,
        "ece_high": error.high,
        "accuracy": float(correct.mean()),
        "confidence": float(confidence.mean()),
        "n": len(correct),
        "convention": f"Chosen label, {n_bins} bins of equal width; probabilities of labels that the ground truth cannot tell apart are summed.",
    }
    return bins


@shared
@checked
def abstention_curve(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    truth: str | pd.DataFrame | Sequence[str | pd.DataFrame],
    *,
    key: str = _keys.LABEL,
    mapping: Mapping[Any, str | Sequence[str]] | None = None,
    table_key: str | None = None,
) -> pd.DataFrame:
    """Fraction of rows that keep their label at each ``min_confidence``, and accuracy among them.

    Parameters
    ----------
    data, truth, key, mapping
        As in :func:`evaluate_calibration`.
    %(table_key)s

    Returns
    -------
    DataFrame, one row per confidence that occurs, the highest first: ``threshold`` (a value of ``min_confidence``), ``coverage``
    (fraction of rows whose label reaches it), ``accuracy`` among them, and their number ``n``.

    Raises
    ------
    KeyError, ValueError
        As :func:`evaluate_calibration`.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> section = sw.datasets.simulate_sections(1, 40, n_genes=100, n_reference_cells=50, random_state=0).sections["P1"]
    >>> sw.tl.zero_shot_annotate(section, ["T cell", "fibroblast", "adipocyte"], unknown="label")
    >>> curve = sw.tl.abstention_curve(section, "cell_type")
    >>> float(curve["coverage"].iloc[-1])
    1.0
    """
    slides = [Slide.open(d, table_key=table_key) for d in as_list(data)]
    (confidence, _, correct), _ = judged_rows(slides, truth, key, mapping)
    order = np.argsort(-confidence, kind="stable")
    n = np.arange(1, len(order) + 1)
    curve = pd.DataFrame(
        {
            "threshold": confidence[order].astype(np.float64),
            "coverage": n / len(n),
            "accuracy": correct[order].cumsum() / n,
            "n": n,
        }
    )
    # rows of one confidence are kept or lost together
    return curve[~curve["threshold"].duplicated(keep="last")].reset_index(drop=True)


@shared
@checked
def top_labels(
    data: AnnData | SpatialData, k: int = 3, *, key: str = _keys.LABEL, table_key: str | None = None
) -> pd.DataFrame:
    """The label of each row and the ones that come next, with their probabilities.

    Parameters
    ----------
    data
        Annotated by :func:`zero_shot_annotate`.
    k
        Number of labels.
    key
        Column of ``.obs`` written by the annotation.
    %(table_key)s

    Returns
    -------
    DataFrame with the rows of the table and the columns ``label_1``, ``probability_1``, … up to ``k``; missing where a row has no tile.
    ``label_1`` is the label that the annotation chose, also where the row abstained or got a coarser term. The others follow by their
    probability. With regions or ``rollup`` one of them may be more probable than the first, which lies in the most probable region.

    Raises
    ------
    KeyError
        If there is no annotation.
    ValueError
        If ``k`` is not between 1 and the number of labels, or labels and scores are of different annotations, as after
        :func:`anndata.concat` with ``uns_merge="first"``.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> section = sw.datasets.simulate_sections(1, 40, n_genes=100, n_reference_cells=50, random_state=0).sections["P1"]
    >>> sw.tl.zero_shot_annotate(section, unknown="label")
    >>> sw.tl.top_labels(section, 2).columns.tolist()
    ['label_1', 'probability_1', 'label_2', 'probability_2']
    """
    table = Slide.open(data, table_key=table_key).table
    probability = stored_probabilities(table, key)
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= probability.shape[1]:
        raise ValueError(f"k must be a whole number between 1 and the {probability.shape[1]} labels, not {k!r}.")
    values, names = probability.to_numpy(), names_of(probability)
    codes = top_codes(values, k, stored_codes(table, key, probability))
    out = pd.DataFrame(index=table.obs_names)
    for rank in range(k):
        code = codes[:, rank]
        out[f"label_{rank + 1}"] = [names[c] if c >= 0 else None for c in code]
        out[f"probability_{rank + 1}"] = values[np.arange(len(code)), code]
    return out


def stored_probabilities(table: AnnData, key: str) -> pd.DataFrame:
    """Probabilities of the labels of an annotation, one column per label.

    Raises
    ------
    KeyError
        If there is no annotation, or its provenance does not say how its scores were made.
    """
    scores = label_scores(table, key)
    record = recorded_as(table, key, AnnotationRecord)
    if record is None:
        raise KeyError(
            f"The provenance of {key!r} does not say at which temperature its scores become probabilities. Annotate again: "
            "sw.tl.zero_shot_annotate(data, labels, model=model)."
        )
    if record.scores == "probability":
        return scores
    if record.probabilities == "stored":
        stored = number_matrix(table.obsm.get(_keys.probability(key)), f".obsm[{_keys.probability(key)!r}]")
        return pd.DataFrame(stored, columns=scores.columns)
    return pd.DataFrame(probabilities(scores.to_numpy(), record.temperature), columns=scores.columns)


def stored_codes(table: AnnData, key: str, probability: pd.DataFrame) -> np.ndarray:
    """Column of the label that an annotation chose for each row, shape (n,); -1 in rows without scores.

    Parameters
    ----------
    table, key
        The annotated table, and the name of the annotation.
    probability
        What :func:`stored_probabilities` gives.
    """
    record = recorded_as(table, key, AnnotationRecord)
    return chosen(probability.to_numpy(), names_of(probability), () if record is None else record.path)


def places(slides: Sequence[Slide], taken: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Section and position of some of the rows of all slides; no positions where a slide has none."""
    sections = np.concatenate([[f"{i}:{code}" for code in slide.sections] for i, slide in enumerate(slides)])
    positions = [xy for slide in slides if (xy := slide.positions()) is not None]
    return sections[taken], np.concatenate(positions)[taken] if len(positions) == len(slides) else None


def judged_rows(
    slides: Sequence[Slide],
    truth: str | pd.DataFrame | Sequence[str | pd.DataFrame],
    key: str,
    mapping: Mapping[Any, str | Sequence[str]] | None,
) -> tuple[Judged, np.ndarray]:
    """The labels of all rows with scores and a known truth, and which rows these are, Boolean over the rows of all slides."""
    stored = [stored_probabilities(slide.table, key) for slide in slides]
    labels = names_of(stored[0])
    if other := next((names_of(s) for s in stored if names_of(s) != labels), None):
        raise ValueError(f"The objects were annotated with different labels: {listing(labels)}, and {listing(other)}.")
    known = [known_truth(s.table, own) for s, own in zip(slides, truth_of_each(truth, len(slides)), strict=True)]
    sets = label_sets(dict.fromkeys(c for k in known for c in names_of(k.proportions)), labels, mapping)
    correct = correct_labels(np.concatenate([k.dominant for k in known]), sets, labels)
    values = np.concatenate([s.to_numpy() for s in stored])
    take = np.isfinite(values).all(axis=1) & correct.any(axis=1)
    if not take.any():
        raise ValueError(
            f"No row has both scores and a known truth among {listing(sets)} ({int(correct.any(axis=1).sum())} rows have a known truth)."
        )
    codes = np.concatenate([stored_codes(s.table, key, own) for s, own in zip(slides, stored, strict=True)])
    return judged(values[take], correct[take], indistinct(sets, labels), codes[take]), take
