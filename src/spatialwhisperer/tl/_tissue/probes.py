"""Classifiers on frozen features, on plain arrays: small, and reproducible by their seed."""

from __future__ import annotations

import warnings
from typing import Any, Literal, NamedTuple

import numpy as np

from spatialwhisperer.statistics.row_order import row_order

Method = Literal["logistic", "knn", "prototypes"]
METHODS = ("logistic", "knn", "prototypes")

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths of the ridge penalty that are tried; the last is the weakest penalty."""

FIXED_PENALTY = 1e-2
"""The one that is used where there are too few groups to choose one."""

_INNER_FOLDS = 4
_TEMPERATURE = 0.07


class Probe(NamedTuple):
    """A fitted classifier.

    Attributes
    ----------
    score
        From features (n, d) to scores (n, number of classes), rows adding up to 1.
    penalty
        Inverse strength of the ridge penalty, or ``None`` where the method has none.
    """

    score: Any
    penalty: float | None


def fit_probe(
    x: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    *,
    n_classes: int,
    method: str = "logistic",
    n_neighbors: int = 15,
    random_state: int = 0,
) -> Probe:
    """Fit a probe.

    Parameters
    ----------
    x
        Features, finite, shape (n, d).
    y
        Class of each row as a code below ``n_classes``, shape (n,).
    groups
        Group of each row, shape (n,): the penalty is chosen by predicting left-out groups.
    n_classes
        Columns of the scores; a class without a row scores 0.
    method
        One of `METHODS`.
    n_neighbors
        For "knn".
    random_state
        Seed of the inner folds.

    Returns
    -------
    Probe
    """
    if method == "logistic":
        penalty = choose_penalty(x, y, groups, n_classes=n_classes, random_state=random_state)
        return Probe(_logistic(x, y, penalty, n_classes), penalty)
    return Probe((_knn(x, y, n_classes, n_neighbors) if method == "knn" else _prototypes(x, y, n_classes)), None)


def choose_penalty(x: np.ndarray, y: np.ndarray, groups: np.ndarray, *, n_classes: int, random_state: int) -> float:
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
        for i, score in enumerate(_logistic_path(x[~out], y[~out], PENALTIES, n_classes)):
            guesses[i, out] = score(x[out]).argmax(axis=1)
    predicted = np.isin(folds, usable)
    present = np.unique(y[predicted])
    f1 = [f1_score(y[predicted], g[predicted], labels=present, average="macro", zero_division=0) for g in guesses]
    return PENALTIES[int(np.argmax(f1))]


def take_shots(x: np.ndarray, y: np.ndarray, n_shots: int | None, random_state: int) -> np.ndarray:
    """Positions of at most ``n_shots`` rows of each class, ascending; the same rows in whatever order they stand."""
    if n_shots is None:
        return np.arange(len(y))
    rng = np.random.default_rng(random_state)
    order = row_order(x)
    return np.sort(np.concatenate([rng.permutation(order[y[order] == c])[:n_shots] for c in np.unique(y)]))


def scale(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the columns; 1 where a column is constant."""
    mean, sd = x.mean(axis=0), x.std(axis=0)
    return mean, np.where(sd > 1e-12 * (1 + np.abs(mean)), sd, 1.0)


def _logistic(x: np.ndarray, y: np.ndarray, penalty: float, n_classes: int) -> Any:
    return next(_logistic_path(x, y, (penalty,), n_classes))


def _logistic_path(x: np.ndarray, y: np.ndarray, penalties: tuple[float, ...], n_classes: int) -> Any:
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
            return _in_columns(model.predict_proba((rows - mean) / sd), model.classes_, n_classes)

        yield score


def _knn(x: np.ndarray, y: np.ndarray, n_classes: int, n_neighbors: int) -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    mean, sd = scale(x)
    model = KNeighborsClassifier(min(n_neighbors, len(x))).fit((x - mean) / sd, y)
    return lambda rows: _in_columns(model.predict_proba((rows - mean) / sd), model.classes_, n_classes)


def _prototypes(x: np.ndarray, y: np.ndarray, n_classes: int) -> Any:
    from scipy.special import softmax

    mean, sd = scale(x)
    unit = _unit((x - mean) / sd)
    classes = np.unique(y)
    centres = _unit(np.stack([unit[y == c].mean(axis=0) for c in classes]))

    def score(rows: np.ndarray) -> np.ndarray:
        logits = _unit((rows - mean) / sd) @ centres.T / _TEMPERATURE
        return _in_columns(softmax(logits, axis=1), classes, n_classes)

    return score


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True).clip(min=1e-12)


def _in_columns(scores: np.ndarray, classes: np.ndarray, n_classes: int) -> np.ndarray:
    """Scores of the classes that were fitted, in the columns of all classes; 0 in the others."""
    out = np.zeros((len(scores), n_classes))
    out[:, classes] = scores
    return out
