"""Whether confidence can be believed, and what abstaining buys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.columns import tables_of
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._messages import listing
from spatialwhisperer._provenance import recorded_as
from spatialwhisperer.statistics.calibration import N_BINS, expected_calibration_error, probabilities, reliability_bins
from spatialwhisperer.tl._annotation.record import AnnotationRecord
from spatialwhisperer.tl._annotation.scoring import top_codes
from spatialwhisperer.tl.calibrate import judged
from spatialwhisperer.tl.evaluation.annotation import label_scores
from spatialwhisperer.tl.evaluation.truth import correct_labels, indistinct, known_truth, label_sets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.tl.calibrate import Judged


def evaluate_calibration(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    truth: str | pd.DataFrame,
    *,
    key: str = _keys.LABEL,
    mapping: Mapping[str, str | Sequence[str]] | None = None,
    n_bins: int = N_BINS,
    table_key: str | None = None,
) -> pd.DataFrame:
    """Compare how sure rows are with how often they are right.

    All rows with scores and a known truth count, also those that abstained. Where the truth cannot tell labels apart (those that
    are right for the same true classes), the confidence of a row is the sum of their probabilities.

    Parameters
    ----------
    data
        One object or several, annotated by :func:`zero_shot_annotate` with the same labels.
    truth, key, table_key
        As in :func:`evaluate_annotation`; of proportions the largest counts.
    mapping
        From true class to label, or to several that it covers.
    n_bins
        Bins of equal width.

    Returns
    -------
    DataFrame, one row per bin: ``low``, ``high``, ``confidence`` and ``accuracy`` (means over the rows of the bin, NaN where it has
    none) and ``n``. ``.attrs`` holds "ece" (expected calibration error: mean over rows of the distance of the two; Guo et al.,
    ICML 2017), "accuracy", "confidence", "n" and "convention".

    Raises
    ------
    KeyError
        If the annotation or the truth is not there.
    ValueError
        If no true class has a label, or no row has both scores and a known truth.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections, reference = sw.datasets.simulate_sections(2, 80, n_genes=100, n_reference_cells=200, random_state=0)
    >>> model = sw.tl.train([sections["P1"], reference], max_epochs=20, tile_px=64)
    >>> labels = dict(zip(reference.obs["cell_type"], reference.obs["text"]))
    >>> sw.tl.zero_shot_annotate(sections["P2"], labels, model=model)
    >>> bins = sw.tl.evaluate_calibration(sections["P2"], "cell_type")
    >>> 0 < bins.attrs["ece"] < 1
    True
    """
    rows = _judged(data, truth, key, mapping, table_key)
    confidence, correct = rows.summed, rows.correct
    bins = pd.DataFrame(reliability_bins(confidence, correct, n_bins=n_bins)._asdict())
    bins.attrs |= {
        "ece": expected_calibration_error(confidence, correct, n_bins=n_bins),
        "accuracy": float(correct.mean()),
        "confidence": float(confidence.mean()),
        "n": len(correct),
        "convention": f"Best label, {n_bins} bins of equal width; probabilities of labels that the ground truth cannot tell apart are summed.",
    }
    return bins


def abstention_curve(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    truth: str | pd.DataFrame,
    *,
    key: str = _keys.LABEL,
    mapping: Mapping[str, str | Sequence[str]] | None = None,
    table_key: str | None = None,
) -> pd.DataFrame:
    """What fraction of rows keeps a label at each ``min_confidence``, and what fraction of these labels is correct.

    Parameters
    ----------
    data, truth, key, mapping, table_key
        As in :func:`evaluate_calibration`.

    Returns
    -------
    DataFrame, one row per confidence that occurs, the highest first: ``threshold`` (probability of the best label, as ``min_confidence``
    compares it), ``coverage`` (fraction of rows that reach it), ``accuracy`` among them, and their number ``n``.

    Raises
    ------
    KeyError, ValueError
        As :func:`evaluate_calibration`.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections, reference = sw.datasets.simulate_sections(2, 80, n_genes=100, n_reference_cells=200, random_state=0)
    >>> model = sw.tl.train([sections["P1"], reference], max_epochs=20, tile_px=64)
    >>> labels = dict(zip(reference.obs["cell_type"], reference.obs["text"]))
    >>> sw.tl.zero_shot_annotate(sections["P2"], labels, model=model)
    >>> curve = sw.tl.abstention_curve(sections["P2"], "cell_type")
    >>> float(curve["coverage"].iloc[-1])
    1.0
    """
    confidence, _, correct = _judged(data, truth, key, mapping, table_key)
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


def top_labels(
    data: AnnData | SpatialData, k: int = 3, *, key: str = _keys.LABEL, table_key: str | None = None
) -> pd.DataFrame:
    """The best labels of each row with their probabilities.

    Parameters
    ----------
    data
        Annotated by :func:`zero_shot_annotate`.
    k
        How many labels.
    key, table_key
        As in :func:`evaluate_annotation`.

    Returns
    -------
    DataFrame with the rows of the table and the columns ``label_1``, ``probability_1``, … up to ``k``; missing where a row has no tile.

    Raises
    ------
    KeyError
        If there is no annotation.
    ValueError
        If there are fewer labels than ``k``.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections, reference = sw.datasets.simulate_sections(2, 80, n_genes=100, n_reference_cells=200, random_state=0)
    >>> model = sw.tl.train([sections["P1"], reference], max_epochs=20, tile_px=64)
    >>> sw.tl.zero_shot_annotate(sections["P2"], model=model)
    >>> sw.tl.top_labels(sections["P2"], 2).columns.tolist()
    ['label_1', 'probability_1', 'label_2', 'probability_2']
    """
    table = Slide.open(data, table_key=table_key).table
    probability = stored_probabilities(table, key)
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= probability.shape[1]:
        raise ValueError(f"k must be a whole number between 1 and the {probability.shape[1]} labels, not {k!r}.")
    codes, names, values = (
        top_codes(probability.to_numpy(), k),
        np.array(probability.columns, object),
        probability.to_numpy(),
    )
    out = pd.DataFrame(index=table.obs_names)
    for rank in range(k):
        code = codes[:, rank]
        out[f"label_{rank + 1}"] = np.where(code >= 0, names[code], None)
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
    return pd.DataFrame(probabilities(scores.to_numpy(), record.temperature), columns=scores.columns)


def _judged(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    truth: str | pd.DataFrame,
    key: str,
    mapping: Mapping[str, str | Sequence[str]] | None,
    table_key: str | None,
) -> Judged:
    """The best labels of all rows with scores and a known truth."""
    tables = tables_of(data, table_key)
    stored = [stored_probabilities(t, key) for t in tables]
    labels = list(stored[0])
    if other := next((list(s) for s in stored if list(s) != labels), None):
        raise ValueError(f"The objects were annotated with different labels: {listing(labels)}, and {listing(other)}.")
    known = [known_truth(t, truth) for t in tables]
    sets = label_sets(dict.fromkeys(c for k in known for c in k.proportions), labels, mapping)
    correct = correct_labels(np.concatenate([k.dominant for k in known]), sets, labels)
    values = np.concatenate([s.to_numpy() for s in stored])
    take = np.isfinite(values).all(axis=1) & correct.any(axis=1)
    if not take.any():
        raise ValueError(
            f"No row has both scores and a known truth among {listing(sets)} ({int(correct.any(axis=1).sum())} rows have a known truth)."
        )
    return judged(values[take], correct[take], indistinct(sets, labels))
