"""What the hard labels of a held-out section are worth: of all rows, and of those that keep a label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer.protocols.default_model.decisions import judge
from spatialwhisperer.statistics.bootstrap import Bootstrap, interval, spatial_blocks
from spatialwhisperer.statistics.calibration import expected_calibration_error

if TYPE_CHECKING:
    from spatialwhisperer.protocols.default_model.decisions import Decision
    from spatialwhisperer.protocols.default_model.unseen_patients import HeldOut

FEWEST = 5
"""Rows of a region at least, for its recall and F1 to count."""

RESAMPLINGS = 500


def hard_labels(part: HeldOut, decision: Decision) -> dict[str, float]:
    """Accuracy, balanced accuracy and macro-F1 of the best region, also where rows abstain, and the calibration error.

    Balanced accuracy and macro-F1 are means over the regions of five rows or more in the section. The interval of the calibration error
    is that of 500 resamplings of blocks of neighbouring rows.

    Parameters
    ----------
    part
        The section.
    decision
        Fitted on other patients.
    """
    from sklearn.metrics import f1_score

    probability = decision.found.scaling.probabilities(part.scores)
    guess, truth = probability.argmax(axis=1), part.correct.argmax(axis=1)
    rows = judge(part, decision)
    kept = rows.confidence >= decision.min_confidence
    counted = np.flatnonzero(part.correct.sum(axis=0) >= FEWEST)
    recall = [(guess[truth == c] == c).mean() for c in counted]
    of_kept = [(guess[kept & (truth == c)] == c).mean() for c in counted if (kept & (truth == c)).any()]
    low, high = calibration_interval(rows.summed, rows.correct, part.positions)
    return {
        "commonest class": float(part.correct.mean(axis=0).max()),
        "accuracy": float(rows.correct.mean()),
        "balanced accuracy": float(np.mean(recall)),
        "macro-F1": float(f1_score(truth, guess, labels=counted, average="macro", zero_division=0)),
        "kept": float(kept.mean()),
        "accuracy of kept": float(rows.correct[kept].mean()) if kept.any() else np.nan,
        "balanced accuracy of kept": float(np.mean(of_kept)) if of_kept else np.nan,
        "min_confidence": decision.min_confidence,
        "ECE": expected_calibration_error(rows.summed, rows.correct),
        "ECE, lower": low,
        "ECE, upper": high,
    }


def calibration_interval(confidence: np.ndarray, correct: np.ndarray, positions: np.ndarray) -> tuple[float, float]:
    """95 % interval of the expected calibration error, by resampling blocks of neighbouring rows."""
    blocks = spatial_blocks(positions, np.zeros(len(positions)))
    drawn = Bootstrap(blocks, RESAMPLINGS).weights.astype(int)
    rows = (np.repeat(np.arange(len(confidence)), weights) for weights in drawn)
    return interval(np.array([expected_calibration_error(confidence[own], correct[own]) for own in rows]))
