from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata

from spatialwhisperer.retrieval import recall
from spatialwhisperer.retrieval.recall import partner_ranks


@pytest.mark.parametrize("floats", [2**24, 50])
def test_ranks_are_those_of_scipy_within_groups(monkeypatch: pytest.MonkeyPatch, floats: int) -> None:
    monkeypatch.setattr(recall, "_FLOATS", floats)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40, 5)), rng.normal(size=(40, 5))
    groups = rng.integers(0, 3, 40)
    unit_a, unit_b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    cosines = unit_a @ unit_b.T
    for i, rank in enumerate(partner_ranks(a, b, groups).mean):
        inside = np.flatnonzero(groups == groups[i])
        assert rank == rankdata(-cosines[i, inside])[np.searchsorted(inside, i)]


def test_equal_keys_share_their_ranks() -> None:
    assert partner_ranks(np.ones((5, 2)), np.ones((5, 2)), np.zeros(5)).mean.tolist() == [3.0] * 5
    assert partner_ranks(np.zeros((2, 2)), np.eye(2), np.zeros(2)).mean.tolist() == [1.5, 1.5]


@pytest.mark.parametrize("n", range(12, 30))
def test_a_collapsed_embedding_is_as_good_as_chance(n: int) -> None:
    """Whatever the matrix product makes of equal rows: it rounds some of them in another way."""
    one, other = np.random.default_rng(n).normal(size=(2, 37))
    found = partner_ranks(np.tile(one, (n, 1)), np.tile(other, (n, 1)), np.zeros(n))
    for k in (1, 5, 10):
        assert found.within(k) == pytest.approx(np.full(n, k / n))


def test_a_row_that_is_there_twice_is_found_every_other_time() -> None:
    twice = np.repeat(np.random.default_rng(0).normal(size=(10, 7)), 2, axis=0)
    found = partner_ranks(twice, twice, np.zeros(20))
    assert (found.within(1) == 0.5).all()
    assert (found.within(2) == 1).all()


def test_length_does_not_count() -> None:
    a = np.array([[1.0, 0.0], [1.0, 1.0]])
    assert partner_ranks(a, a * [[1.0], [100.0]], np.zeros(2)).mean.tolist() == [1.0, 1.0]
