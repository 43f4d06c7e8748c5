"""Classifiers on frozen features, on plain arrays: small, and reproducible by their seed."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from spatialwhisperer.statistics.row_order import row_order

if TYPE_CHECKING:
    from collections.abc import Sequence

Method = Literal["logistic", "knn", "prototypes"]
METHODS = ("logistic", "knn", "prototypes")

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths of the ridge penalty that are tried; the last is the weakest penalty."""

FIXED_PENALTY = 1e-2
"""The one that is used where there are too few groups to choose one."""

_INNER_FOLDS = 4
_TEMPERATURE = 0.07
_AHEAD = 1e-6
"""How far the class of the nearest neighbour is ahead of those with as many neighbours; single precision still shows it."""


class Probe(NamedTuple):
    """A fitted classifier.

    Attributes
    ----------
    score
        From features (n, d) to scores (n, number of classes), rows adding up to 1.
    penalty
        Inverse strength of the ridge penalty, or ``None`` where the method has none.
    n_neighbors
        Neighbours that vote, or ``None`` where the method has none.
    """

    score: Any
    penalty: float | None = None
    n_neighbors: int | None = None


def fit_probe(
    x: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    classes: Sequence[str],
    method: str = "logistic",
    n_neighbors: int = 15,
    random_state: int = 0,
) -> Probe:
    """Fit a probe. What is fitted does not depend on the order of the classes.

    Parameters
    ----------
    x
        Features, finite, shape (n, d).
    labels
        Name of the class of each row, shape (n,).
    groups
        Group of each row, shape (n,): the penalty is chosen by predicting left-out groups.
    classes
        Columns of the scores; one without a row scores 0.
    method
        One of `METHODS`.
    n_neighbors
        For "knn": at most so many, and at most as many as a class has rows on average. With more, few rows would outvote none.
    random_state
        Seed of the inner folds.

    Returns
    -------
    Probe
    """
    # in the order of the alphabet, whatever that of the columns
    present, y = np.unique(np.asarray(labels).astype(str), return_inverse=True)
    columns = np.array([list(classes).index(name) for name in present])
    penalty, voters = None, None
    if method == "logistic":
        penalty = choose_penalty(x, y, groups, random_state=random_state)
        own = _logistic(x, y, penalty)
    elif method == "knn":
        voters = min(n_neighbors, max(1, len(x) // len(present)))
        own = _knn(x, y, voters)
    else:
        own = _prototypes(x, y)

    def score(rows: np.ndarray) -> np.ndarray:
        out = np.zeros((len(rows), len(classes)))
        out[:, columns] = own(rows)
        return out

    return Probe(score, penalty, voters)


def choose_penalty(x: np.ndarray, y: np.ndarray, groups: np.ndarray, *, random_state: int) -> float:
    """Penalty with the best macro-F1 of pooled predictions of left-out groups; a fixed one where there is nothing to leave out."""
    from sklearn.metrics import f1_score

    names = np.unique(groups)
    order = np.random.default_rng(random_state).permutation(len(names))
    fold_of = dict(zip(names[order], np.arange(len(names)) % min(_INNER_FOLDS, len(names)), strict=True))
    folds = np.array([fold_of[g] for g in groups])
    usable = [f for f in np.unique(folds) if len(np.unique(y[folds != f])) > 1]
    if not usable:
        return FIXED_PENALTY
    guesses = np.full((len(PENALTIES), len(y)), -1)
    for f in usable:
        out = folds == f
        known = np.unique(y[~out])
        for i, score in enumerate(_logistic_path(x[~out], y[~out], PENALTIES)):
            guesses[i, out] = known[score(x[out]).argmax(axis=1)]
    predicted = np.isin(folds, usable)
    present = np.unique(y[predicted])
    f1 = [f1_score(y[predicted], g[predicted], labels=present, average="macro", zero_division=0) for g in guesses]
    return PENALTIES[int(np.argmax(f1))]


def take_shots(x: np.ndarray, labels: np.ndarray, n_shots: int | None, random_state: int) -> np.ndarray:
    """Positions of at most ``n_shots`` rows of each class, ascending.

    The draw of a class depends on its name, its rows and the seed: not on other classes, nor on the order of rows and classes.
    """
    labels = np.asarray(labels).astype(str)
    if n_shots is None:
        return np.arange(len(labels))
    order = row_order(x)
    drawn = [
        np.random.default_rng([random_state, *name.encode()]).permutation(order[labels[order] == name])[:n_shots]
        for name in np.unique(labels)
    ]
    return np.sort(np.concatenate(drawn))


def scale(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the columns; 1 where a column is constant."""
    mean, sd = x.mean(axis=0), x.std(axis=0)
    return mean, np.where(sd > 1e-12 * (1 + np.abs(mean)), sd, 1.0)


def _logistic(x: np.ndarray, y: np.ndarray, penalty: float) -> Any:
    return next(_logistic_path(x, y, (penalty,)))


def _logistic_path(x: np.ndarray, y: np.ndarray, penalties: tuple[float, ...]) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean, sd = scale(x)
    z = (x - mean) / sd
    for penalty in penalties:
        model = LogisticRegression(C=penalty, class_weight="balanced", max_iter=300)
        with warnings.catch_warnings():
            # with a weak penalty on separable rows the coefficients keep growing while the predictions stay the same
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(z, y)

        def score(rows: np.ndarray, model: Any = model) -> np.ndarray:
            return model.predict_proba((rows - mean) / sd)

        yield score


def _knn(x: np.ndarray, y: np.ndarray, n_neighbors: int) -> Any:
    from sklearn.neighbors import NearestNeighbors

    mean, sd = scale(x)
    # which of equally distant rows is found first depends on their order
    order = np.argsort(y, kind="stable")
    order = order[row_order(x[order])]
    own = y[order]
    search = NearestNeighbors(n_neighbors=n_neighbors).fit((x[order] - mean) / sd)

    def score(rows: np.ndarray) -> np.ndarray:
        near = own[search.kneighbors((rows - mean) / sd, return_distance=False)]
        return _ahead(np.stack([(near == c).mean(axis=1) for c in range(own.max() + 1)], axis=1), near)

    return score


def _ahead(fractions: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Fractions, in which the nearest of the classes with the highest one is a little ahead of the others.

    Parameters
    ----------
    fractions
        Of each class among the neighbours, shape (n, classes).
    near
        Class of each neighbour, the nearest first, shape (n, neighbours).
    """
    best = fractions == fractions.max(axis=1, keepdims=True)
    tied = np.flatnonzero(best.sum(axis=1) > 1)
    first = best[tied[:, None], near[tied]].argmax(axis=1)
    out = fractions.copy()
    out[tied, near[tied, first]] += _AHEAD
    out[tied] /= 1 + _AHEAD
    return out


def _prototypes(x: np.ndarray, y: np.ndarray) -> Any:
    from scipy.special import softmax

    mean, sd = scale(x)
    unit = _unit((x - mean) / sd)
    centres = _unit(np.stack([unit[y == c].mean(axis=0) for c in np.unique(y)]))
    return lambda rows: softmax(_unit((rows - mean) / sd) @ centres.T / _TEMPERATURE, axis=1)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True).clip(min=1e-12)
