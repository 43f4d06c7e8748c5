"""Ridge regression from features to expression, shrunk towards the leading components of expression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from collections.abc import Sequence

ALPHAS = tuple(10.0**k for k in np.arange(1, 6.1, 0.5))
"""Penalties to choose from by leave-one-out cross-validation."""

ROWS_FOR_PENALTY = 5_000
"""Most rows on which the penalty is chosen; more rows hardly change the choice."""

SHRINKAGE = 0.5
"""Weight of the prediction that is projected on the leading components; the prediction itself has the rest."""


def reduced_rank_ridge(
    x: np.ndarray,
    values: Any,
    sections: np.ndarray,
    *,
    rank: int,
    unpaired: Sequence[Any] = (),
) -> dict[str, np.ndarray]:
    """Fit ``values ≈ intercept + x weightᵀ``.

    Every gene is fitted by ridge regression within sections. The prediction is then averaged with its projection on the leading principal
    components of expression: variation of single genes is mostly noise, while the components describe how genes vary together.
    Sections without an image can help to estimate the components. All genes have the same penalty, chosen by leave-one-out
    cross-validation.

    Parameters
    ----------
    x
        Features, shape (m, d).
    values
        Expression, CSR, shape (m, g).
    sections
        Section of each row, shape (m,).
    rank
        Number of components.
    unpaired
        Expression of further sections, each CSR of shape (k, g), used for the components only.

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
    # within sections: features that are standardised within sections cannot predict differences between sections
    sums = np.stack([x[codes == c].sum(axis=0) for c in range(len(means))])
    cross = (y.T @ x).T - sums.T @ means
    weight = np.linalg.solve(x.T @ x + alpha * np.eye(x.shape[1]), cross)
    weight = (1 - SHRINKAGE) * weight + SHRINKAGE * (weight @ basis.T) @ basis
    return {
        "weight": np.ascontiguousarray(weight.T, dtype=np.float32),
        "intercept": (_mean(y) - centre @ weight).astype(np.float32),
    }


def _mean(y: Any) -> np.ndarray:
    return np.asarray(y.mean(axis=0), dtype=np.float64).ravel()


def _components(parts: Sequence[Any], rank: int) -> np.ndarray:
    """Leading principal components (r, g) of expression that is centred within each section, from the covariance of the genes."""
    from scipy.linalg import eigh

    size = parts[0].shape[1]
    covariance = np.zeros((size, size))
    for part in parts:
        part, mean = sp.csr_matrix(part, dtype=np.float64), _mean(part)
        covariance += (part.T @ part).toarray() - part.shape[0] * np.outer(mean, mean)
    rank = min(rank, size)
    vectors = eigh(covariance, subset_by_index=(size - rank, size - 1))[1]
    return np.ascontiguousarray(vectors[:, ::-1].T)
