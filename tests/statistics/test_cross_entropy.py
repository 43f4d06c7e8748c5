from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from spatialwhisperer.statistics.cross_entropy import excess_cross_entropy, left_out_excess, log_profiles


@pytest.fixture
def fractions() -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.full(200, 0.5), size=3)


def draw(fractions: np.ndarray, codes: np.ndarray, depth: int, seed: int = 1) -> sp.csr_matrix:
    rng = np.random.default_rng(seed)
    return sp.csr_matrix(np.stack([rng.multinomial(depth, fractions[c]) for c in codes]).astype(float))


def test_profiles_are_fractions_of_the_counts(fractions: np.ndarray) -> None:
    codes = np.repeat([0, 1, 2], 50)
    profile = log_profiles(draw(fractions, codes, 2000), codes, 3)
    assert np.allclose(np.exp(profile).sum(axis=1), 1, atol=1e-3)
    assert np.allclose(np.exp(profile), fractions, atol=2e-3)


def test_rows_of_a_profile_have_no_excess_at_any_depth(fractions: np.ndarray) -> None:
    codes = np.repeat([0, 1, 2], 300)
    for depth in (60, 600, 6000):
        assert abs(excess_cross_entropy(draw(fractions, codes, depth), np.log(fractions)).mean()) < 0.05


def test_rows_of_other_genes_have_an_excess(fractions: np.ndarray) -> None:
    codes = np.repeat([0, 1, 2], 50)
    other = fractions[:, np.random.default_rng(2).permutation(200)]
    assert excess_cross_entropy(draw(other, codes, 1000), np.log(fractions)).min() > 0.3
    # the genes that were measured decide: on a panel of equal genes nothing is known to be odd
    same = draw(fractions, codes, 1000)
    have = np.arange(200) < 60
    assert abs(excess_cross_entropy(same, np.log(fractions), have).mean()) < 0.05


def test_few_counts_have_no_excess(fractions: np.ndarray) -> None:
    assert np.isnan(excess_cross_entropy(draw(fractions, np.zeros(4, int), 10), np.log(fractions))).all()
    assert np.isnan(
        excess_cross_entropy(draw(fractions, np.zeros(4, int), 100), np.log(fractions), np.zeros(200, bool))
    ).all()


def test_a_group_of_its_own_kind_has_an_excess_when_left_out(fractions: np.ndarray) -> None:
    codes = np.repeat([0, 1, 2], 60)
    counts = draw(fractions, codes, 1000)
    mixed = left_out_excess(counts, codes, 3, np.arange(180) % 3)
    assert abs(mixed.mean()) < 0.05
    apart = left_out_excess(counts, codes, 3, codes)
    assert apart.min() > 0.3
    halves = left_out_excess(counts, codes, 3, np.zeros(180, int))
    assert abs(halves.mean()) < 0.05
