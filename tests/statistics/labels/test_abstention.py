"""The confidence below which a label is worth less than none."""

from __future__ import annotations

import numpy as np
import pytest

from spatialwhisperer.statistics.labels.abstention import commonest_class, least_confidence


def rows(accuracies: dict[float, float], n: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Confidence, and whether a label is correct, with an accuracy for each confidence."""
    confidence = np.repeat(list(accuracies), n)
    right = np.concatenate([np.arange(n) < round(a * n) for a in accuracies.values()])
    return confidence, right


def test_labels_that_are_kept_beat_the_commonest_class_by_two_standard_errors() -> None:
    confidence, right = rows({0.55: 0.3, 0.65: 0.7, 0.75: 0.8, 0.95: 0.98})
    commonest = np.arange(400) % 10 < 7
    sections = np.zeros(400)
    least = least_confidence(confidence, right, sections, commonest)
    # .65 and above: 248 of 300, .827 - 2 x .022 > .7
    assert least == pytest.approx(0.56)
    # half as common as the labels are right: every label is worth something
    assert least_confidence(confidence, right, sections, np.arange(400) % 10 < 5) == pytest.approx(0.5)


def test_every_section_counts() -> None:
    confidence, right = rows({0.55: 0.3, 0.65: 0.7, 0.75: 0.8, 0.95: 0.98})
    two = np.r_[np.zeros(400), np.ones(400)]
    commonest = np.r_[np.arange(400) % 10 < 5, np.arange(400) % 20 < 17]
    least = least_confidence(np.tile(confidence, 2), np.tile(right, 2), two, commonest)
    assert least == pytest.approx(0.76)


def test_a_quarter_of_the_rows_keep_their_label_at_least() -> None:
    confidence, right = rows({0.6: 0.5, 0.7: 0.6, 0.8: 0.7, 0.9: 0.8, 0.99: 0.85}, n=40)
    least = least_confidence(confidence, right, np.zeros(200), np.ones(200, bool))
    # nothing beats a class that fills the section: the best of those that keep a quarter, the two highest confidences
    assert least == pytest.approx(0.81)


def test_the_commonest_class_is_that_of_the_section() -> None:
    correct = np.eye(2, dtype=bool)[[0, 0, 1, 1, 1, 0]]
    got = commonest_class(correct, np.array(["a", "a", "a", "b", "b", "b"]))
    assert got.tolist() == [True, True, False, True, True, False]
