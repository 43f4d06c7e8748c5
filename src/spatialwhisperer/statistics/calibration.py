"""From scores to probabilities: fitting a temperature, and measuring how far confidence is from accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spatialwhisperer._compute.blocks import blocks, each

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from spatialwhisperer.statistics.intervals.uncertainty import Uncertainty

N_BINS = 15
"""Number of equal-width bins of confidence, as in Guo et al. (2017)."""

_LOG_RANGE = (np.log(1e-4), np.log(1e2))


class Bins(NamedTuple):
    """Rows by confidence; each array has one entry per bin.

    Attributes
    ----------
    low, high
        Edges. A bin includes its upper edge, and the first bin also its lower edge.
    confidence, accuracy
        Means over the rows of the bin; NaN where there is no row.
    n
        Number of rows.
    """

    low: np.ndarray
    high: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    n: np.ndarray


def probabilities(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Softmax over the labels of each row.

    Parameters
    ----------
    scores
        Floating-point numbers, shape (n, labels); a row with NaN stays NaN.
    temperature
        What scores are divided by.

    Returns
    -------
    Array of the same shape and dtype, rows adding up to 1.

    Raises
    ------
    ValueError
        If the temperature is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from spatialwhisperer.statistics.calibration import probabilities
    >>> probabilities(np.array([[0.0, np.log(3.0)]]), 1.0).round(2)
    array([[0.25, 0.75]])
    """
    divisor = np.asarray(positive_temperature(temperature), dtype=scores.dtype)
    out = np.empty_like(scores)

    def fill(rows: slice) -> None:
        part = np.divide(scores[rows], divisor, out=out[rows])
        part -= part.max(axis=1, keepdims=True)
        np.exp(part, out=part)
        part /= part.sum(axis=1, keepdims=True)

    each(fill, blocks(*scores.shape))
    return out


def positive_temperature(temperature: float) -> float:
    """The temperature.

    Raises
    ------
    ValueError
        If it is not positive.
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be a positive number, not {temperature!r}.")
    return temperature


def negative_log_likelihood(scores: np.ndarray, correct: np.ndarray, temperature: float) -> float:
    """Mean over rows of the negative logarithm of the summed probability of the correct labels.

    Parameters
    ----------
    scores
        Shape (n, labels).
    correct
        Which labels are correct in each row, Boolean of shape (n, labels); at least one in each row.
    temperature
        What scores are divided by.

    Returns
    -------
    A number in nats.
    """
    from scipy.special import logsumexp

    logits = np.asarray(scores, dtype=float) / temperature
    return float((logsumexp(logits, axis=1) - logsumexp(np.where(correct, logits, -np.inf), axis=1)).mean())


def fit_temperature(scores: np.ndarray, correct: np.ndarray) -> float:
    """The temperature at which the correct labels are most likely (Guo et al., ICML 2017).

    Parameters
    ----------
    scores
        Finite, shape (n, labels).
    correct
        Which labels are correct in each row, Boolean of shape (n, labels). There may be several where the ground truth is coarser
        than the labels; their probabilities are summed.

    Returns
    -------
    A number between 1e-4 and 100; the upper end means that the scores carry no information about the ground truth.

    Raises
    ------
    ValueError
        If shapes differ, a score is not finite, or a row has no correct label.

    Examples
    --------
    >>> import numpy as np
    >>> from spatialwhisperer.statistics.calibration import fit_temperature, probabilities
    >>> rng = np.random.default_rng(0)
    >>> scores = rng.normal(size=(4000, 3))
    >>> truth = [rng.choice(3, p=p) for p in probabilities(scores, 0.5)]
    >>> bool(abs(fit_temperature(scores, np.eye(3, dtype=bool)[truth]) - 0.5) < 0.05)
    True
    """
    from scipy.optimize import minimize_scalar

    scores, correct = np.asarray(scores, dtype=float), np.asarray(correct, dtype=bool)
    if scores.ndim != 2 or scores.shape != correct.shape or not len(scores):
        raise ValueError(
            f"scores {scores.shape} and correct {correct.shape} must be matrices of one shape with at least a row."
        )
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite; leave out rows with NaN.")
    if not correct.any(axis=1).all():
        raise ValueError(f"{int((~correct.any(axis=1)).sum())} rows have no correct label; leave them out.")

    def loss(log_t: float) -> float:
        return negative_log_likelihood(scores, correct, float(np.exp(log_t)))

    # sums of probabilities make the loss non-convex, so a coarse grid comes first
    grid = np.linspace(*_LOG_RANGE, 29)
    best = int(np.argmin([loss(t) for t in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x if found.fun <= loss(grid[best]) else grid[best]))


def reliability_bins(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = N_BINS) -> Bins:
    """Sort rows into bins of equal width by their confidence.

    Parameters
    ----------
    confidence
        Probability of the label given to each row, shape (n,), between 0 and 1.
    correct
        Whether it is correct, shape (n,).
    n_bins
        Number of bins between 0 and 1.

    Returns
    -------
    The bins.

    Raises
    ------
    ValueError
        If shapes differ, a confidence lies outside 0 and 1, or ``n_bins`` is not a positive whole number.

    Examples
    --------
    >>> from spatialwhisperer.statistics.calibration import reliability_bins
    >>> bins = reliability_bins([0.55, 0.6, 0.9], [True, False, True], n_bins=2)
    >>> bins.n.tolist(), round(float(bins.accuracy[1]), 3)
    ([0, 3], 0.667)
    """
    confidence, correct = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    if isinstance(n_bins, bool) or int(n_bins) != n_bins or n_bins < 1:
        raise ValueError(f"n_bins must be a positive whole number, not {n_bins!r}.")
    if confidence.ndim != 1 or confidence.shape != correct.shape:
        raise ValueError(f"confidence {confidence.shape} and correct {correct.shape} must be vectors of one length.")
    # float32 probabilities may exceed 1 by rounding
    if not ((confidence >= 0) & (confidence <= 1 + 1e-5)).all():
        raise ValueError("confidence must lie between 0 and 1, without NaN.")
    edges = np.linspace(0, 1, int(n_bins) + 1)
    which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, int(n_bins) - 1)
    n = np.bincount(which, minlength=int(n_bins))
    with np.errstate(invalid="ignore"):
        means = [np.bincount(which, weights=x, minlength=int(n_bins)) / n for x in (confidence, correct)]
    return Bins(edges[:-1], edges[1:], means[0], means[1], n)


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = N_BINS) -> float:
    """Mean over rows of the distance between confidence and accuracy of their bin (Guo et al., ICML 2017, equation 3).

    Parameters
    ----------
    confidence, correct, n_bins
        As in :func:`reliability_bins`.

    Returns
    -------
    Between 0 and 1; NaN without rows.

    Examples
    --------
    >>> from spatialwhisperer.statistics.calibration import expected_calibration_error
    >>> round(expected_calibration_error([0.9, 0.9, 0.9, 0.9], [True, True, True, False]), 3)
    0.15
    """
    bins = reliability_bins(confidence, correct, n_bins=n_bins)
    some = bins.n > 0
    if not some.any():
        return float("nan")
    return float(np.average(np.abs(bins.accuracy - bins.confidence)[some], weights=bins.n[some]))


class CalibrationError(NamedTuple):
    """Expected calibration error with what sampling does to it.

    Attributes
    ----------
    value
        As :func:`expected_calibration_error`. It is biased upwards: deviations of bins count whatever their sign, also those by chance.
    debiased
        The same with each bin's deviation replaced by the one whose expected absolute value is what was seen.
    by_chance
        What perfectly calibrated confidences would get on average with as many rows.
    low, high
        95 % interval of the error that infinitely many rows would have; NaN where it is not known.
    """

    value: float
    debiased: float
    by_chance: float
    low: float
    high: float


def calibration_error(
    confidence: ArrayLike, correct: ArrayLike, residual: Uncertainty, *, n_bins: int = N_BINS
) -> CalibrationError:
    """Expected calibration error, its bias, and an interval.

    The deviation of a bin is taken to be normal around the true one. Its variance is that of independent rows, times how much larger
    the variance of the mean of ``correct - confidence`` is than that of independent rows, which accounts for neighbours that are alike.
    The interval goes from the value minus what chance alone gives, to the debiased value, each widened by half the width of the
    interval of that mean.

    Parameters
    ----------
    confidence, correct, n_bins
        As in :func:`reliability_bins`.
    residual
        Uncertainty of the mean of ``correct - confidence`` over the rows.

    Returns
    -------
    The value and what belongs to it; NaN without rows.

    Examples
    --------
    >>> import numpy as np
    >>> from spatialwhisperer.statistics.calibration import calibration_error
    >>> from spatialwhisperer.statistics.intervals.spatial import SpatialErrors
    >>> rng = np.random.default_rng(0)
    >>> confidence = rng.uniform(0.4, 1, 300)
    >>> correct = rng.random(300) < confidence
    >>> residual = SpatialErrors(None, np.zeros(300)).mean(correct - confidence)
    >>> error = calibration_error(confidence, correct, residual)
    >>> bool(error.low == 0 and error.debiased < error.value)
    True
    """
    confidence, correct = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    bins = reliability_bins(confidence, correct, n_bins=n_bins)
    some = bins.n > 0
    if not some.any():
        return CalibrationError(*[float("nan")] * 5)
    n, deviation = bins.n[some], np.abs(bins.accuracy - bins.confidence)[some]
    # half a row of each kind is added, because a bin without an error has a variance as well
    rate = (n * bins.accuracy[some] + 0.5) / (n + 1)
    variance = np.maximum(rate * (1 - rate), bins.confidence[some] * (1 - bins.confidence[some])) / n
    alone = np.var(correct - confidence) / len(confidence)
    inflation = max(residual.variance / alone, 1.0) if alone > 0 else 1.0
    sd, weight = np.sqrt(inflation * variance), n / n.sum()
    value = float(weight @ deviation)
    by_chance = float(weight @ _mean_absolute(np.zeros(len(sd)), sd))
    debiased = float(weight @ _without_chance(deviation, sd))
    half = (
        residual.half_width / np.sqrt(residual.variance) * float(np.sqrt((weight**2) @ (sd**2)))
        if residual.known
        else np.nan
    )
    low, high = max(0.0, value - by_chance - half), float(np.minimum(debiased + half, 1.0))
    return CalibrationError(value, debiased, by_chance, low if np.isfinite(half) else np.nan, high)


def _mean_absolute(mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Expected absolute value of normal variables."""
    from scipy.stats import norm

    z = mean / sd
    return sd * (2 * norm.pdf(z) + z * (1 - 2 * norm.cdf(-z)))


def _without_chance(seen: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Means of normal variables whose expected absolute value is what was seen; 0 where chance alone gives more. By bisection."""
    low, high = np.zeros(len(seen)), seen.copy()
    for _ in range(50):
        middle = (low + high) / 2
        above = _mean_absolute(middle, sd) > seen
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.where(seen > _mean_absolute(np.zeros(len(sd)), sd), (low + high) / 2, 0.0)
