"""Clustering of plain arrays: components, k-means, communities."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from spatialwhisperer._messages import require
from spatialwhisperer._random import isolated_rng

if TYPE_CHECKING:
    from collections.abc import Callable

METHODS = ("kmeans", "leiden")

_EXACT_UP_TO = 2000
_STEPS, _HIGHEST = 16, 4.0
_AROUND = (0.99, 1.01, 0.97, 1.03, 0.94, 1.06, 0.9, 1.1, 0.85, 1.15, 0.75, 1.25)


def components(values: np.ndarray, n_pcs: int | None, random_state: int) -> np.ndarray:
    """Principal components, at most as many as the values allow; the values themselves for ``None``."""
    if n_pcs is None or values.shape[1] <= n_pcs:
        return values - values.mean(axis=0)
    from sklearn.decomposition import PCA

    exact = min(values.shape) <= _EXACT_UP_TO
    n = min(n_pcs, *values.shape)
    with warnings.catch_warnings():
        # of constant values there is no variance to explain
        warnings.filterwarnings("ignore", "invalid value encountered", RuntimeWarning)
        return PCA(n, svd_solver="full" if exact else "randomized", random_state=random_state).fit_transform(values)


def smoothed(z: np.ndarray, graph: Any, weight: float, n_rings: int) -> np.ndarray:
    """Mix rows with the mean of their neighbours, ``n_rings`` times; a row without neighbours keeps its own."""
    if graph is None or weight == 0:
        return z
    mean_of, alone = _row_means(graph)
    for _ in range(n_rings):
        z = np.where(alone[:, None], z, (1 - weight) * z + weight * (mean_of @ z))
    return z


def kmeans(z: np.ndarray, n_clusters: int, *, n_init: int, random_state: int) -> np.ndarray:
    """K-means with k-means++ starts, largest cluster first."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # the caller says that there are fewer clusters
        warnings.simplefilter("ignore", ConvergenceWarning)
        return by_size(KMeans(n_clusters, init="k-means++", n_init=n_init, random_state=random_state).fit_predict(z))


def leiden(z: np.ndarray, graph: Any, weight: float, n_clusters: int, *, random_state: int) -> np.ndarray:
    """Leiden communities at the resolution whose number comes closest to the one asked for, largest first.

    The number of communities mostly grows with the resolution, so the resolution is found by bisection. It does not always, so where
    bisection misses the number, resolutions around the one where it ended are tried too. Of equally close numbers the first that was
    found is kept.
    """
    require("igraph", extra="leiden")
    import anndata as ad
    import scanpy as sc

    adata = ad.AnnData(z.astype(np.float32))
    with isolated_rng(random_state):
        sc.pp.neighbors(adata, n_neighbors=min(15, len(z) - 1), use_rep="X", random_state=random_state)
        joint = sp.csr_matrix(adata.obsp["connectivities"], dtype=np.float64)
        if graph is not None and weight > 0:
            joint = (1 - weight) * _symmetric(joint) + weight * _symmetric(graph)

        def communities(resolution: float) -> np.ndarray:
            sc.tl.leiden(
                adata,
                resolution,
                adjacency=joint,
                flavor="igraph",
                directed=False,
                n_iterations=2,
                random_state=random_state,
            )
            return adata.obs["leiden"].astype(int).to_numpy()

        best = closest_in_number(n_clusters, communities)
    return by_size(best)


def closest_in_number(n: int, communities: Callable[[float], np.ndarray]) -> np.ndarray:
    """Communities at the resolution whose number comes closest to ``n``, of those that bisection and a look around its end try."""
    low, high = 0.0, _HIGHEST
    tried: list[np.ndarray] = []
    for _ in range(_STEPS):
        middle = (low + high) / 2
        tried.append(communities(middle))
        found = int(tried[-1].max()) + 1
        if found == n:
            return tried[-1]
        low, high = (middle, high) if found < n else (low, middle)
    for factor in _AROUND:
        tried.append(communities((low + high) / 2 * factor))
        if tried[-1].max() + 1 == n:
            return tried[-1]
    # of equally close numbers the first
    return min(tried, key=lambda codes: abs(int(codes.max()) + 1 - n))


def by_size(codes: np.ndarray) -> np.ndarray:
    """Number clusters from the largest to the smallest; of equal ones the first that occurs comes first."""
    names, first, inverse, size = np.unique(codes, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(names), int)
    rank[np.lexsort((first, -size))] = np.arange(len(names))
    return rank[inverse]


def _row_means(graph: Any) -> tuple[sp.csr_matrix, np.ndarray]:
    total = np.asarray(graph.sum(axis=1)).ravel()
    alone = total == 0
    return sp.diags_array(1 / np.where(alone, 1, total)) @ graph, alone


def _symmetric(graph: sp.csr_matrix) -> sp.csr_matrix:
    """Scale a graph so that its rows add up to about one and it stays symmetric."""
    total = np.asarray(graph.sum(axis=1)).ravel()
    root = sp.diags_array(1 / np.sqrt(np.where(total > 0, total, 1)))
    return sp.csr_matrix(root @ graph @ root)
