"""Ridge regression from features to expression, shrunk towards its leading components; arrays only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from collections.abc import Sequence

ALPHAS = tuple(10.0**k for k in np.arange(1, 6.1, 0.5))
"""Penalties tried by leave-one-out cross-validation."""

ROWS_FOR_PENALTY = 5_000
"""More rows than this add nothing to the choice of the penalty."""

SHARE = 0.5
"""Weight of the prediction that is projected on the leading components, against the one that is not."""


def reduced_rank_ridge(
    x: np.ndarray,
    values: Any,
    sections: np.ndarray,
    *,
    rank: int,
    unpaired: Sequence[Any] = (),
) -> dict[str, np.ndarray]:
    """Fit ``values ≈ intercept + x weightᵀ``.

    Ridge regression of every gene, whose prediction is averaged with its projection on the leading principal components of
    expression within sections. What single genes do for themselves is mostly noise; the components carry what genes do
    together, and sections without an image may take part in finding them. The penalty is the one that predicts all genes
    best when a row is left out.

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
    unpaired
        Expression of further sections, each CSR of shape (k, g), for the components alone.

    Returns
    -------
    ``weight`` (g, d) and ``intercept`` (g,), float32.
    """
    from sklearn.linear_model import RidgeCV

    y = sp.csr_matrix(values, dtype=np.float64)
    codes = np.unique(sections, return_inverse=True)[1]
    means = np.stack([_mean(y[codes == c]) for c in range(codes.max() + 1)])
    basis = _components([y[codes == c] for c in range(len(means))] + list(unpaired), rank)
    centre = x.mean(axis=0, dtype=np.float64)
    x = x.astype(np.float64) - centre
    some = slice(None, None, -(-len(x) // ROWS_FOR_PENALTY))
    alpha = float(RidgeCV(alphas=ALPHAS).fit(x[some], y[some].toarray() - means[codes[some]]).alpha_)
    # within sections: what sets whole sections apart is not in features that are standardised within them
    sums = np.stack([x[codes == c].sum(axis=0) for c in range(len(means))])
    cross = (y.T @ x).T - sums.T @ means
    weight = np.linalg.solve(x.T @ x + alpha * np.eye(x.shape[1]), cross)
    weight = (1 - SHARE) * weight + SHARE * (weight @ basis.T) @ basis
    return {
        "weight": np.ascontiguousarray(weight.T, dtype=np.float32),
        "intercept": (_mean(y) - centre @ weight).astype(np.float32),
    }


def _mean(y: Any) -> np.ndarray:
    return np.asarray(y.mean(axis=0), dtype=np.float64).ravel()


def _components(parts: Sequence[Any], rank: int) -> np.ndarray:
    """Leading components of expression, each section centred, (r, g), from the covariance of the genes."""
    from scipy.linalg import eigh

    size = parts[0].shape[1]
    covariance = np.zeros((size, size))
    for part in parts:
        part, mean = sp.csr_matrix(part, dtype=np.float64), _mean(part)
        covariance += (part.T @ part).toarray() - part.shape[0] * np.outer(mean, mean)
    rank = min(rank, size)
    vectors = eigh(covariance, subset_by_index=(size - rank, size - 1))[1]
    return np.ascontiguousarray(vectors[:, ::-1].T)
