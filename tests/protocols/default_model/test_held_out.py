"""What is measured of a held-out section."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.protocols.default_model.held_out import _row
from spatialwhisperer.protocols.default_model.labels import LABELS
from spatialwhisperer.protocols.default_model.unseen_patients import HeldOut
from spatialwhisperer.statistics.calibration import probabilities

TEMPERATURE = 0.5


@pytest.fixture
def part() -> HeldOut:
    """Ten rows of two classes: the three most confident labels and the sixth are correct."""
    malignant, fat = (list(LABELS).index(name) for name in ("malignant cell", "fat cell"))
    scores = np.zeros((10, len(LABELS)))
    scores[:, malignant] = np.linspace(2.0, 0.2, 10)
    correct = np.zeros((10, len(LABELS)), bool)
    right = np.isin(np.arange(10), [0, 1, 2, 5])
    correct[right, malignant] = True
    correct[~right, fat] = True
    return HeldOut(
        "A1",
        pd.DataFrame({"auroc": [0.6, 0.9]}),
        scores,
        correct,
        {"auroc": 0.7, "kappa": 0.3},
        {"words": 0.8, "examples": 0.85},
    )


def test_accuracy_is_that_of_the_most_confident_rows(part: HeldOut) -> None:
    row = _row(part, TEMPERATURE)
    kept = [row[f"correct, {c} kept"] for c in ("100%", "50%", "25%", "10%")]
    # ten, five, two and one row
    assert kept == pytest.approx([4 / 10, 3 / 5, 1, 1])
    assert row["commonest class"] == pytest.approx(0.6)


def test_the_calibration_error_is_that_of_the_probabilities_at_the_temperature(part: HeldOut) -> None:
    p = probabilities(part.labels, TEMPERATURE).max(axis=1)
    right = part.correct[np.arange(10), part.labels.argmax(axis=1)]
    which = np.ceil(p * 15)
    by_hand = sum(abs((right[which == b] - p[which == b]).sum()) for b in np.unique(which)) / 10
    assert _row(part, TEMPERATURE)["ECE"] == pytest.approx(by_hand)


def test_what_was_measured_before_stands_under_its_name(part: HeldOut) -> None:
    row = _row(part, TEMPERATURE)
    assert row["section"] == "A1"
    assert row["macro AUROC"] == pytest.approx(0.75)
    assert (row["AUROC against expression"], row["kappa with expression"]) == (0.7, 0.3)
    assert (row["regions, words"], row["regions, 5 examples each"]) == (0.8, 0.85)
