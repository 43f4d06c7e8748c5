"""The compiled loops against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from spatialwhisperer.statistics.expression import moment_kernels as kernels


@pytest.fixture(scope="module", params=[3, 1100])
def pair(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Sparse counts and a prediction, float32; the wider one is cut into several strips of columns."""
    rng = np.random.default_rng(0)
    truth = (rng.poisson(0.6, (17, request.param)) * rng.normal(size=(17, request.param))).astype(np.float32)
    return truth, rng.normal(size=truth.shape).astype(np.float32)


def test_column_sums_are_those_of_numpy(pair: tuple[np.ndarray, np.ndarray]) -> None:
    total, low, high = kernels.column_sums(pair[1])
    np.testing.assert_allclose(total, pair[1].astype(float).sum(axis=0))
    assert np.array_equal(low, pair[1].min(axis=0))
    assert np.array_equal(high, pair[1].max(axis=0))


def test_sparse_sums_are_those_of_the_dense_matrix(pair: tuple[np.ndarray, np.ndarray]) -> None:
    """Zeros that are not stored count for the minimum and the maximum."""
    truth = sp.csr_matrix(pair[0])
    sparse = kernels.sparse_sums(truth.data, truth.indices, *truth.shape)
    for got, expected in zip(sparse, kernels.column_sums(pair[0]), strict=True):
        np.testing.assert_allclose(got, expected)


def test_centred_sums_are_those_of_numpy_dense_and_sparse(pair: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = pair
    t, p = (x.astype(float) for x in pair)
    t, p = t - t.mean(axis=0), p - p.mean(axis=0)
    expected = (t * t).sum(axis=0), (p * p).sum(axis=0), (t * p).sum(axis=0)
    means = truth.astype(float).mean(axis=0), predicted.astype(float).mean(axis=0)
    matrix = sp.csr_matrix(truth)
    whole = np.empty((9, truth.shape[1]))
    for first in range(0, truth.shape[1], 200):
        kernels.dense_moments(truth, predicted, first, min(first + 200, truth.shape[1]), whole)
    for got in (
        (whole[3], whole[7], whole[8]),
        kernels.centred_sparse(matrix.data, matrix.indices, matrix.indptr, means[0], predicted, means[1]),
    ):
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)


def test_sums_of_float32_are_taken_in_float64() -> None:
    """A million values of 0.1 would add up to 100,958 in float32."""
    values = np.full((1_000_000, 1), 0.1, np.float32)
    assert kernels.column_sums(values)[0][0] == pytest.approx(values.astype(float).sum(), rel=1e-9)


@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 200])
def test_blocks_of_rows_are_put_together_exactly(rows: int) -> None:
    """Values far from zero, whose sums of squares would cancel, in float32 and float64."""
    rng = np.random.default_rng(rows)
    truth, predicted = 1e6 + rng.normal(size=(rows, 7)), (rng.normal(size=(rows, 7)) - 300).astype(np.float32)
    out = np.empty((9, 7))
    kernels.dense_moments(truth, predicted, 0, 7, out)
    for k, x in ((0, truth), (4, predicted.astype(float))):
        centred = x - x.mean(axis=0)
        np.testing.assert_allclose(out[k], x.sum(axis=0), rtol=1e-12)
        np.testing.assert_array_equal(out[k + 1 : k + 3], [x.min(axis=0), x.max(axis=0)])
        np.testing.assert_allclose(out[k + 3], np.square(centred).sum(axis=0), rtol=1e-8, atol=1e-9)
    product = ((truth - truth.mean(axis=0)) * (predicted - predicted.astype(float).mean(axis=0))).sum(axis=0)
    np.testing.assert_allclose(out[8], product, rtol=1e-7, atol=1e-6)
