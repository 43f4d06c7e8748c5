"""What a score map shows beyond how dark the tissue is, on plain arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from spatialwhisperer.statistics.intervals.spatial import SpatialErrors

DEGREE = 3
"""Degree of the polynomial of a row's rank by darkness that is fitted to a score map."""

LEAST = 20
"""Rows below which nothing is estimated."""


def darkness_report(scores: ArrayLike, darkness: ArrayLike, sections: ArrayLike | None = None) -> pd.DataFrame:
    """How much of the variance of each score map the darkness of the tile alone explains.

    Parameters
    ----------
    scores
        Score of each row for each class, shape (n, c). Rows with NaN are left out.
    darkness
        Mean optical density of the tile of each row, shape (n,).
    sections
        Section of each row, shape (n,); ``None`` is one section. Scores and darkness are compared within sections.

    Returns
    -------
    DataFrame with one row per class: ``r2_darkness``, the coefficient of determination, adjusted for the number of terms and at least
    0, of a cubic polynomial of the rank by darkness; NaN where the darkness is the same in all rows of each section.
    ``.attrs`` holds ``effective_rank`` (:func:`effective_rank`) and ``n``.

    Raises
    ------
    ValueError
        If shapes differ, or fewer than 20 rows are complete.

    Examples
    --------
    >>> import numpy as np
    >>> from spatialwhisperer.statistics.evidence import darkness_report
    >>> rng = np.random.default_rng(0)
    >>> darkness = rng.random(200)
    >>> scores = np.stack([darkness**2, rng.random(200)], axis=1)
    >>> darkness_report(scores, darkness)["r2_darkness"].round(1).tolist()
    [1.0, 0.0]
    """
    scores, darkness = np.asarray(scores, np.float64), np.asarray(darkness, np.float64)
    if scores.ndim != 2 or darkness.shape != scores.shape[:1]:
        raise ValueError(f"scores {scores.shape} must have a row for each of the values of darkness {darkness.shape}.")
    sections = np.zeros(len(scores), int) if sections is None else np.asarray(sections)
    known = np.isfinite(scores).all(axis=1) & np.isfinite(darkness)
    if known.sum() < LEAST:
        raise ValueError(f"{int(known.sum())} rows have scores and darkness; at least {LEAST} are needed.")
    scores, darkness, sections = scores[known], darkness[known], sections[known]
    flat = darkness_basis(np.zeros(len(darkness)), sections)
    total = (_left(scores, flat) ** 2).sum(axis=0)
    basis = darkness_basis(darkness, sections)
    left = (_left(scores, basis) ** 2).sum(axis=0)
    n = len(scores)
    with np.errstate(invalid="ignore", divide="ignore"):
        r2 = 1 - left / total * (n - flat.shape[1]) / max(n - basis.shape[1], 1)
    known_r2 = (total > 1e-12 * n) & varies(darkness, sections)
    out = pd.DataFrame({"r2_darkness": np.where(known_r2, r2.clip(0, 1), np.nan)})
    out.attrs |= {"effective_rank": effective_rank(_left(scores, flat)), "n": n}
    return out


def varies(darkness: np.ndarray, sections: np.ndarray) -> bool:
    """Whether the darkness differs between rows of any section: else nothing can be compared with it."""
    return bool((pd.Series(darkness).groupby(sections).nunique() > 1).any())


def effective_rank(scores: np.ndarray) -> float:
    """Number of independent score maps: exponential of the entropy of the eigenvalues of their correlation matrix.

    Between 1, where all maps are one map up to sign, and the number of classes (Roy and Vetterli, EUSIPCO 2007, on eigenvalues in the
    place of singular values).

    Parameters
    ----------
    scores
        Shape (n, c). Maps that are constant are left out; with none left the result is NaN.
    """
    centred = scores - scores.mean(axis=0)
    sd = centred.std(axis=0)
    maps = centred[:, sd > 1e-9] / sd[sd > 1e-9]
    if not maps.shape[1]:
        return np.nan
    values = np.linalg.eigvalsh(maps.T @ maps / len(maps)).clip(min=0)
    p = values[values > 1e-12] / values.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def darkness_basis(darkness: np.ndarray, sections: np.ndarray) -> np.ndarray:
    """Orthonormal columns: the mean of each section, and in each powers of the rank by darkness; shape (n, columns)."""
    from scipy.stats import rankdata

    columns = []
    for name in np.unique(sections.astype(str)):
        inside = sections.astype(str) == name
        rank = np.zeros(len(darkness))
        rank[inside] = rankdata(darkness[inside]) / inside.sum() - 0.5
        columns += [np.where(inside, rank**power, 0.0) for power in range(DEGREE + 1)]
    stacked = np.stack(columns, axis=1)
    left, size, _ = np.linalg.svd(stacked, full_matrices=False)
    return left[:, size > 1e-9 * size.max()]


def _left(values: np.ndarray, basis: np.ndarray) -> np.ndarray:
    return values - basis @ (basis.T @ values)


class Association(NamedTuple):
    """A correlation of two maps, and how often two unrelated maps that vary as smoothly would correlate as much.

    Attributes
    ----------
    r
        Partial correlation, given the basis.
    n_effective
        Number of independent rows that would determine it as well.
    p_value
        One-sided: probability of a correlation at least as high. NaN where fewer than one degree of freedom is left.
    """

    r: float
    n_effective: float
    p_value: float


def association(errors: SpatialErrors, x: np.ndarray, y: np.ndarray, basis: np.ndarray) -> Association:
    """Test whether two maps of the same rows go together, where neighbouring rows are alike (Dutilleul, Biometrics 1993).

    A permutation of rows would destroy the smoothness of the maps, and with it the size of correlations by chance. Here the
    covariances of both maps are fitted (:class:`~spatialwhisperer.statistics.intervals.spatial.SpatialErrors`), and give the variance
    of the correlation of unrelated maps.

    Parameters
    ----------
    errors
        Of the rows.
    x, y
        The maps, shape (n,).
    basis
        Orthonormal columns that both maps are taken as residuals of, shape (n, k); it holds the mean of each section.

    Returns
    -------
    Correlation, effective number of rows and p-value.
    """
    from scipy.stats import t

    a, b = (_left(np.asarray(v, np.float64), basis) for v in (x, y))
    scale = np.sqrt((a @ a) * (b @ b))
    if not scale > 1e-12 * len(a):
        return Association(np.nan, np.nan, np.nan)
    r = float(np.clip(a @ b / scale, -1, 1))
    one, other = (errors.covariance_matrix(v, basis) for v in (a, b))
    variance = _variance(one, other, len(a))
    n_effective = 1 + 1 / variance
    df = n_effective - 2
    if df < 1:
        return Association(r, float(n_effective), np.nan)
    return Association(r, float(n_effective), float(t.sf(r * np.sqrt(df / max(1 - r * r, 1e-12)), df)))


def _variance(one: np.ndarray, other: np.ndarray, n: int) -> float:
    """Variance of the correlation of unrelated maps of n rows, from the covariances of both over a sample of the rows.

    The sum over single rows grows with n, that over pairs of rows with n (n - 1). What neighbours contribute to the variance thus
    stays as large as in the sample: more rows of the same section do not make more patches of it.
    """
    m = len(one)
    products = one * other
    single = np.trace(products)
    pairs = products.sum() - single
    return float((single * m / n + pairs * (m / n) * ((n - 1) / (m - 1))) / (np.trace(one) * np.trace(other)))
