"""Classifiers on frozen features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spatialwhisperer.tl._tissue.probes import (
    FIXED_PENALTY,
    METHODS,
    PENALTIES,
    choose_penalty,
    fit_probe,
    scale,
    take_shots,
)


def test_shots_are_taken_from_every_class() -> None:
    y = np.array([0] * 10 + [1] * 2 + [2] * 5)
    x = np.random.default_rng(0).normal(size=(17, 3))
    assert np.bincount(y[take_shots(x, y, 4, 0)]).tolist() == [4, 2, 4]
    assert take_shots(x, y, None, 0).tolist() == list(range(17))
    order = np.random.default_rng(1).permutation(17)
    shuffled = order[take_shots(x[order], y[order], 4, 0)]
    assert sorted(shuffled.tolist()) == take_shots(x, y, 4, 0).tolist()


def test_columns_that_are_constant_are_not_scaled() -> None:
    x = np.array([[1.0, 5.0], [3.0, 5.0]])
    mean, sd = scale(x)
    assert mean.tolist() == [2, 5]
    assert sd.tolist() == [1, 1]


@pytest.mark.parametrize("method", METHODS)
def test_separated_classes_are_learnt_and_scores_add_up_to_one(method: Any) -> None:
    rng = np.random.default_rng(0)
    y = np.array([0, 2] * 30)
    x = np.eye(4)[y] * 5 + rng.normal(size=(60, 4))
    probe = fit_probe(x, y, np.arange(60) % 3, n_classes=3, method=method)
    scores = probe.score(x)
    assert np.allclose(scores.sum(axis=1), 1)
    # a class without a training row has no probability
    assert (scores[:, 1] == 0).all()
    assert (scores.argmax(axis=1) == y).mean() > 0.95
    assert (probe.penalty is None) == (method != "logistic")


def test_nearest_rows_vote() -> None:
    x = np.array([[0.0], [0.1], [0.2], [5.0], [5.1]])
    probe = fit_probe(x, np.array([0, 0, 1, 1, 1]), np.zeros(5), n_classes=2, method="knn", n_neighbors=3)
    assert np.allclose(probe.score(np.array([[0.05]])), [[2 / 3, 1 / 3]])


def test_the_penalty_is_chosen_by_left_out_groups() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    groups = np.repeat(np.arange(4), 100)
    x = rng.normal(size=(400, 30))
    x[:, 0] += 1.5 * y
    assert choose_penalty(x, y, groups, n_classes=2, random_state=0) in PENALTIES
    assert fit_probe(x, y, groups, n_classes=2).penalty == choose_penalty(x, y, groups, n_classes=2, random_state=0)


def test_two_groups_are_enough_to_choose_a_penalty() -> None:
    """Classes that differ in a small difference of two large features are told apart with a weak penalty only."""
    rng = np.random.default_rng(0)
    y, groups = np.arange(80) % 2, np.repeat([0, 1], 40)
    large, small = rng.normal(size=80), 0.15 * (2 * y - 1)
    x = np.column_stack([large + small, large - small]) + 0.01 * rng.normal(size=(80, 2))
    assert choose_penalty(x, y, groups, n_classes=2, random_state=0) == max(PENALTIES)
    assert choose_penalty(x, y, np.zeros(80), n_classes=2, random_state=0) == FIXED_PENALTY


def test_the_penalty_is_fixed_where_there_is_no_group_to_leave_out() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), np.arange(40) % 2
    assert choose_penalty(x, y, np.zeros(40), n_classes=2, random_state=0) == FIXED_PENALTY
    # without either group a single class is left
    assert choose_penalty(x, y, y, n_classes=2, random_state=0) == FIXED_PENALTY
