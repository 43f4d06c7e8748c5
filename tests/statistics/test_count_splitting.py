from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from spatialwhisperer.statistics.count_splitting import halves, reliability


def test_halves_add_up_and_hold_whole_counts_of_about_half():
    counts = sp.csr_matrix(np.random.default_rng(0).poisson(3.0, (400, 50)).astype(np.int32))
    one, other = halves(counts, np.random.default_rng(1))
    np.testing.assert_array_equal((one + other).toarray(), counts.toarray())
    for half in (one, other):
        assert half.dtype == np.float32
        assert (half.data >= 0).all()
        assert (half.data == np.rint(half.data)).all()
        assert half.sum() == pytest.approx(counts.sum() / 2, rel=0.02)
    # each count is split for itself
    assert (one.toarray() != other.toarray()).mean() > 0.5


def test_the_ceiling_is_the_correlation_of_expectation_and_counts():
    """Gamma rates of variance 4 and Poisson noise of mean 2: r(rate, count) = sqrt(4 / (4 + 2))."""
    rng = np.random.default_rng(2)
    rate = rng.gamma(1.0, 2.0, 200_000)
    counts = sp.csr_matrix(rng.poisson(rate)[:, None])
    one, other = (half.toarray().ravel() for half in halves(counts, rng))
    found = np.sqrt(reliability(np.corrcoef(one, other)[0, 1]))
    assert found == pytest.approx(np.sqrt(4 / 6), abs=0.01)
    assert found == pytest.approx(np.corrcoef(rate, counts.toarray().ravel())[0, 1], abs=0.01)
