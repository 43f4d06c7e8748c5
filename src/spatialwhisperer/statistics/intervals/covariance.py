"""Covariances of the rows of a section that are fitted to residuals, and what they look like after a design is taken out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


class Kernel(NamedTuple):
    """How correlation falls with distance: ``exp(-d / range)``, or ``exp(-(d / 2 range)²)`` where it is smooth."""

    smooth: bool
    range: float

    def __call__(self, distance: np.ndarray) -> np.ndarray:
        """Correlation at distances, of which those between sections are infinite."""
        return np.exp(-((distance / (2 * self.range)) ** 2)) if self.smooth else np.exp(-distance / self.range)


@dataclass(frozen=True)
class Covariance:
    """``a I + b K``: the part of single rows, and the part that neighbours have in common."""

    alone: float
    common: float
    kernel: Kernel

    @property
    def variance(self) -> float:
        """Variance of one row."""
        return self.alone + self.common


class Term(NamedTuple):
    """What a covariance matrix looks like after the design is taken out: its mean by lag, its trace, the trace of its square."""

    kernel: Kernel
    by_lag: np.ndarray
    trace: float
    square: float


class Terms:
    """The identity, and each kernel, on some rows; a design is taken out of all of them at once.

    Parameters
    ----------
    kernels
        Kernels, after the identity.
    distance
        Of the rows, shape (n, n).
    lags
        Bin of the distance of each pair of rows, shape (n, n).
    n_lags
        Number of bins; pairs in a bin beyond them are not counted.
    """

    def __init__(self, kernels: Sequence[Kernel], distance: np.ndarray, lags: np.ndarray, n_lags: int) -> None:
        from scipy.sparse import csr_array

        n = len(lags)
        self._kernels = [Kernel(False, 1.0), *kernels]
        self._matrices = np.stack([np.eye(n), *(kernel(distance) for kernel in kernels)])
        self._trace = np.trace(self._matrices, axis1=1, axis2=2)
        self._square = _squares(self._matrices)
        self._by_lag = np.stack([by_lag(lags, n_lags, matrix) for matrix in self._matrices])
        self.counts = by_lag(lags, n_lags)
        row, column = np.nonzero(lags < n_lags)
        at = (lags[row, column] * n + row, column)
        self._pairs = csr_array((np.ones(len(row)), at), shape=(n_lags * n, n))

    def without(self, basis: np.ndarray) -> list[Term]:
        """Each matrix ``A`` as ``M A M``, where M takes out the columns of an orthonormal basis; no such matrix is made."""
        product = self._matrices @ basis
        inner = basis.T @ product
        # M A M = A - H B' - B H'
        half = product - basis @ inner / 2
        flat = half.reshape(len(half), -1)
        sums = self._by_lag - 2 * flat @ (self._pairs @ basis).reshape(len(self.counts), -1).T
        trace = self._trace - 2 * flat @ basis.ravel()
        square = self._square - 2 * _squares(product) + _squares(inner)
        means = sums / self.counts.clip(min=1)
        return [Term(*one) for one in zip(self._kernels, means, trace.tolist(), square.tolist(), strict=True)]


def by_lag(lags: np.ndarray, n_lags: int, values: np.ndarray | None = None) -> np.ndarray:
    """Number of pairs of rows in each of the bins, shape (n_lags,), or the sum of values over them."""
    weights = None if values is None else values.ravel()
    return np.bincount(lags.ravel(), weights=weights, minlength=n_lags + 1)[:n_lags].astype(float)


def _squares(matrices: np.ndarray) -> np.ndarray:
    flat = matrices.reshape(len(matrices), -1)
    return np.einsum("ij,ij->i", flat, flat)
