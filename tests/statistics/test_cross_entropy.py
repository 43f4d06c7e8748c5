from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from spatialwhisperer.statistics.surprise import left_out_surprise, log_profiles, surprise


@pytest.fixture
def shares() -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.full(200, 0.5), size=3)


def draw(shares: np.ndarray, codes: np.ndarray, depth: int, seed: int = 1) -> sp.csr_matrix:
    rng = np.random.default_rng(seed)
    return sp.csr_matrix(np.stack([rng.multinomial(depth, shares[c]) for c in codes]).astype(float))


def test_profiles_are_shares(shares: np.ndarray) -> None:
    codes = np.repeat([0, 1, 2], 50)
    profile = log_profiles(draw(shares, codes, 2000), codes, 3)
    assert np.allclose(np.exp(profile).sum(axis=1), 1, atol=1e-3)
    assert np.allclose(np.exp(profile), shares, atol=2e-3)


def test_rows_of_a_profile_surprise_by_nothing_at_any_depth(shares: np.ndarray) -> None:
    codes = np.repeat([0, 1, 2], 300)
    for depth in (60, 600, 6000):
        assert abs(surprise(draw(shares, codes, depth), np.log(shares)).mean()) < 0.05


def test_other_genes_surprise(shares: np.ndarray) -> None:
    codes = np.repeat([0, 1, 2], 50)
    other = shares[:, np.random.default_rng(2).permutation(200)]
    assert surprise(draw(other, codes, 1000), np.log(shares)).min() > 0.3
    # the genes that were measured decide: on a panel of equal genes nothing is known to be odd
    same = draw(shares, codes, 1000)
    have = np.arange(200) < 60
    assert abs(surprise(same, np.log(shares), have).mean()) < 0.05


def test_few_counts_say_nothing(shares: np.ndarray) -> None:
    assert np.isnan(surprise(draw(shares, np.zeros(4, int), 10), np.log(shares))).all()
    assert np.isnan(surprise(draw(shares, np.zeros(4, int), 100), np.log(shares), np.zeros(200, bool))).all()


def test_a_group_of_its_own_kind_surprises_when_left_out(shares: np.ndarray) -> None:
    codes = np.repeat([0, 1, 2], 60)
    counts = draw(shares, codes, 1000)
    mixed = left_out_surprise(counts, codes, 3, np.arange(180) % 3)
    assert abs(mixed.mean()) < 0.05
    apart = left_out_surprise(counts, codes, 3, codes)
    assert apart.min() > 0.3
    halves = left_out_surprise(counts, codes, 3, np.zeros(180, int))
    assert abs(halves.mean()) < 0.05
