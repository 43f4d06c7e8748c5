"""Ridge regression whose penalty is chosen by the prediction of groups of rows that are left out.

Everything is computed from sums over rows (moments). Those of the rows that stay are those of all rows less those of the rows that are
left out, and one eigendecomposition serves all penalties. Memory depends on the number of rows through one group only, and is a few times
that of the weights in the number of targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

PENALTIES = tuple(10.0**k for k in np.arange(-3, 3.1, 0.5))
"""Penalties to choose from, in units of the mean eigenvalue of the centred XᵀX, which is the number of rows for standardised features.

A penalty so stated is the same for few rows and for many, and for features in other units.
"""

MOST_FOLDS = 10
"""More groups than this are left out several at a time."""


@dataclass(frozen=True)
class Moments:
    """Sums over rows, float64.

    Attributes
    ----------
    n
        Number of rows.
    x, y
        Sums of the features (d,) and of the targets (t,).
    xx, xy
        XᵀX (d, d) and XᵀY (d, t).
    yy
        Sum of the squares of all targets.
    """

    n: int
    x: np.ndarray
    y: np.ndarray
    xx: np.ndarray
    xy: np.ndarray
    yy: float

    def without(self, part: Moments) -> Moments:
        """Moments of the other rows."""
        names = ("n", "x", "y", "xx", "xy", "yy")
        return Moments(*(getattr(self, name) - getattr(part, name) for name in names))

    def centred(self, at: Moments) -> Moments:
        """Moments after the mean of other rows is subtracted."""
        x, y, n = at.x / max(at.n, 1), at.y / max(at.n, 1), self.n
        xx = self.xx - np.outer(self.x, x) - np.outer(x, self.x) + n * np.outer(x, x)
        xy = self.xy - np.outer(self.x, y) - np.outer(x, self.y) + n * np.outer(x, y)
        yy = self.yy - 2 * self.y @ y + n * y @ y
        return Moments(n, self.x - n * x, self.y - n * y, xx, xy, float(yy))


def moments(x: np.ndarray, y: np.ndarray) -> Moments:
    """Moments of dense features (n, d) and targets (n, t)."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    return Moments(len(x), x.sum(axis=0), y.sum(axis=0), x.T @ x, x.T @ y, float(np.square(y).sum()))


@dataclass(frozen=True)
class GroupedRidge:
    """A ridge regression.

    Attributes
    ----------
    weight
        Shape (d, t).
    penalty
        The penalty that was chosen, in units of the mean eigenvalue.
    alpha
        The same as it is added to the diagonal of XᵀX.
    errors
        Squared error of each penalty: sum over the rows that are left out and the targets, shape (number of penalties,).
    """

    weight: np.ndarray
    penalty: float
    alpha: float
    errors: np.ndarray


def grouped_ridge(x: np.ndarray, y: np.ndarray, units: np.ndarray) -> GroupedRidge:
    """Ridge regression with an intercept, of features (n, d) on targets (n, t).

    Parameters
    ----------
    x, y
        Features and targets.
    units
        Code of each row, shape (n,); rows of one code are left out together. See
        :func:`~spatialwhisperer.statistics.left_out.left_out_units`.
    """
    return ridge_of_moments(partial(_part, x, y), units)


def _part(x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> Moments:
    return moments(x[rows], y[rows])


def ridge_of_moments(part: Callable[[np.ndarray], Moments], units: np.ndarray) -> GroupedRidge:
    """The same for targets that are not a dense array.

    Parameters
    ----------
    part
        Returns the moments of some rows, which are given by their positions.
    units
        Code of each row, shape (n,).
    """
    whole = part(np.arange(len(units)))
    errors = np.zeros(len(PENALTIES))
    for rows in left_out_in_turn(units):
        out = part(rows)
        errors += _errors(whole.without(out), out)
    # nothing can be left out of one unit, and nothing supports a small penalty then
    best = int(np.argmin(errors)) if errors.any() else len(PENALTIES) - 1
    centred = whole.centred(whole)
    alpha = PENALTIES[best] * _unit(centred.xx)
    weight = np.linalg.solve(centred.xx + alpha * np.eye(len(centred.xx)), centred.xy)
    return GroupedRidge(weight, PENALTIES[best], alpha, errors)


def left_out_in_turn(units: np.ndarray, most_folds: int = MOST_FOLDS) -> list[np.ndarray]:
    """Positions of the rows of each fold: every unit is in one, and folds are about equally large where they hold several."""
    n = len(np.unique(units))
    if n < 2:
        return []
    from sklearn.model_selection import GroupKFold

    return [rows for _, rows in GroupKFold(min(n, most_folds)).split(np.zeros(len(units)), groups=units)]


def _unit(xx: np.ndarray) -> float:
    """Mean eigenvalue of XᵀX; 1 where the features are constant, so that the weights are 0."""
    mean = float(np.trace(xx)) / max(len(xx), 1)
    return mean if mean > 0 else 1.0


def _errors(stay: Moments, out: Moments) -> np.ndarray:
    """Squared error on the rows that are left out, for each penalty, of the regression on the rows that stay."""
    seen, held = stay.centred(stay), out.centred(stay)
    values, vectors = np.linalg.eigh(seen.xx)
    a, b = vectors.T @ seen.xy, vectors.T @ held.xy
    linear = np.einsum("dt,dt->d", a, b)
    quadratic = (vectors.T @ held.xx @ vectors) * (a @ a.T)
    unit = _unit(seen.xx)
    scales = [1 / (values.clip(min=0) + penalty * unit) for penalty in PENALTIES]
    return np.array([held.yy - 2 * s @ linear + s @ quadratic @ s for s in scales])
