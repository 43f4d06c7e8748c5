"""What the hard labels of a held-out section are worth: of all rows, and of those that keep a label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer.protocols.default_model.decisions import judge
from spatialwhisperer.statistics.calibration import calibration_error
from spatialwhisperer.statistics.intervals.spatial import SpatialErrors

if TYPE_CHECKING:
    from spatialwhisperer.protocols.default_model.decisions import Decision
    from spatialwhisperer.protocols.default_model.unseen_patients import HeldOut

FEWEST = 5
"""Rows of a region at least, for its recall and F1 to count."""


def hard_labels(part: HeldOut, decision: Decision) -> dict[str, float]:
    """Accuracy, balanced accuracy and macro-F1 of the best region, also where rows abstain, and the calibration error.

    Balanced accuracy and macro-F1 are means over the regions of five rows or more in the section. The interval of the calibration error
    accounts for neighbouring rows that are alike.

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
    residual = SpatialErrors(part.positions, np.zeros(len(truth))).mean(rows.correct - rows.summed)
    error = calibration_error(rows.summed, rows.correct, residual)
    return {
        "commonest class": float(part.correct.mean(axis=0).max()),
        "accuracy": float(rows.correct.mean()),
        "balanced accuracy": float(np.mean(recall)),
        "macro-F1": float(f1_score(truth, guess, labels=counted, average="macro", zero_division=0)),
        "kept": float(kept.mean()),
        "accuracy of kept": float(rows.correct[kept].mean()) if kept.any() else np.nan,
        "balanced accuracy of kept": float(np.mean(of_kept)) if of_kept else np.nan,
        "min_confidence": decision.min_confidence,
        "ECE": error.value,
        "ECE, debiased": error.debiased,
        "ECE, lower": error.low,
        "ECE, upper": error.high,
    }
