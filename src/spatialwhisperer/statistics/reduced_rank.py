"""Ridge regression from features to expression, shrunk towards the leading components of expression."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from spatialwhisperer.statistics.grouped_ridge import Moments, ridge_of_moments
from spatialwhisperer.statistics.left_out import left_out_units

if TYPE_CHECKING:
    from collections.abc import Sequence

SHRINKAGE = 0.5
"""Weight of the prediction that is projected on the leading components; the prediction itself has the rest."""


def reduced_rank_ridge(
    x: np.ndarray,
    values: Any,
    sections: np.ndarray,
    *,
    rank: int,
    units: np.ndarray | None = None,
    unpaired: Sequence[Any] = (),
) -> dict[str, np.ndarray]:
    """Fit ``values ≈ intercept + x weightᵀ``.

    Every gene is fitted by ridge regression within sections. The prediction is then averaged with its projection on the leading principal
    components of expression: variation of single genes is mostly noise, while the components describe how genes vary together.
    Sections without an image can help to estimate the components. All genes have the same penalty, the one that predicts units of rows
    best that are left out.

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
    units
        Unit (patient, section or block) of each row, shape (m,), that is left out together; ``None`` takes the sections, or blocks of
        rows where there is one section.
    unpaired
        Expression of further sections, each CSR of shape (k, g), used for the components only.

    Returns
    -------
    ``weight`` (g, d) and ``intercept`` (g,), float32.
    """
    y = sp.csr_matrix(values, dtype=np.float64)
    codes = np.unique(sections, return_inverse=True)[1]
    means = np.stack([_mean(y[codes == c]) for c in range(codes.max() + 1)])
    basis = _components([y[codes == c] for c in range(len(means))] + list(unpaired), rank)
    centre = x.mean(axis=0, dtype=np.float64)
    x = x.astype(np.float64) - centre
    if units is None:
        units = left_out_units(codes, None, None)
    weight = ridge_of_moments(partial(_within_sections, x, y, codes, means), units).weight
    weight = (1 - SHRINKAGE) * weight + SHRINKAGE * (weight @ basis.T) @ basis
    return {
        "weight": np.ascontiguousarray(weight.T, dtype=np.float32),
        "intercept": (_mean(y) - centre @ weight).astype(np.float32),
    }


def _within_sections(x: np.ndarray, y: Any, codes: np.ndarray, means: np.ndarray, rows: np.ndarray) -> Moments:
    """Moments of some rows after the mean expression of the section of each is subtracted.

    Features that are standardised within sections cannot predict differences between sections.
    """
    x, y, codes = x[rows], y[rows], codes[rows]
    of_section = sp.csr_matrix((np.ones(len(rows)), codes, np.arange(len(rows) + 1)), shape=(len(rows), len(means))).T
    counts = np.asarray(of_section.sum(axis=1)).ravel()
    totals = (of_section @ y).toarray()
    shift = counts[:, None] * means
    xy = (y.T @ x).T - (of_section @ x).T @ means
    yy = float(np.square(y.data).sum() - 2 * (totals * means).sum() + (shift * means).sum())
    return Moments(len(rows), x.sum(axis=0), totals.sum(axis=0) - shift.sum(axis=0), x.T @ x, xy, yy)


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
