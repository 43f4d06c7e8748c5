from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from spatialwhisperer.statistics.intervals.covariance import Kernel, Terms
from spatialwhisperer.statistics.intervals.spatial import without

KERNELS = [Kernel(True, 1.5), Kernel(False, 4.0)]


def test_a_basis_is_taken_out_of_all_matrices_as_of_each_alone() -> None:
    rng = np.random.default_rng(0)
    distance = cdist(*[rng.uniform(0, 9, (40, 2))] * 2)
    distance[:15, 15:] = distance[15:, :15] = np.inf  # two sections
    lags = np.minimum(distance, 5).astype(int)
    basis = np.linalg.qr(rng.normal(size=(40, 3)))[0]
    found = Terms(KERNELS, distance, lags, 5).without(basis)
    for term, matrix in zip(found, [np.eye(40), *(kernel(distance) for kernel in KERNELS)], strict=True):
        left = without(matrix, basis)
        np.testing.assert_allclose(term.by_lag, [left[lags == lag].mean() for lag in range(5)], atol=1e-12)
        assert term.trace == pytest.approx(np.trace(left))
        assert term.square == pytest.approx((left**2).sum())
    assert [term.kernel for term in found[1:]] == KERNELS
