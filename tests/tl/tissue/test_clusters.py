"""Components, smoothing, k-means and communities on plain arrays."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from spatialwhisperer.tl._tissue import clusters
from spatialwhisperer.tl._tissue.clusters import by_size, components, kmeans, leiden, smoothed


def test_rows_are_mixed_with_the_mean_of_their_neighbours() -> None:
    graph = sp.csr_matrix(np.array([[0, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], float))
    z = np.array([[0.0], [2.0], [4.0], [7.0]])
    assert smoothed(z, graph, 0.5, 1).ravel().tolist() == [1.5, 1, 2, 7]
    assert smoothed(z, graph, 0.5, 2).ravel().tolist() == [1.5, 1.25, 1.75, 7]
    assert smoothed(z, graph, 0.0, 3) is z


def test_clusters_are_numbered_by_size() -> None:
    assert by_size(np.array([5, 2, 2, 9, 9, 9])).tolist() == [2, 1, 1, 0, 0, 0]
    assert by_size(np.array([3, 1])).tolist() == [0, 1]


def test_components_do_not_depend_on_the_seed() -> None:
    x = np.random.default_rng(0).normal(size=(40, 20))
    assert np.array_equal(components(x, 5, 0), components(x, 5, 1))
    assert components(x, 50, 0).shape == (40, 20)
    assert components(x, None, 0).shape == (40, 20)


@pytest.fixture
def blobs() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.repeat([[0.0, 0], [6, 0], [0, 6]], [30, 20, 10], axis=0) + rng.normal(0, 0.5, (60, 2))


@pytest.mark.filterwarnings("error")
def test_constant_values_are_clustered_without_a_warning() -> None:
    z = components(np.ones((30, 60), np.float32), 5, 0)
    assert np.abs(z).max() < 1e-6
    assert len(set(kmeans(np.zeros((30, 5)), 3, n_init=2, random_state=0).tolist())) == 1


def test_k_means_finds_blobs_with_the_largest_first(blobs: np.ndarray) -> None:
    assert kmeans(blobs, 3, n_init=3, random_state=0).tolist() == [0] * 30 + [1] * 20 + [2] * 10


@pytest.mark.slow
def test_leiden_finds_blobs_and_leaves_the_random_state(blobs: np.ndarray) -> None:
    pytest.importorskip("igraph")
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = leiden(blobs, None, 0.0, 3, random_state=0)
    assert first.tolist() == [0] * 30 + [1] * 20 + [2] * 10
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


@pytest.mark.slow
def test_leiden_follows_the_neighbours_on_the_tissue() -> None:
    """Values without structure, and a tissue of two parts."""
    pytest.importorskip("igraph")
    z = np.random.default_rng(0).normal(size=(40, 3))
    graph = sp.block_diag([np.ones((25, 25)), np.ones((15, 15))], format="csr")
    assert leiden(z, graph, 1.0, 2, random_state=0).tolist() == [0] * 25 + [1] * 15


def test_a_number_that_bisection_misses_is_looked_for_around_where_it_ended() -> None:
    asked: list[float] = []

    def communities(resolution: float) -> np.ndarray:
        """Three up to a resolution of 1, then five, and four in between for one small range alone."""
        asked.append(resolution)
        n = 4 if 0.9855 < resolution < 0.9905 else 3 if resolution < 1 else 5
        return np.arange(20) % n

    assert clusters.closest_in_number(4, communities).max() + 1 == 4
    assert asked[-1] == pytest.approx(0.99, abs=0.001)
    # there are no two: the closest number is given, after all resolutions were tried
    asked.clear()
    assert clusters.closest_in_number(2, communities).max() + 1 == 3
    assert len(asked) > 16
