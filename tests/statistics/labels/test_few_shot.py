"""A classifier of a few examples that starts from words."""

from __future__ import annotations

import numpy as np
import pytest

from spatialwhisperer.statistics.labels.few_shot import PENALTIES, WORDS, fit_few_shot, standardized


def rows(n: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % 2
    x = np.where(truth == 0, 1.0, -1.0)[:, None] * np.eye(6)[0] + rng.normal(0, noise, (n, 6))
    return x / np.sqrt((x**2).sum(axis=1).mean()), truth


def test_the_weight_of_words_falls_with_the_number_of_examples() -> None:
    x, truth = rows(40, 0.5)
    prior = np.zeros((40, 2))
    for n in (2, 4, 40):
        assert fit_few_shot(x[:n], prior[:n], truth[:n]).words == pytest.approx(WORDS / (n / 2))


def test_words_decide_where_examples_say_nothing() -> None:
    x, truth = rows(4, 0.0)
    x[:] = 0
    prior = np.array([[1.0, -1.0]] * 4)
    fitted = fit_few_shot(x, prior, truth)
    # the offset takes back a part: the examples say that both classes are as common
    logits = fitted.logits(np.zeros((1, 6)), np.array([[1.0, -1.0]]))[0]
    assert logits[0] > logits[1] - 1e-6
    assert np.allclose(fitted.coefficients, 0)


def test_classes_count_the_same_however_many_examples_they_have() -> None:
    x, truth = rows(60, 0.3)
    few = np.r_[np.flatnonzero(truth == 0)[:25], np.flatnonzero(truth == 1)[:2]]
    fitted = fit_few_shot(x[few], np.zeros((27, 2)), truth[few])
    rest = np.setdiff1d(np.arange(60), few)
    guess = fitted.logits(x[rest], np.zeros((len(rest), 2))).argmax(1)
    assert (guess[truth[rest] == 1] == 1).mean() > 0.9
    assert (guess[truth[rest] == 0] == 0).mean() > 0.9


def test_the_penalty_is_chosen_by_leaving_out_examples() -> None:
    clean, truth = rows(40, 0.1)
    noisy, _ = rows(40, 5.0)
    prior = np.zeros((40, 2))
    assert fit_few_shot(clean, prior, truth).penalty == min(PENALTIES)
    assert fit_few_shot(noisy, prior, truth).penalty == max(PENALTIES)
    # a single example of each class cannot be left out
    assert fit_few_shot(clean[:2], prior[:2], truth[:2]).penalty == 0.5


def test_scores_are_standardised_without_their_offsets() -> None:
    scores = np.random.default_rng(0).normal(size=(50, 3)) * 0.01 + [0.0, 0.5, 0.2]
    scores[4] = np.nan
    got = standardized(scores, np.arange(50) != 4)
    whole = np.delete(got, 4, axis=0)
    assert np.allclose(whole.mean(axis=0), 0)
    assert np.allclose(whole.sum(axis=1), 0)
    assert (whole**2).mean() == pytest.approx(1)
