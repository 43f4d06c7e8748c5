"""The standard error of an estimate, with the degrees of freedom that it rests on, and the interval that follows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FEWEST = 3.0
"""There is no interval where fewer independent parts than this contribute to an estimate."""

NOMINAL = 0.95
"""Probability with which an interval is to hold the true value."""


@dataclass(frozen=True)
class Uncertainty:
    """How far an estimate may be from the truth.

    Attributes
    ----------
    variance
        Squared standard error; 0 where all values are alike, so that nothing can be said.
    df
        Degrees of freedom of the variance.
    parts
        Number of independent parts: patches of a section, or patients.
    """

    variance: float
    df: float
    parts: float

    @property
    def enough(self) -> bool:
        """Whether there are enough independent parts."""
        return bool(self.parts >= FEWEST)

    @property
    def known(self) -> bool:
        """Whether there are enough parts, which differ."""
        return bool(self.variance > 0 and self.enough)

    @property
    def half_width(self) -> float:
        """Half the width of the interval; NaN where it is not known."""
        from scipy.stats import t

        return float(t.ppf((1 + NOMINAL) / 2, max(self.df, 1.0)) * np.sqrt(self.variance)) if self.known else np.nan

    def interval(
        self, value: float, *, bounded: bool = False, within: tuple[float, float] = (-np.inf, np.inf)
    ) -> tuple[float, float]:
        """95 % confidence interval: Student's t with these degrees of freedom.

        Parameters
        ----------
        value
            The estimate.
        bounded
            Whether it lies between 0 and 1. The interval is then made on the logit scale.
        within
            Smallest and largest value that the quantity can have. An end beyond them is moved there.

        Returns
        -------
        Low and high end; NaN where there are too few independent parts, or all values are alike.
        """
        half = self.half_width
        if not (np.isfinite(half) and np.isfinite(value)):
            return np.nan, np.nan
        if not bounded:
            low, high = np.clip([value - half, value + half], *within)
            return float(low), float(high)
        if not 0 < value < 1:
            return np.nan, np.nan
        slope = value * (1 - value)
        centre = np.log(value / (1 - value))
        low, high = 1 / (1 + np.exp(-(centre + np.array([-half, half]) / slope)))
        return float(low), float(high)

    def __add__(self, other: Uncertainty) -> Uncertainty:
        """Uncertainty of the sum of two independent estimates (degrees of freedom after Welch and Satterthwaite)."""
        total = self.variance + other.variance
        shared = self.variance**2 / self.df + other.variance**2 / other.df
        return Uncertainty(total, total**2 / shared if shared else 1.0, min(self.parts, other.parts))


def over_units(values: np.ndarray, units: np.ndarray) -> Uncertainty:
    """Uncertainty of a mean of rows that come in units, such as patients or sections.

    Rows of a unit may be correlated in any way: the variance is that of the totals of the units (cluster-robust). A unit with many
    rows pulls the mean towards itself, so that its total looks smaller than it is, and few units with most of the rows determine the
    variance badly. Both are accounted for by CR2 and its Satterthwaite degrees of freedom (Bell and McCaffrey, Survey Methodology
    2002). With as many rows in each unit these are one fewer than there are units.

    Parameters
    ----------
    values
        Shape (n,); NaN is left out.
    units
        Unit of each row, shape (n,).

    Examples
    --------
    >>> import numpy as np
    >>> from spatialwhisperer.statistics.intervals.uncertainty import over_units
    >>> values = np.array([0.1, 0.2, 0.3, 0.2])
    >>> low, high = over_units(values, np.arange(4)).interval(values.mean())
    >>> round(low, 3), round(high, 3)
    (0.07, 0.33)
    """
    known = np.isfinite(values)
    codes = np.unique(np.asarray(units)[known].astype(str), return_inverse=True)[1]
    n = int(codes.max(initial=-1)) + 1
    if n < 2:
        return Uncertainty(0.0, 1.0, n)
    totals = np.bincount(codes, weights=values[known] - values[known].mean()) / known.sum()
    weights = np.bincount(codes) / known.sum()
    return Uncertainty(float((totals**2 / (1 - weights)).sum()), _df(weights), n)


def jackknife(without: np.ndarray, sizes: np.ndarray) -> Uncertainty:
    """Uncertainty of a statistic of pooled rows from its values without each unit in turn (Efron and Stein, 1981).

    Of a mean it is that of :func:`over_units`, whose remarks on units with unequal numbers of rows hold here too.

    Parameters
    ----------
    without
        Values of the statistic, shape (units,).
    sizes
        Number of rows of each unit, shape (units,).
    """
    without, sizes = np.asarray(without, np.float64), np.asarray(sizes, np.float64)
    n = len(without)
    if n < 2 or not np.isfinite(without).all():
        return Uncertainty(0.0, 1.0, n)
    weights = sizes / sizes.sum()
    centre = ((1 - weights) * without).sum() / (n - 1)
    return Uncertainty(float(((1 - weights) * (without - centre) ** 2).sum()), _df(weights), n)


def _df(weights: np.ndarray) -> float:
    """Satterthwaite degrees of freedom of the CR2 variance of a mean, from the fraction of the rows that each unit has.

    They are ``tr(B)^2 / tr(B^2)``, where B maps independent rows of equal variance to the variance; its traces are written out.
    """
    scale = weights**2 / (1 - weights)
    return float(1 / ((weights**2).sum() + scale.sum() ** 2 - (scale**2).sum()))
