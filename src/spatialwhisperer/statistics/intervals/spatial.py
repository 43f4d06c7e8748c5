"""Standard errors of estimates from neighbouring spots, which are not independent.

The residuals of an estimate are taken to have the covariance ``a I + b K``, where K falls with the distance of two spots of a section.
Its shape, its range and the two variances are those that fit the products of residuals of all pairs of spots best, by distance. Taking
off a mean makes residuals look less correlated than they are; the fit is to what remains of the covariance after that, so that long
ranges are not underestimated.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from spatialwhisperer.statistics.intervals.auroc import auroc, influence, placements
from spatialwhisperer.statistics.intervals.covariance import Covariance, Kernel, Term, Terms, by_lag
from spatialwhisperer.statistics.intervals.uncertainty import Uncertainty

SAMPLE = 700
"""Rows from which a covariance is fitted; of more rows a random sample is drawn."""

_SHORTEST = 0.7
_RANGES = 8
_CHUNK = 512


class SpatialErrors:
    """Uncertainty of estimates from the rows of some sections.

    Parameters
    ----------
    positions
        Position of each row, shape (n, 2), in any unit. Where it is ``None`` or not finite, rows are taken to be independent.
    sections
        Section of each row, shape (n,); rows of different sections are taken to be independent.
    random_state
        Seed of the sample of rows that covariances are fitted on.

    Attributes
    ----------
    independent
        Whether rows are taken to be independent, for want of positions.
    sample
        Positions of the rows that covariances are fitted on.

    Examples
    --------
    >>> import numpy as np
    >>> from spatialwhisperer.statistics.intervals.spatial import SpatialErrors
    >>> xy = np.argwhere(np.ones((15, 15)))
    >>> smooth = np.sin(xy[:, 0] / 2) + np.random.default_rng(0).normal(size=225) / 9
    >>> alone = np.random.default_rng(0).permutation(smooth)
    >>> errors = SpatialErrors(xy, np.zeros(225))
    >>> bool(errors.mean(smooth).half_width > 3 * errors.mean(alone).half_width)
    True
    """

    def __init__(self, positions: np.ndarray | None, sections: np.ndarray, random_state: int = 0) -> None:
        n = len(sections)
        self._codes = pd.factorize(np.asarray(sections).astype(str))[0]
        self.independent = positions is None or not np.isfinite(positions).all()
        self._xy = np.zeros((n, 2)) if positions is None or self.independent else self._in_spots(positions)
        rng = np.random.default_rng(random_state)
        self.sample = np.sort(rng.choice(n, SAMPLE, replace=False)) if n > SAMPLE else np.arange(n)
        self._n_lags, self._lags = 0, np.zeros((0, 0), int)
        self._kernels: list[Kernel] = []
        if n and not self.independent:
            self._set_lags()
        self._designs: dict[bytes, list[Term]] = {}
        self._last: tuple[np.ndarray, Terms] | None = None

    def _in_spots(self, positions: np.ndarray) -> np.ndarray:
        """Positions in units of the median distance to the nearest row of the section."""
        from scipy.spatial import cKDTree

        out = np.asarray(positions, np.float64).copy()
        for code in np.unique(self._codes):
            inside = self._codes == code
            if inside.sum() > 1:
                near = cKDTree(out[inside]).query(out[inside], k=2)[0][:, 1]
                out[inside] /= np.median(near[near > 0]) if (near > 0).any() else 1.0
        return out

    def _set_lags(self) -> None:
        distance = self._distance(self.sample, self.sample)
        within = np.isfinite(distance)
        extent = distance[within].max()
        edges = np.r_[0, 0.5 + np.arange(max(1, int(extent / 2)))]
        # pairs that are further apart than half of the extent, or in other sections, fall into a last bin that is not used
        self._n_lags = len(edges)
        self._lags = np.where(within, np.minimum(np.searchsorted(edges, distance), len(edges)), len(edges))
        ranges = np.geomspace(_SHORTEST, max(extent / 3, 2 * _SHORTEST), _RANGES)
        self._kernels = [Kernel(smooth, float(r)) for smooth in (True, False) for r in ranges]

    def _distance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        from scipy.spatial.distance import cdist

        return np.where(self._codes[a][:, None] == self._codes[b], cdist(self._xy[a], self._xy[b]), np.inf)

    # --------------------------------------------------------------------------------------------- estimates

    def mean(self, values: np.ndarray) -> Uncertainty:
        """Uncertainty of the mean of the values, shape (n,); rows with NaN are left out."""
        known = np.isfinite(values)
        if known.sum() < 2:
            return Uncertainty(0.0, 1.0, float(known.sum()))
        residual = np.where(known, values - values[known].mean(), 0.0)
        return self.contrast(residual, known / known.sum(), np.where(known, 0, -1))

    def fraction(self, inside: np.ndarray) -> Uncertainty:
        """Uncertainty of a fraction of the rows, Boolean of shape (n,). Its parts are the patches of the rarer kind of rows."""
        inside = np.asarray(inside, bool)
        n = len(inside)
        if not 0 < inside.sum() < n:
            return Uncertainty(0.0, 1.0, 0.0)
        kinds = np.stack([inside, ~inside], axis=1)
        return self.contrast(inside - inside.mean(), np.full(n, 1 / n), np.zeros(n, int), kinds)

    def auroc(
        self,
        scores: np.ndarray,
        present: np.ndarray,
        other: np.ndarray | None = None,
        used: np.ndarray | None = None,
    ) -> Uncertainty:
        """Uncertainty of an AUROC, from the placements of present and absent rows (:func:`~.auroc.placements`).

        Parameters
        ----------
        scores, present
            As in :func:`~.auroc.auroc`.
        other
            Other scores of the same rows; the uncertainty is then that of the difference of both AUROCs, which is paired.
        used
            Which rows are compared, Boolean of shape (n,); ``None`` takes all.
        """
        used = np.ones(len(present), bool) if used is None else used
        present = present & used
        if not 0 < present.sum() < used.sum():
            return Uncertainty(0.0, 1.0, 0.0)
        residual = np.zeros(len(present))
        residual[used] = _errors(scores[used], present[used])
        if other is not None:
            residual[used] -= _errors(other[used], present[used])
        # the score of an absent row counts the other way round
        sign = np.where(present, 1.0, -1.0)
        weights = used * np.where(present, 1 / present.sum(), 1 / (used.sum() - present.sum()))
        found = self.contrast(sign * residual, sign * weights, np.where(used, present, -1))
        # classes that are told apart without an error leave no residual to count patches by
        return found if found.parts else Uncertainty(0.0, 1.0, self.fraction(present).parts)

    def contrast(
        self, residual: np.ndarray, weights: np.ndarray, strata: np.ndarray, kinds: np.ndarray | None = None
    ) -> Uncertainty:
        """Uncertainty of an estimate that differs from the truth by a weighted sum of errors.

        Parameters
        ----------
        residual
            Error of each row, minus its mean over the stratum, shape (n,).
        weights
            Weight of each row, shape (n,).
        strata
            Code of the stratum of each row, shape (n,); rows with -1 are not used. Each stratum has a variance of its own.
        kinds
            Kinds of rows that the estimate needs several patches of, Boolean of shape (n, k); ``None`` takes the strata.

        Returns
        -------
        The uncertainty. Its parts are the independent patches of the kind that has fewest: as many independent rows would
        determine the mean of the kind as well.
        """
        residual, weights = np.asarray(residual, np.float64).copy(), np.asarray(weights, np.float64).copy()
        inside = strata[:, None] == np.unique(strata[strata >= 0])
        for one in inside.T:
            sd = residual[one].std()
            weights[one] *= sd
            residual[one] /= sd if sd > 1e-12 else np.inf
        found, df = self._covariance(residual, inside / np.sqrt(inside.sum(axis=0)))
        kinds = inside if kinds is None else kinds
        columns = np.column_stack([weights, kinds])
        total, *of_kinds = found.alone * (columns**2).sum(axis=0) + found.common * self._quadratic(
            found.kernel, columns
        )
        sizes = kinds.sum(axis=0)
        parts = min(float(k**2 * found.variance / v) if v > 0 else 0.0 for k, v in zip(sizes, of_kinds, strict=True))
        # a mean and a range are estimated from the patches
        return Uncertainty(float(total), max(min(df / 2, parts - 2), 1.0), parts)

    def macro_auroc(self, scores: np.ndarray, codes: np.ndarray, classes: np.ndarray) -> Uncertainty:
        """Uncertainty of the mean AUROC of several classes.

        It is the larger of what influence values give, which know how the AUROCs of classes go together, and of what independent
        AUROCs give, which know how few the patches of a class are.

        Parameters
        ----------
        scores
            Shape (n, c).
        codes
            Class of each row, shape (n,).
        classes
            Which classes have an AUROC.
        """
        each = [self.auroc(scores[:, c], codes == c) for c in classes]
        if not each:
            return Uncertainty(0.0, 1.0, 0.0)
        together = self.influence(np.mean([influence(scores[:, c], codes == c) for c in classes], axis=0))
        alone = sum(one.variance for one in each) / len(each) ** 2
        return Uncertainty(max(together.variance, alone), together.df, together.parts)

    def labels(self, values: np.ndarray, codes: np.ndarray) -> Uncertainty:
        """Uncertainty of a statistic of labels with influence values, shape (n,), such as a kappa.

        Its parts are the patches that a label has on average.

        Parameters
        ----------
        values
            Influence values, shape (n,), with mean 0.
        codes
            Label of each row, shape (n,).
        """
        found = self.influence(values)
        patches = [self.fraction(codes == c).parts for c in np.unique(codes)]
        parts = float(np.mean(patches))
        return Uncertainty(found.variance, max(min(found.df, parts - 1), 1.0), parts)

    def influence(self, values: np.ndarray) -> Uncertainty:
        """Uncertainty of a statistic from its influence values, shape (n,), whose mean over the rows is 0."""
        n = len(values)
        return self.contrast(values, np.full(n, 1 / n), np.zeros(n, int))

    def _quadratic(self, kernel: Kernel, weights: np.ndarray) -> np.ndarray:
        """``w' K w`` over all rows, for each column of weights."""
        if self.independent:
            return (weights**2).sum(axis=0)
        total = np.zeros(weights.shape[1])
        for code in np.unique(self._codes):
            rows = np.flatnonzero((self._codes == code) & (weights != 0).any(axis=1))
            for start in range(0, len(rows), _CHUNK):
                part = rows[start : start + _CHUNK]
                total += (weights[part] * (kernel(self._distance(part, rows)) @ weights[rows])).sum(axis=0)
        return total

    # --------------------------------------------------------------------------------------------- covariance

    def covariance_matrix(self, residual: np.ndarray, basis: np.ndarray) -> np.ndarray:
        """Covariance ``M C M`` of residuals over the rows of the sample, where M takes out the basis.

        Parameters
        ----------
        residual
            Shape (n,).
        basis
            Orthonormal columns that were taken out, shape (n, k); rows of zeros are not used.
        """
        found, _ = self._covariance(np.asarray(residual, np.float64), basis)
        rows = self._used(basis)
        shape = found.alone * np.eye(len(rows))
        if found.common:
            shape += found.common * found.kernel(self._distance(rows, rows))
        return without(shape, _orthonormal(basis[rows]))

    def _used(self, basis: np.ndarray) -> np.ndarray:
        return self.sample[np.abs(basis[self.sample]).sum(axis=1) > 0]

    def _covariance(self, residual: np.ndarray, basis: np.ndarray) -> tuple[Covariance, float]:
        """Covariance that fits residuals best, and the degrees of freedom of their sum of squares."""
        from scipy.optimize import nnls

        rows = self._used(basis)
        e = residual[rows]
        if self.independent:
            df = max(len(rows) - basis.shape[1], 1)
            return Covariance(float(e @ e) / df, 0.0, Kernel(False, _SHORTEST)), df
        single, *terms = self._terms(rows, basis)
        lags = self._lags_of(rows)
        counts = self._on(rows).counts
        weight = np.sqrt(counts)
        products = by_lag(lags, self._n_lags, np.outer(e, e)) / counts.clip(min=1)
        fits = []
        for term in terms:
            design = np.stack([single.by_lag, term.by_lag], axis=1)
            parts, misfit = nnls(design * weight[:, None], products * weight)
            fits.append((misfit, parts, term))
        _, (alone, common), term = min(fits, key=lambda fit: fit[0])
        trace = alone * single.trace + common * term.trace
        square = alone**2 * single.square + 2 * alone * common * term.trace + common**2 * term.square
        return Covariance(float(alone), float(common), term.kernel), float(trace**2 / square) if square else 1.0

    def _terms(self, rows: np.ndarray, basis: np.ndarray) -> list[Term]:
        """The identity and every kernel on some rows, after the basis is taken out; kept for the next estimate."""
        key = basis[self.sample].tobytes()
        if key not in self._designs:
            self._designs[key] = self._on(rows).without(_orthonormal(basis[rows]))
        return self._designs[key]

    def _on(self, rows: np.ndarray) -> Terms:
        """Those of the rows of the last estimate are kept: estimates mostly have the same."""
        if self._last is None or not np.array_equal(self._last[0], rows):
            terms = Terms(self._kernels, self._distance(rows, rows), self._lags_of(rows), self._n_lags)
            self._last = (rows, terms)
        return self._last[1]

    def _lags_of(self, rows: np.ndarray) -> np.ndarray:
        if len(rows) == len(self.sample):
            return self._lags
        at = np.searchsorted(self.sample, rows)
        return self._lags[np.ix_(at, at)]


def _errors(scores: np.ndarray, present: np.ndarray) -> np.ndarray:
    return placements(scores, present) - auroc(scores, present)


def _orthonormal(basis: np.ndarray) -> np.ndarray:
    left, size, _ = np.linalg.svd(basis, full_matrices=False)
    return left[:, size > 1e-9 * size.max(initial=0)]


def without(matrix: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """``M A M`` for a symmetric matrix A, where M takes out the columns of an orthonormal basis."""
    product = matrix @ basis
    return matrix - product @ basis.T - basis @ product.T + basis @ (basis.T @ product) @ basis.T
