"""Whether predicted expression has the structure of the measured one: in space, between genes, and over sets of genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REACH = 1.5
"""Rows within this many pitches are neighbours: six in a hexagonal array, eight in a square one, without a choice among equals."""

_LEAST = 3


def neighbour_weights(positions: np.ndarray) -> sp.csr_matrix:
    """Weights of the neighbours of each row, each row of weights with the sum 1.

    Neighbours lie within `REACH` times the median distance of a row to its nearest one. A row without any has its nearest row.

    Parameters
    ----------
    positions
        Finite positions of the rows of one section in any unit, shape (n, 2), n at least 2.

    Returns
    -------
    CSR float64 of shape (n, n), the diagonal 0.
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(positions)
    distance, nearest = tree.query(positions, k=2)
    # rows at one position are each other's neighbours, and have no pitch
    apart = distance[:, 1][distance[:, 1] > 0]
    reach = REACH * float(np.median(apart)) if len(apart) else 0.0
    pairs = tree.query_pairs(reach, output_type="ndarray")
    n = len(positions)
    graph = sp.coo_matrix((np.ones(len(pairs)), pairs.T), shape=(n, n)).tocsr()
    graph = (graph + graph.T).tolil()
    for row in np.flatnonzero(graph.tocsr().getnnz(axis=1) == 0):
        graph[row, next(int(i) for i in nearest[row] if i != row)] = 1.0
    graph = graph.tocsr()
    return sp.csr_matrix(sp.diags(1 / np.asarray(graph.sum(axis=1)).ravel()) @ graph)


def morans_i(values: np.ndarray, weights: sp.csr_matrix) -> np.ndarray:
    """Moran's I of each gene: how alike neighbours are.

    ``I = (n / W) Σ_ij w_ij z_i z_j / Σ_i z_i²``, with z the values less their mean and W the sum of the weights (Moran 1950).

    Parameters
    ----------
    values
        Shape (n, g).
    weights
        Shape (n, n); see `neighbour_weights`.

    Returns
    -------
    float64 of shape (g,); NaN for a gene that is constant.

    Examples
    --------
    >>> import numpy as np
    >>> import scipy.sparse as sp
    >>> ring = sp.csr_matrix(np.roll(np.eye(4), 1, axis=1) + np.roll(np.eye(4), -1, axis=1))
    >>> morans_i(np.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]), ring).tolist()
    [-1.0, 0.0]
    """
    z = np.asarray(values, np.float64)
    # a sum of equal numbers is rounded, and the mean would differ from them
    flat = np.ptp(z, axis=0) == 0
    z = z - z.mean(axis=0)
    square = np.square(z).sum(axis=0)
    own = (z * (weights @ z)).sum(axis=0) * (len(z) / weights.sum())
    return np.where(flat, np.nan, own / np.where(flat, 1.0, square))


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson correlation of two arrays of one shape, such as Moran's I of genes; NaN with fewer than three places that have both."""
    known = np.isfinite(one) & np.isfinite(other)
    if known.sum() < _LEAST or np.ptp(one[known]) == 0 or np.ptp(other[known]) == 0:
        return np.nan
    return float(np.corrcoef(one[known], other[known])[0, 1])


def gene_gene_agreement(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Pearson correlation of the two gene × gene correlation matrices, over the pairs of genes above the diagonal.

    Parameters
    ----------
    truth, predicted
        Measured and predicted values, shape (n, g). Genes that are constant in either are left out.

    Returns
    -------
    The correlation; NaN where fewer than three pairs of genes are left.
    """
    keep = (np.ptp(truth, axis=0) > 0) & (np.ptp(predicted, axis=0) > 0)
    if keep.sum() < _LEAST:
        return np.nan
    above = np.triu_indices(int(keep.sum()), k=1)
    one, other = (np.corrcoef(np.asarray(x, np.float64)[:, keep], rowvar=False)[above] for x in (truth, predicted))
    return correlation(one, other)


def set_scores(values: np.ndarray, genes: Sequence[str], sets: Mapping[str, Sequence[str]], least: int) -> np.ndarray:
    """Score of each gene set in each row: mean of the z-scores of its genes.

    Parameters
    ----------
    values
        Values of the rows of one section, shape (n, g). A gene that is constant has z-scores of 0.
    genes
        Names of the genes.
    sets
        Genes of each set.
    least
        Sets with fewer of their genes here have NaN.

    Returns
    -------
    float64 of shape (n, number of sets).
    """
    x = np.asarray(values, np.float64)
    flat = np.ptp(x, axis=0) == 0
    z = np.where(flat, 0.0, (x - x.mean(axis=0)) / np.where(flat, 1.0, x.std(axis=0)))
    where = {name: i for i, name in enumerate(genes)}
    out = np.full((len(x), len(sets)), np.nan)
    for column, members in enumerate(sets.values()):
        inside = sorted({where[g] for g in members if g in where})
        if len(inside) >= least:
            out[:, column] = z[:, inside].mean(axis=1)
    return out
