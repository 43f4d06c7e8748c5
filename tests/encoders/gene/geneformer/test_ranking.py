"""Rank-value tokens against a plain Python sort."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from spatialwhisperer.encoders.gene.geneformer import ranked_tokens


def oracle(counts: sp.csr_matrix, tokens: np.ndarray, medians: np.ndarray, total: np.ndarray, most: int) -> list:
    """The published order, with ties in the order of the tokens."""
    out = []
    for row, whole in zip(counts.toarray(), total, strict=True):
        known = [
            (-(float(c) / float(whole) * 10_000 / m), t)
            for c, t, m in zip(row, tokens, medians, strict=True)
            if c > 0 and t >= 0
        ]
        out.append([t for _, t in sorted(known)][:most])
    return out


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    genes=st.integers(1, 400),
    rate=st.sampled_from([0.05, 1.0, 300.0]),
    medians=st.sampled_from(["one", "few", "tenths", "many", "wide"]),
    most=st.sampled_from([5, 2048]),
)
def test_tokens_are_those_of_a_plain_sort(seed: int, genes: int, rate: float, medians: str, most: int) -> None:
    rng = np.random.default_rng(seed)
    counts = sp.csr_matrix(rng.poisson(rate, (6, genes)).astype(np.float32))
    tokens = rng.permutation(genes) + 2
    tokens[rng.random(genes) < 0.1] = -1
    median = {
        "one": np.ones(genes),
        "few": rng.choice([0.5, 1.0, 2.0], genes),
        # quotients that are equal but for rounding
        "tenths": rng.integers(1, 40, genes) / 10,
        "many": rng.gamma(2.0, 1.0, genes) + 1e-3,
        "wide": 10 ** rng.uniform(-200, 200, genes),
    }[medians]
    total = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel() + rng.integers(0, 3)
    found = ranked_tokens(counts, tokens, median, totals=total, most=most)
    assert [row.tolist() for row in found] == oracle(counts, tokens, median, total, most)


def test_the_total_moves_no_rank_and_rows_may_be_empty() -> None:
    rng = np.random.default_rng(0)
    counts = sp.csr_matrix(rng.poisson(0.5, (50, 300)).astype(np.float32))
    counts[7] = 0
    counts.eliminate_zeros()
    tokens, medians = np.arange(300) + 2, rng.gamma(2.0, 1.0, 300) + 0.1
    own = ranked_tokens(counts, tokens, medians)
    other = ranked_tokens(counts, tokens, medians, totals=np.full(50, 4096.0))
    assert all(np.array_equal(a, b) for a, b in zip(own, other, strict=True))
    assert len(own[7]) == 0


def test_rows_longer_than_the_network_keep_the_highest() -> None:
    rng = np.random.default_rng(1)
    counts = sp.csr_matrix(rng.integers(1, 4, (2, 5000)).astype(np.float32))
    tokens, medians = np.arange(5000) + 2, rng.choice([1.0, 2.0], 5000)
    found = ranked_tokens(counts, tokens, medians)
    assert [len(row) for row in found] == [2048, 2048]
    total = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    assert [row.tolist() for row in found] == oracle(counts, tokens, medians, total, 2048)


def test_entries_that_repeat_are_added_and_zeros_that_are_stored_are_none() -> None:
    counts = sp.csr_matrix((np.array([1.0, 2.0, 0.0], np.float32), np.array([0, 0, 1]), np.array([0, 3])), shape=(1, 3))
    assert ranked_tokens(counts, np.array([4, 3, 2]), np.ones(3))[0].tolist() == [4]


@pytest.mark.parametrize("n", [0, 1])
def test_few_rows(n: int) -> None:
    assert len(ranked_tokens(sp.csr_matrix((n, 4), dtype=np.float32), np.arange(4) + 2, np.ones(4))) == n


@pytest.mark.parametrize("medians", ["tenths", "one", "many"])
def test_long_rows_end_where_a_plain_sort_ends(medians: str) -> None:
    rng = np.random.default_rng(3)
    counts = sp.csr_matrix(rng.poisson(1.2, (4, 4000)).astype(np.float32))
    tokens = rng.permutation(4000) + 2
    tokens[rng.random(4000) < 0.2] = -1
    median = {"tenths": rng.integers(1, 40, 4000) / 10, "one": np.ones(4000), "many": rng.lognormal(1, 0.6, 4000)}
    total = rng.uniform(1000, 9000, 4)
    for most in (100, 2048, 2300):
        found = ranked_tokens(counts, tokens, median[medians], totals=total, most=most)
        assert [row.tolist() for row in found] == oracle(counts, tokens, median[medians], total, most)


def test_many_rows_are_ranked_as_one_by_one() -> None:
    rng = np.random.default_rng(4)
    counts = sp.csr_matrix(rng.poisson(0.3, (9000, 40)).astype(np.float32))
    tokens, medians = np.arange(40) + 2, rng.choice([0.5, 1.0, 1.5], 40)
    together = ranked_tokens(counts, tokens, medians)
    for i in (0, 4095, 4096, 8191, 8999):
        assert together[i].tolist() == ranked_tokens(counts[i], tokens, medians)[0].tolist()
    total = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel().clip(1)
    assert [row.tolist() for row in together] == oracle(counts, tokens, medians, total, 2048)


@pytest.mark.parametrize("wrong", [np.nan, -1.0, np.inf])
def test_what_is_not_a_count_is_refused(wrong: float) -> None:
    values = np.ones((6, 5), np.float32)
    values[4, 2] = wrong
    with pytest.raises(ValueError, match="Row 4 of the counts holds a value that is negative, NaN or infinite"):
        ranked_tokens(sp.csr_matrix(values), np.arange(5) + 2, np.ones(5))
