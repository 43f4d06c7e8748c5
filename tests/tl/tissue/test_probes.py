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
    y = np.array(["a"] * 10 + ["b"] * 2 + ["c"] * 5, dtype=object)
    x = np.random.default_rng(0).normal(size=(17, 3))
    assert np.unique(y[take_shots(x, y, 4, 0)], return_counts=True)[1].tolist() == [4, 2, 4]
    assert take_shots(x, y, None, 0).tolist() == list(range(17))
    order = np.random.default_rng(1).permutation(17)
    shuffled = order[take_shots(x[order], y[order], 4, 0)]
    assert sorted(shuffled.tolist()) == take_shots(x, y, 4, 0).tolist()
    assert not np.array_equal(take_shots(x, y, 4, 0), take_shots(x, y, 4, 1))


def test_the_shots_of_a_class_do_not_depend_on_other_classes() -> None:
    y = np.repeat(np.array(["a", "b", "c"], dtype=object), 20)
    x = np.random.default_rng(0).normal(size=(60, 3))
    taken = take_shots(x, y, 4, 0)
    assert take_shots(x[20:], y[20:], 4, 0).tolist() == (taken[taken >= 20] - 20).tolist()
    # nor is one draw made for all
    assert len({tuple(taken[y[taken] == c] % 20) for c in "abc"}) == 3


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
    probe = fit_probe(x, np.array(["z", "b", "a"])[y], np.arange(60) % 3, classes=["z", "b", "a"], method=method)
    scores = probe.score(x)
    assert np.allclose(scores.sum(axis=1), 1)
    # a class without a training row has no probability
    assert (scores[:, 1] == 0).all()
    assert (scores.argmax(axis=1) == y).mean() > 0.95
    assert (probe.penalty is None) == (method != "logistic")
    assert (probe.n_neighbors is None) == (method != "knn")


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_classes_and_rows_changes_nothing(method: Any) -> None:
    rng = np.random.default_rng(0)
    # many rows are equal, and as near as rows of other classes
    x, labels, groups = rng.integers(0, 3, (90, 2)).astype(float), rng.choice(list("abc"), 90), np.arange(90) % 3
    new, order = rng.normal(1, 1, (50, 2)), rng.permutation(90)
    one = fit_probe(x, labels, groups, classes=["a", "b", "c"], method=method).score(new)
    other = fit_probe(x[order], labels[order], groups[order], classes=["c", "a", "b"], method=method).score(new)
    assert np.allclose(one, other[:, [1, 2, 0]], atol=1e-6)
    assert np.array_equal(one.argmax(axis=1), np.array([2, 0, 1])[other.argmax(axis=1)])


def test_nearest_rows_vote() -> None:
    rng = np.random.default_rng(0)
    x, labels, new = rng.normal(size=(60, 2)), rng.choice(list("abc"), 60), rng.normal(size=(40, 2))
    probe = fit_probe(x, labels, np.zeros(60), classes=["c", "b", "a"], method="knn", n_neighbors=6)
    scores = probe.score(new)
    assert probe.n_neighbors == 6
    assert np.allclose(scores.sum(axis=1), 1)
    n_tied = 0
    for row, own in zip(new, scores, strict=True):
        near = labels[np.argsort(np.square((x - row) / x.std(axis=0)).sum(axis=1))[:6]]
        votes = {c: int((near == c).sum()) for c in "cba"}
        assert np.allclose(own, [n / 6 for n in votes.values()], atol=2e-6)
        most = [c for c, n in votes.items() if n == max(votes.values())]
        # of the classes with the most neighbours, the one of the nearest of their rows; in single precision too
        assert "cba"[own.astype(np.float32).argmax()] == next(c for c in near if c in most)
        n_tied += len(most) > 1
    assert n_tied > 5


@pytest.mark.parametrize(("n_rows", "voters"), [(1, 1), (5, 5), (14, 14), (40, 15)])
def test_few_rows_of_each_class_do_not_outvote_the_near_ones(n_rows: int, voters: int) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(list("abc"), n_rows)
    centres = dict(zip("abc", np.eye(3) * 9, strict=True))
    x = np.array([centres[c] for c in labels]) + rng.normal(size=(len(labels), 3))
    probe = fit_probe(x, labels, np.zeros(len(labels)), classes=list("abc"), method="knn", n_neighbors=15)
    assert probe.n_neighbors == voters
    assert probe.score(np.eye(3) * 9).argmax(axis=1).tolist() == [0, 1, 2]


def test_the_penalty_is_chosen_by_left_out_groups() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    groups = np.repeat(np.arange(4), 100)
    x = rng.normal(size=(400, 30))
    x[:, 0] += 1.5 * y
    assert choose_penalty(x, y, groups, random_state=0) in PENALTIES
    probe = fit_probe(x, y.astype(str), groups, classes=["0", "1"])
    assert probe.penalty == choose_penalty(x, y, groups, random_state=0)


def test_two_groups_are_enough_to_choose_a_penalty() -> None:
    """Classes that differ in a small difference of two large features are told apart with a weak penalty only."""
    rng = np.random.default_rng(0)
    y, groups = np.arange(80) % 2, np.repeat([0, 1], 40)
    large, small = rng.normal(size=80), 0.15 * (2 * y - 1)
    x = np.column_stack([large + small, large - small]) + 0.01 * rng.normal(size=(80, 2))
    assert choose_penalty(x, y, groups, random_state=0) == max(PENALTIES)
    assert choose_penalty(x, y, np.zeros(80), random_state=0) == FIXED_PENALTY


def test_the_penalty_is_fixed_where_there_is_no_group_to_leave_out() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), np.arange(40) % 2
    assert choose_penalty(x, y, np.zeros(40), random_state=0) == FIXED_PENALTY
    # without either group a single class is left
    assert choose_penalty(x, y, y, random_state=0) == FIXED_PENALTY
