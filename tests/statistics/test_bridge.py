from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from spatialwhisperer.statistics import bridge
from spatialwhisperer.statistics.intervals.auroc import auroc

U = 12


def cloud(n: int, seed: int) -> np.ndarray:
    """Unit rows around a direction."""
    return bridge.unit(np.eye(U)[0] + 0.5 * np.random.default_rng(seed).normal(size=(n, U)))


@pytest.fixture(scope="module")
def alike() -> tuple[np.ndarray, np.ndarray]:
    """Rows of two samples of one distribution, and which of them belong to the first."""
    return np.vstack([cloud(400, 0), cloud(400, 1)]), np.arange(800) < 400


@pytest.fixture(scope="module")
def shifted() -> tuple[np.ndarray, np.ndarray]:
    """Rows of two samples, the first of them shifted as a whole."""
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(400, U))
    return np.vstack([rng.normal(size=(400, U)) + 8 * np.eye(U)[3], reference]), np.arange(800) < 400


def test_rows_are_centred_and_scaled_to_unit_length() -> None:
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32) + 3
    for got, mean in ((bridge.centred(x), x.mean(axis=0)), (bridge.centred(x, x[0]), x[0])):
        assert got.dtype == np.float64
        expected = (x - mean).astype(float)
        expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-12)
        assert np.allclose(got, expected, atol=1e-6)
    assert np.array_equal(bridge.unit(np.zeros((1, 3))), np.zeros((1, 3)))


def test_distances_are_those_of_scipy() -> None:
    a, b = cloud(20, 0), cloud(30, 1)
    assert np.allclose(bridge.distances(a, b), cdist(a, b))
    assert np.allclose(bridge.distances(a, a).diagonal(), 0, atol=1e-7)


def test_nearest_rows_and_radii_are_those_of_sklearn() -> None:
    rows, reference = cloud(50, 0), cloud(80, 1)
    near = NearestNeighbors().fit(reference)
    distance, index = near.kneighbors(rows, 1)
    got = bridge.overlap(rows, reference, k=4)
    assert np.array_equal(got.nearest, index[:, 0])
    # of unit rows |a - b|² = 2 (1 - cos)
    assert np.allclose(got.error, distance[:, 0] ** 2 / 2)
    # the nearest row of a reference row is the row itself
    radius = near.kneighbors(reference, 5)[0][:, -1]
    assert np.allclose(bridge.radii(reference, 4), np.minimum(radius, np.quantile(radius, bridge.WIDEST)))


def test_identical_samples_overlap(alike: tuple[np.ndarray, np.ndarray]) -> None:
    x, own = alike
    rows, reference = x[own], x[~own]
    assert bridge.overlap(reference, reference).covered.all()
    assert np.allclose(bridge.overlap(reference, reference).error, 0, atol=1e-12)
    assert bridge.overlap(rows, reference, k=15).covered.mean() > 0.9
    assert bridge.mixing(x, own).mean() == pytest.approx(1, abs=0.06)
    statistic, p = bridge.mmd(x, own)
    assert abs(statistic) < 0.002
    assert p > 0.05


@pytest.mark.parametrize("method", ["logistic", "knn"])
def test_identical_samples_cannot_be_told_apart(alike: tuple[np.ndarray, np.ndarray], method: str) -> None:
    x, own = alike
    scores = bridge.separability(x, own, np.arange(800), method)
    assert auroc(scores, own) == pytest.approx(0.5, abs=0.06)


def test_shifted_samples_are_apart_and_covered_once_they_are_centred(shifted: tuple[np.ndarray, np.ndarray]) -> None:
    x, own = shifted
    rows, reference = x[own], x[~own]
    assert bridge.overlap(rows, reference).covered.mean() == 0
    assert bridge.overlap(rows - rows.mean(0), reference - reference.mean(0), k=15).covered.mean() > 0.8
    assert auroc(bridge.separability(x, own, np.arange(800), "logistic"), own) == 1
    assert bridge.mixing(x, own).mean() == 0
    assert bridge.mmd(x, own)[1] < 0.01


def test_the_discrepancy_is_the_mean_of_kernels() -> None:
    """Written out: mean kernel within each sample, less twice the mean between them."""
    x, own = cloud(11, 0), np.arange(11) < 6
    between = cdist(x, x)
    kernel = np.exp(-(between**2) / (2 * np.median(between[~np.eye(11, dtype=bool)]) ** 2))
    pairs = [(i, j) for i in range(11) for j in range(11) if i != j]
    means = [np.mean([kernel[i, j] for i, j in pairs if (own[i], own[j]) == k]) for k in ((1, 1), (0, 0), (1, 0))]
    statistic, p = bridge.mmd(x, own, n_permutations=20)
    assert statistic == pytest.approx(means[0] + means[1] - 2 * means[2])
    assert 1 / 21 <= p <= 1


def test_two_samples_get_the_same_size() -> None:
    a, b = bridge.balanced(50, 9, 20, 0)
    assert len(a) == len(b) == 9
    assert np.array_equal(b, np.arange(9))
    a, b = bridge.balanced(50, 60, 20, 0)
    assert len(set(a)) == len(set(b)) == 20
    assert (np.diff(a) > 0).all()


def test_what_is_refused(shifted: tuple[np.ndarray, np.ndarray]) -> None:
    x, own = shifted
    with pytest.raises(ValueError, match="'logistic' or 'knn'"):
        bridge.separability(x, own, np.arange(800), "forest")
    with pytest.raises(ValueError, match="two blocks"):
        bridge.separability(x, own, own.astype(int), "knn")
    with pytest.raises(ValueError, match="at least two rows"):
        bridge.overlap(x, x[:1])


def test_distances_to_other_groups() -> None:
    reference = np.array([[0.0, 0], [0, 1], [5, 0], [5, 3]])
    groups = np.array([0, 0, 1, 1])
    assert np.allclose(bridge.to_other_groups(reference, groups), [5, np.sqrt(26), 5, np.sqrt(29)])
    assert np.allclose(bridge.to_other_groups(reference, np.zeros(4)), [1, 1, 3, 3])


def test_an_isolated_reference_row_does_not_cover_half_the_space() -> None:
    reference = np.vstack([np.random.default_rng(0).normal(size=(100, 2)), [[1000, 1000]]])
    assert bridge.radii(reference).max() < 5
    assert not bridge.overlap(np.array([[900.0, 900.0]]), reference).covered.any()
