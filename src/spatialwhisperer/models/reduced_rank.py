"""Ridge regression from features to the leading components of expression; arrays only."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

ALPHAS = tuple(10.0**k for k in np.arange(1, 6.1, 0.5))
"""Penalties tried by leave-one-out cross-validation."""

ROWS_FOR_PENALTY = 20_000
"""More rows than this add nothing to the choice of the penalty."""


def reduced_rank_ridge(x: np.ndarray, values: Any, sections: np.ndarray, *, rank: int) -> dict[str, np.ndarray]:
    """Fit ``values ≈ intercept + (x weightᵀ) basis``.

    The basis holds the leading principal components of expression within sections: the noise of single genes stays out,
    and so does what sets sections apart as a whole, which features standardised within sections cannot tell.

    Parameters
    ----------
    x
        Features, shape (m, d).
    values
        Expression, CSR, shape (m, g).
    sections
        Section of each row, shape (m,).
    rank
        Components.

    Returns
    -------
    ``weight`` (r, d), ``basis`` (r, g) and ``intercept`` (g,), float32.
    """
    from sklearn.linear_model import RidgeCV

    y = sp.csr_matrix(values, dtype=np.float64)
    codes = np.unique(sections, return_inverse=True)[1]
    means = np.stack([np.asarray(y[codes == c].mean(axis=0)).ravel() for c in range(codes.max() + 1)])
    basis = _components(y, means, np.bincount(codes), rank)
    target = y @ basis.T - (means @ basis.T)[codes]
    centre = x.mean(axis=0, dtype=np.float64)
    centred = x.astype(np.float64) - centre
    some = slice(None, None, -(-len(x) // ROWS_FOR_PENALTY))
    alpha = float(RidgeCV(alphas=ALPHAS).fit(centred[some], target[some]).alpha_) * len(x) / len(centred[some])
    gram = centred.T @ centred
    weight = np.linalg.solve(gram + alpha * np.eye(len(gram)), centred.T @ target).T
    intercept = np.asarray(y.mean(axis=0)).ravel() - (weight @ centre) @ basis
    return {k: v.astype(np.float32) for k, v in (("weight", weight), ("basis", basis), ("intercept", intercept))}


def _components(y: sp.csr_matrix, means: np.ndarray, sizes: np.ndarray, rank: int) -> np.ndarray:
    """Leading components of expression centred within sections, (r, g), from the g × g covariance."""
    covariance = (y.T @ y).toarray() - (means.T * sizes) @ means
    rank = min(rank, len(covariance))
    from scipy.linalg import eigh

    size = len(covariance)
    vectors = eigh(covariance, subset_by_index=(size - rank, size - 1))[1]
    return np.ascontiguousarray(vectors[:, ::-1].T)
