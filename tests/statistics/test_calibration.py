from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spatialwhisperer.statistics.calibration import (
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    probabilities,
    reliability_bins,
)


def drawn(temperature: float, n: int = 6000, labels: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and truth drawn from their probabilities at a known temperature."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, labels)) + rng.normal(size=labels)
    p = probabilities(scores, temperature)
    truth = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return scores, np.eye(labels, dtype=bool)[truth]


@pytest.mark.parametrize("temperature", [0.02, 0.3, 1.0, 4.0])
def test_the_temperature_that_drew_the_truth_is_found(temperature: float) -> None:
    scores, correct = drawn(temperature)
    assert fit_temperature(scores * 1.0, correct) == pytest.approx(temperature, rel=0.08)
    # scores of another scale have a temperature of that scale
    assert fit_temperature(scores * 3, correct) == pytest.approx(3 * fit_temperature(scores, correct), rel=1e-3)


def test_it_is_the_minimum_of_the_likelihood() -> None:
    scores, correct = drawn(0.7, n=500)
    best = fit_temperature(scores, correct)
    losses = [negative_log_likelihood(scores, correct, t) for t in (best * 0.99, best, best * 1.01)]
    assert losses[1] == min(losses)
    by_hand = -np.log(probabilities(scores, best)[correct]).mean()
    assert losses[1] == pytest.approx(by_hand, abs=1e-12)


def test_probabilities_of_several_correct_labels_are_summed() -> None:
    """Where the truth cannot tell two labels apart, their probabilities count together."""
    scores, correct = drawn(0.5)
    either = correct.copy()
    either[:, :2] = correct[:, :2].any(axis=1, keepdims=True)
    assert fit_temperature(scores, either) == pytest.approx(0.5, rel=0.08)
    p = probabilities(scores, 0.5)
    assert negative_log_likelihood(scores, either, 0.5) == pytest.approx(-np.log((p * either).sum(1)).mean())


def test_scores_without_information_get_a_high_temperature() -> None:
    scores, _ = drawn(0.5)
    correct = np.eye(5, dtype=bool)[np.random.default_rng(1).integers(0, 5, len(scores))]
    flat = fit_temperature(scores, correct)
    assert flat > 5
    assert probabilities(scores, flat).max() < 0.5


def test_bins_by_hand() -> None:
    confidence = np.array([0.05, 0.1, 0.1000001, 0.95, 1.0, 0.0])
    correct = np.array([1, 0, 1, 1, 0, 0], bool)
    bins = reliability_bins(confidence, correct, n_bins=10)
    assert bins.n.tolist() == [3, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    assert bins.accuracy[0] == pytest.approx(1 / 3)
    assert bins.confidence[0] == pytest.approx(0.05)
    assert bins.accuracy[9] == 0.5
    assert np.isnan(bins.accuracy[2])
    assert bins.low[0] == 0
    assert bins.high[-1] == 1
    by_hand = (3 * abs(1 / 3 - 0.05) + 1 * abs(1 - 0.1000001) + 2 * abs(0.5 - 0.975)) / 6
    assert expected_calibration_error(confidence, correct, n_bins=10) == pytest.approx(by_hand)


def test_the_error_of_known_confidence() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.2, 1, 100_000)
    assert expected_calibration_error(p, rng.random(100_000) < p) < 0.01
    assert expected_calibration_error(p, rng.random(100_000) < p - 0.15) == pytest.approx(0.15, abs=0.01)
    assert np.isnan(expected_calibration_error(np.zeros(0), np.zeros(0)))


def test_a_fitted_temperature_corrects_the_confidence() -> None:
    scores, correct = drawn(1.0)
    error = {}
    for t in (0.2, fit_temperature(scores, correct)):
        p = probabilities(scores, t)
        error[t] = expected_calibration_error(p.max(1), correct[np.arange(len(p)), p.argmax(1)])
    before, after = error.values()
    assert before > 0.2
    assert after < 0.02


def test_probabilities_keep_nan_and_dtype() -> None:
    scores = np.array([[1.0, 2.0], [np.nan, 1.0]], np.float32)
    p = probabilities(scores, 0.01)
    assert p.dtype == np.float32
    assert np.isnan(p[1]).all()
    assert np.allclose(p[0], [0, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_temperature(np.zeros((2, 3)), np.zeros((2, 2), bool)), "one shape"),
        (lambda: fit_temperature(np.zeros((0, 3)), np.zeros((0, 3), bool)), "at least a row"),
        (lambda: fit_temperature(np.full((1, 2), np.nan), np.ones((1, 2), bool)), "must be finite"),
        (lambda: fit_temperature(np.zeros((2, 2)), np.eye(2, dtype=bool) & [True, False]), "1 rows have no correct"),
        (lambda: probabilities(np.zeros((1, 2)), 0.0), "temperature must be a positive"),
        (lambda: reliability_bins([0.5], [True], n_bins=0), "n_bins must be a positive"),
        (lambda: reliability_bins([0.5], [True, False]), "one length"),
        (lambda: reliability_bins([1.5], [True]), "between 0 and 1"),
        (lambda: reliability_bins([np.nan], [True]), "without NaN"),
    ],
)
def test_what_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
