"""How well predicted expression agrees with what was measured: per gene over spots, and per spot over genes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.special import betainc, betaln, gammaln

from spatialwhisperer._compute.blocks import blocks, each

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK_BYTES = 2**25
_STRIP = 1024
_LOG_10 = np.log(10.0)

FEWEST_SPOTS = 4
"""With fewer spots no correlation is given: it is ±1 of two spots, and Fisher's z of three has no variance."""


class Moments(NamedTuple):
    """Moments of each gene over the spots, float64 of shape (g,); variances are those of a population.

    ``flat`` marks genes that are constant in the ground truth or in the prediction; ``n`` is the number of spots used.
    """

    n: int
    mean_truth: np.ndarray
    mean_predicted: np.ndarray
    var_truth: np.ndarray
    var_predicted: np.ndarray
    covariance: np.ndarray
    max_truth: np.ndarray
    max_predicted: np.ndarray
    flat: np.ndarray


def complete_rows(predicted: np.ndarray) -> np.ndarray:
    """Rows without NaN, bool of shape (n,)."""
    return np.isfinite(predicted).all(axis=1)


def moments(truth: Any, predicted: np.ndarray) -> Moments:
    """Means, variances and covariance of each gene, from which most metrics of this module are computed.

    Parameters
    ----------
    truth
        Measured values, CSR or dense, shape (n, g).
    predicted
        Predicted values, shape (n, g). Rows with a NaN are left out.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    truth, predicted = _same_shape(truth, predicted)
    sums = _sums(truth, predicted)
    if not np.isfinite(sums.total_predicted).all():
        truth, predicted = _complete(truth, predicted)
        sums = _sums(truth, predicted)
    n, g = predicted.shape
    if n == 0:
        none = np.full(g, np.nan)
        return Moments(0, none, none, none, none, none, none, none, np.ones(g, bool))
    flat = (sums.low_truth == sums.high_truth) | (sums.low_predicted == sums.high_predicted)
    means = sums.total_truth / n, sums.total_predicted / n
    squares = sums.square_truth / n, sums.square_predicted / n, sums.product / n
    return Moments(n, *means, *squares, sums.high_truth, sums.high_predicted, flat)


class _Sums(NamedTuple):
    """Of each gene over the spots, shape (g,): sum, extremes, and centred sums of squares and of products."""

    total_truth: np.ndarray
    low_truth: np.ndarray
    high_truth: np.ndarray
    square_truth: np.ndarray
    total_predicted: np.ndarray
    low_predicted: np.ndarray
    high_predicted: np.ndarray
    square_predicted: np.ndarray
    product: np.ndarray


def _sums(truth: Any, predicted: np.ndarray) -> _Sums:
    from spatialwhisperer.statistics.expression import moment_kernels as kernels

    n, g = predicted.shape
    if not sp.issparse(truth):
        out = np.empty((9, g))
        each(lambda at: kernels.dense_moments(truth, predicted, at.start, at.stop, out), blocks(g, 1, _STRIP))
        return _Sums(*out)
    total, low, high = kernels.column_sums(predicted)
    own, lowest, highest = kernels.sparse_sums(truth.data, truth.indices, n, g)
    centred = truth.data, truth.indices, truth.indptr, own / max(n, 1), predicted, total / max(n, 1)
    square, square_predicted, product = kernels.centred_sparse(*centred)
    return _Sums(own, lowest, highest, square, total, low, high, square_predicted, product)


def pearson_per_gene(truth: Any, predicted: np.ndarray) -> np.ndarray:
    """Pearson correlation over spots of each gene.

    Parameters
    ----------
    truth
        Measured values, CSR or dense, shape (n, g).
    predicted
        Predicted values, shape (n, g). Rows with a NaN are left out.

    Returns
    -------
    float64 of shape (g,); NaN for a gene that is constant in one of the two, and for all with fewer than four spots.

    Examples
    --------
    >>> import numpy as np
    >>> pearson_per_gene(np.array([[0.0, 1], [1, 1], [2, 1], [3, 1]]), np.array([[1.0, 1], [3, 2], [5, 1], [7, 2]]))
    array([ 1., nan])
    """
    return pearson(moments(truth, predicted))


def pearson(m: Moments) -> np.ndarray:
    """Pearson correlation of each gene from its moments; NaN where a gene is constant, and with fewer than four spots."""
    scale = np.sqrt(m.var_truth) * np.sqrt(m.var_predicted)
    defined = ~m.flat & (scale > 0) & (m.n >= FEWEST_SPOTS)
    return np.where(defined, np.clip(m.covariance / np.where(defined, scale, 1.0), -1, 1), np.nan)


def neg_log10_p(r: np.ndarray, n: int | np.ndarray) -> np.ndarray:
    """Two-sided p-values of Pearson correlations, as -log10 p, which does not underflow.

    Under independent normal values ``r sqrt((n - 2) / (1 - r^2))`` follows Student's t with n - 2 degrees of freedom, so
    p is the regularised incomplete beta function of 1 - r^2 at ((n - 2) / 2, 1/2).

    Parameters
    ----------
    r
        Correlations, any shape; NaN stays NaN.
    n
        Number of spots; below 3 the result is NaN.

    Returns
    -------
    float64 of the shape of ``r``.
    """
    r, n = np.broadcast_arrays(np.asarray(r, np.float64), np.asarray(n, np.float64))
    out = np.full(r.shape, np.nan)
    defined = np.isfinite(r) & (n > 2)
    out[defined] = _neg_log10_betainc((n[defined] - 2) / 2, 1 - np.square(r[defined]))
    return out


def neg_log10_p_of_t(t: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Two-sided p-values of Student's t, as -log10 p, which does not underflow; NaN stays NaN. Infinite ``df`` is the normal distribution."""
    from scipy.special import log_ndtr

    out = np.abs((log_ndtr(-np.abs(t)) + np.log(2.0)).clip(max=0)) / _LOG_10
    some = np.isfinite(t) & np.isfinite(df)
    out[some] = _neg_log10_betainc(df[some] / 2, df[some] / (df[some] + np.square(t[some])))
    return out


def _neg_log10_betainc(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    p = betainc(a, 0.5, x)
    tiny = p < 1e-250
    with np.errstate(divide="ignore"):
        value = -np.log10(p)
        value[tiny] = -_log_betainc_half(a[tiny], x[tiny]) / _LOG_10
    # not "-0.0" for p = 1
    return np.abs(value)


def _log_betainc_half(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Logarithm of the regularised incomplete beta function with b = 1/2, by its continued fraction (NIST DLMF 8.17.22)."""
    b = 0.5
    c, d = np.ones_like(x), 1 / (1 - (a + b) * x / (a + 1))
    fraction = d.copy()
    for m in range(1, 500):
        before = fraction.copy()
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1 / (1 + term * d), 1 + term / c
            fraction *= c * d
        if np.allclose(fraction, before, rtol=1e-14, atol=0):
            break
    return a * np.log(x) + b * np.log1p(-x) - np.log(a) - betaln(a, b) + np.log(fraction)


def random_effects(r: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Combine correlations of sections that may truly differ, on Fisher's z.

    Each ``arctanh r`` has the variance ``1 / (n - 3)`` within its section, and all have the variance between sections that explains
    how much more they differ (DerSimonian and Laird, 1986). A few sections tell that variance badly: the mean is compared with
    Student's t, and its variance is that of the sections around it where this is larger (Hartung and Knapp, Stat Med 2001).

    Parameters
    ----------
    r
        Correlations, shape (sections, genes); NaN is left out.
    n
        Spots of each section, shape (sections,); sections with fewer than four are left out.

    Returns
    -------
    Mean over sections divided by its standard error, the degrees of freedom of that, and the standard deviation between sections on
    the scale of z; shape (genes,), NaN where no section has a correlation. One section tells nothing of others: its degrees of
    freedom are infinite, for a z-score of the variance within it.
    """
    n = np.asarray(n, np.float64)[:, None]
    known = np.isfinite(r) & (n >= FEWEST_SPOTS)
    z = np.arctanh(np.clip(np.where(known, r, 0.0), -1 + 1e-12, 1 - 1e-12))
    weight = np.where(known, n - 3, 0.0)
    k, total = known.sum(axis=0), weight.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        fixed = (weight * z).sum(axis=0) / total
        excess = (weight * (z - fixed) ** 2).sum(axis=0) - (k - 1)
        between = np.where(k > 1, (excess / (total - (weight**2).sum(axis=0) / total)).clip(min=0), 0.0)
        shared = np.where(known, 1 / (1 / np.where(known, weight, 1.0) + between), 0.0)
        mean = (shared * z).sum(axis=0) / shared.sum(axis=0)
        around = np.where(k > 1, (shared * (z - mean) ** 2).sum(axis=0) / (k - 1), 1.0).clip(min=1)
    score = np.where(k > 0, mean * np.sqrt(shared.sum(axis=0) / around), np.nan)
    df = np.where(k > 1, k - 1.0, np.where(k > 0, np.inf, np.nan))
    return score, df, np.where(k > 0, np.sqrt(between), np.nan)


def benjamini_hochberg(neg_log10: np.ndarray) -> np.ndarray:
    """Adjust p-values for multiple testing (Benjamini and Hochberg 1995), in logarithms.

    Input and output are -log10 p of shape (n,); NaN stays NaN and does not count as a test. For plain p-values that do not underflow
    use :func:`scipy.stats.false_discovery_control`.
    """
    values = np.asarray(neg_log10, np.float64)
    out = np.full(values.shape, np.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(-values[known], kind="stable")]
    rank = np.arange(1, len(order) + 1)
    adjusted = values[order] - np.log10(len(order) / rank) if len(order) else values[order]
    out[order] = np.maximum.accumulate(adjusted[::-1])[::-1].clip(0)
    return out


def unpredicted(m: Moments) -> np.ndarray:
    """Genes that vary over enough spots for a correlation, and whose prediction is constant; Boolean, shape (g,)."""
    return np.isnan(pearson(m)) & (m.var_truth > 0) & (m.n >= FEWEST_SPOTS)


def mse(m: Moments) -> np.ndarray:
    """Mean squared error of each gene, shape (g,)."""
    return m.var_truth + m.var_predicted - 2 * m.covariance + (m.mean_truth - m.mean_predicted) ** 2


def mae(truth: Any, predicted: np.ndarray) -> np.ndarray:
    """Mean absolute error of each gene, shape (g,); rows with NaN in the prediction are left out."""
    truth, predicted = _pair(truth, predicted)
    n, g = predicted.shape
    total = np.zeros(g)
    for rows in _blocks(n, g):
        p, t = predicted[rows].astype(np.float64), truth[rows]
        if sp.issparse(t):
            at = p[_row_index(t), t.indices]
            total += np.abs(p).sum(axis=0) + np.bincount(t.indices, np.abs(t.data - at) - np.abs(at), g)
        else:
            total += np.abs(t - p).sum(axis=0)
    return total / n if n else np.full(g, np.nan)


def ssim(m: Moments) -> np.ndarray:
    """Structural similarity of each gene as HECLIP computes it: over all spots at once, without windows.

    Ground truth and prediction are each divided by their maximum over the spots, so that the maximum M is 1. Then luminance
    ``(2 u v + C1) / (u^2 + v^2 + C1)``, contrast ``(2 s t + C2) / (s^2 + t^2 + C2)`` and structure ``(c + C3) / (s t + C3)``
    are multiplied, with means u, v, standard deviations s, t, covariance c, C1 = (0.01 M)^2, C2 = (0.03 M)^2, C3 = C2 / 2.

    Returns
    -------
    float64 of shape (g,); NaN where a maximum is not positive.
    """
    defined = (m.max_truth > 0) & (m.max_predicted > 0)
    top_t, top_p = (np.where(defined, top, 1.0) for top in (m.max_truth, m.max_predicted))
    u, v = m.mean_truth / top_t, m.mean_predicted / top_p
    s, t = np.sqrt(m.var_truth) / top_t, np.sqrt(m.var_predicted) / top_p
    c = m.covariance / (top_t * top_p)
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * u * v + c1) / (u**2 + v**2 + c1)
    contrast = (2 * s * t + c2) / (s**2 + t**2 + c2)
    structure = (c + c2 / 2) / (s * t + c2 / 2)
    return np.where(defined, luminance * contrast * structure, np.nan)


def rmse_z(r: np.ndarray) -> np.ndarray:
    """Root mean squared error after z-scoring ground truth and prediction over spots: sqrt(2 (1 - r)), a function of r alone."""
    return np.sqrt(2 * (1 - np.asarray(r, np.float64)))


def hit_at_k(truth: Any, predicted: np.ndarray, k: int = 5) -> float:
    """Fraction of spots whose k highest predicted and k highest measured genes have at least one gene in common (HECLIP).

    Where several genes have the value that is the lowest of the k highest, each choice among them is equally likely, and the fraction
    is the expected one: it does not depend on the order of the genes. Rows with NaN in the prediction are left out.

    Raises
    ------
    ValueError
        If k is not between 1 and the number of genes.
    """
    truth, predicted = _pair(truth, predicted)
    n, g = predicted.shape
    if not 1 <= k <= g:
        raise ValueError(f"k must be between 1 and the number of genes ({g}), not {k}.")
    hits = 0.0
    for rows in _blocks(n, g):
        t = truth[rows]
        hits += float(_hit_probability(t.toarray() if sp.issparse(t) else t, predicted[rows], k).sum())
    return hits / n if n else np.nan


def _hit_probability(truth: np.ndarray, predicted: np.ndarray, k: int) -> np.ndarray:
    """Probability that the k highest of both have a gene in common where ties are broken at random, shape (n,)."""
    (sure_t, tied_t, free_t), (sure_p, tied_p, free_p) = _highest(truth, k), _highest(predicted, k)
    missed = ~(sure_t & sure_p).any(axis=1)
    # tied genes of the prediction that the truth does not hold for sure, and those among them that are tied there
    apart_p, both = (tied_p & ~sure_t).sum(axis=1), (tied_p & tied_t).sum(axis=1)
    apart_t = (tied_t & ~sure_p).sum(axis=1)
    none = np.zeros(len(truth))
    for chosen in range(min(k, int(both.max(initial=0))) + 1):
        # of the tied genes that are chosen in the prediction, so many are tied in the truth, where others must be chosen
        ways = (
            _log_ways(both, chosen) + _log_ways(apart_p - both, free_p - chosen) + _log_ways(apart_t - chosen, free_t)
        )
        none += np.exp(ways - _log_ways(tied_p.sum(axis=1), free_p) - _log_ways(tied_t.sum(axis=1), free_t))
    return 1 - missed * none


def _highest(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Genes above the k-th highest value of each row, genes of that value, and how many of the latter are among the k highest."""
    last = np.partition(values, -k, axis=1)[:, [-k]]
    above = values > last
    return above, values == last, k - above.sum(axis=1)


def _log_ways(n: np.ndarray, k: Any) -> np.ndarray:
    """Logarithm of the number of ways to choose k of n, -inf where there is none."""
    n, k = np.broadcast_arrays(n, k)
    some = (k >= 0) & (k <= n)
    n, k = np.where(some, n, 0), np.where(some, k, 0)
    return np.where(some, gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0), -np.inf)


def _pair(truth: Any, predicted: np.ndarray) -> tuple[Any, np.ndarray]:
    return _complete(*_same_shape(truth, predicted))


def _same_shape(truth: Any, predicted: np.ndarray) -> tuple[Any, np.ndarray]:
    predicted = _dense(predicted)
    if truth.shape != predicted.shape or predicted.ndim != 2:
        raise ValueError(
            f"Truth and prediction must have one shape (spots, genes); found {truth.shape} and {predicted.shape}."
        )
    if not sp.issparse(truth):
        return _dense(truth), predicted
    truth = truth.tocsr()
    if not truth.has_canonical_format:
        truth = truth.copy()
        truth.sum_duplicates()
    return truth, predicted


def _dense(values: Any) -> np.ndarray:
    values = np.ascontiguousarray(values)
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)


def _complete(truth: Any, predicted: np.ndarray) -> tuple[Any, np.ndarray]:
    keep = complete_rows(predicted)
    return (truth, predicted) if keep.all() else (truth[keep], predicted[keep])


def _blocks(n: int, g: int) -> Iterator[slice]:
    size = max(1, _BLOCK_BYTES // (8 * max(g, 1)))
    for start in range(0, n, size):
        yield slice(start, min(n, start + size))


def _row_index(part: sp.csr_matrix) -> np.ndarray:
    return np.repeat(np.arange(part.shape[0]), np.diff(part.indptr))
