"""Ridge regressions of expression on image features: the penalty chosen by patient, and the fixed one of the HEST benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer.statistics.grouped_ridge import grouped_ridge
from spatialwhisperer.statistics.standardize import statistics

if TYPE_CHECKING:
    from collections.abc import Callable

COMPONENTS = 256
"""Principal components of the features of any encoder, so that wide encoders have no more parameters than narrow ones."""

OURS = "ridge, chosen penalty"
"""It predicts left-out patients best; with two training patients left-out sections, and with one section blocks of it."""

FIXED = "ridge, fixed penalty of HEST"


@dataclass(frozen=True)
class Reduction:
    """Standardised features on the principal components of the training rows.

    Attributes
    ----------
    mean, std
        Training statistics, shape (d,).
    axes
        Components, shape (d, k).
    """

    mean: np.ndarray
    std: np.ndarray
    axes: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, n_components: int = COMPONENTS) -> Reduction:
        """Learn from training features (n, d) without NaN; there are at most n - 1 and d components."""
        from sklearn.decomposition import PCA

        mean, std = statistics(features)
        n, d = features.shape
        k = min(n_components, n - 1, d)
        axes = PCA(k, svd_solver="full").fit((features - mean) / std).components_
        return cls(mean, std, np.asarray(axes.T, np.float64))

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Components of features (n, d), float64 (n, k); rows with NaN stay NaN."""
        return np.asarray(((features - self.mean) / self.std) @ self.axes)


def fit_by_patient(x: np.ndarray, y: np.ndarray, units: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Ridge regression whose penalty predicts left-out units best; see :func:`~spatialwhisperer.statistics.grouped_ridge.grouped_ridge`.

    Parameters
    ----------
    x, y
        Components (n, k) and targets (n, g) of the training rows.
    units
        Unit of each row, shape (n,).
    """
    weight = grouped_ridge(x, y, units).weight
    centre, level = x.mean(axis=0), y.mean(axis=0)
    return lambda new: (new - centre) @ weight + level


def fit_fixed(x: np.ndarray, y: np.ndarray, n_genes: int) -> Callable[[np.ndarray], np.ndarray]:
    """Ridge regression with the penalty 100 / (k · genes) of the HEST benchmark (Jaume et al., NeurIPS 2024), without an intercept.

    Components of standardised features have the mean 0, so that the missing intercept shifts predictions and changes no correlation
    over the training rows.

    Parameters
    ----------
    x, y
        Components (n, k) and targets (n, g) of the training rows.
    n_genes
        Number of genes of the benchmark.
    """
    k = x.shape[1]
    weight = np.linalg.solve(x.T @ x + 100 / (k * n_genes) * np.eye(k), x.T @ y)
    return lambda new: new @ weight
