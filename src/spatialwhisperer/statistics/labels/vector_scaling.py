"""Vector scaling: a scale and an offset for each label, fitted on rows with known labels (Guo et al., ICML 2017, section 4.2)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from spatialwhisperer.statistics.calibration import fit_temperature, probabilities
from spatialwhisperer.statistics.left_out import left_out_units

Method = Literal["temperature", "vector"]

PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01)
"""Penalties of the offsets that are tried, the largest first."""

SCALE = 10.0
"""How much stronger scales are held together than offsets are held at 0: a few patients tell how common a label is much better than
how steep it is."""


_LOG_TEMPERATURE = (float(np.log(1e-4)), float(np.log(1e2)))
_FURTHEST = 20.0


class Scaling(NamedTuple):
    """How scores become the logarithms of probabilities, up to a constant of the row: ``scale * score / temperature + offset``.

    Attributes
    ----------
    temperature
        Common to all labels.
    scale, offset
        Of each label, shape (labels,). The geometric mean of the scales is 1.
    """

    temperature: float
    scale: np.ndarray
    offset: np.ndarray

    def logits(self, scores: np.ndarray) -> np.ndarray:
        """Logits of scores of shape (n, labels); a row with NaN stays NaN."""
        return scores * (self.scale / self.temperature) + self.offset

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Softmax of the logits, shape (n, labels)."""
        return probabilities(self.logits(scores), 1.0)


class LeftOut(NamedTuple):
    """A scaling, and what it is worth on rows that it was not fitted on.

    Attributes
    ----------
    scaling
        Fitted on all rows.
    penalty
        That was chosen; ``None`` where a temperature alone is best.
    loss, loss_temperature
        Weighted negative log-likelihood of rows that were left out: of this scaling, and of a temperature alone.
    """

    scaling: Scaling
    penalty: float | None
    loss: float
    loss_temperature: float


def row_weights(correct: np.ndarray, sections: np.ndarray) -> np.ndarray:
    """Weights of rows, adding up to 1: each section counts the same, and in it each class by the square root of its rows.

    With equal rows a section that is full of one class would set the offset of that class. With equal classes, three rows of a rare
    class, which are often mistaken ones, would count as much as a hundred of a common one.

    Parameters
    ----------
    correct
        Which labels are correct in each row, Boolean of shape (n, labels). Rows with the same correct labels are of one class.
    sections
        Section of each row, shape (n,).

    Examples
    --------
    >>> import numpy as np
    >>> from spatialwhisperer.statistics.labels.vector_scaling import row_weights
    >>> correct = np.eye(2, dtype=bool)[[0, 0, 0, 0, 1]]
    >>> row_weights(correct, np.zeros(5)).round(3).tolist()
    [0.167, 0.167, 0.167, 0.167, 0.333]
    """
    kinds = np.unique(correct, axis=0, return_inverse=True)[1].ravel()
    codes = np.unique(np.asarray(sections).astype(str), return_inverse=True)[1]
    cell = codes * (kinds.max(initial=0) + 1) + kinds
    weights = 1 / np.sqrt(np.bincount(cell)[cell])
    weights /= np.bincount(codes, weights)[codes]
    return weights / weights.sum()


def fit_scaling(scores: np.ndarray, correct: np.ndarray, weights: np.ndarray, penalty: float) -> Scaling:
    """Scales and offsets at which the correct labels are most likely, shrunk towards one scale and no offset.

    The loss is the weighted negative log-likelihood, plus ``penalty`` times the sum of the squared offsets, plus ten times
    ``penalty`` times the sum of the squared logarithms of the scales. A label that is correct in no row has the mean offset of the
    others, and their geometric mean as its scale: an offset of its own would fall as far as the penalty lets it, although nothing is known
    of its rows.

    Parameters
    ----------
    scores
        Finite, shape (n, labels).
    correct
        Which labels are correct in each row, Boolean of shape (n, labels), at least one in each row.
    weights
        Of the rows, shape (n,), adding up to 1.
    penalty
        Positive.

    Examples
    --------
    >>> import numpy as np
    >>> from spatialwhisperer.statistics.labels.vector_scaling import fit_scaling
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.integers(0, 2, 500)
    >>> scores = np.eye(2)[truth] + rng.normal(0, 0.3, (500, 2)) + [1.0, 0.0]  # the first label is always one too high
    >>> fitted = fit_scaling(scores, np.eye(2, dtype=bool)[truth], np.full(500, 1 / 500), 1e-4)
    >>> float((fitted.probabilities(scores).argmax(axis=1) == truth).mean()) > 0.95
    True
    """
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    to_all = _of_all_labels(correct.any(axis=0))
    n_free = to_all.shape[1]
    start = np.zeros(1 + 2 * n_free)
    start[0] = np.log(max(float(np.std(scores)), 1e-3))

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        scale, offset = x[1 : 1 + n_free], x[1 + n_free :]
        steep = np.exp(to_all @ scale - x[0])
        logits = scores * steep + to_all @ offset
        whole = logsumexp(logits, axis=1, keepdims=True)
        right = logsumexp(np.where(correct, logits, -np.inf), axis=1, keepdims=True)
        wrong = (np.exp(logits - whole) - np.where(correct, np.exp(logits - right), 0)) * weights[:, None]
        by_scale = (wrong * scores * steep).sum(axis=0)
        value = float((weights * (whole - right)[:, 0]).sum())
        value += penalty * float(offset @ offset + SCALE * scale @ scale)
        by_free, by_offset = by_scale @ to_all, wrong.sum(axis=0) @ to_all
        gradient = [[-by_scale.sum()], by_free + 2 * SCALE * penalty * scale, by_offset + 2 * penalty * offset]
        return value, np.concatenate(gradient)

    # a long first step would overflow
    bounds = [_LOG_TEMPERATURE, *[(-_FURTHEST, _FURTHEST)] * (2 * n_free)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    scale, offset = to_all @ found[1 : 1 + n_free], to_all @ found[1 + n_free :]
    return Scaling(float(np.exp(found[0] - scale.mean())), np.exp(scale - scale.mean()), offset)


def _of_all_labels(occurs: np.ndarray) -> np.ndarray:
    """Matrix from values of the labels that occur to those of all labels, shape (labels, occurring labels); others have the mean."""
    own = np.eye(len(occurs))[:, occurs]
    return np.where(occurs[:, None], own, 1 / occurs.sum())


def only_temperature(scores: np.ndarray, correct: np.ndarray) -> Scaling:
    """One temperature, no offsets; see :func:`~spatialwhisperer.statistics.calibration.fit_temperature`."""
    return Scaling(fit_temperature(scores, correct), np.ones(scores.shape[1]), np.zeros(scores.shape[1]))


def scaling_units(groups: np.ndarray, sections: np.ndarray, positions: np.ndarray | None) -> np.ndarray:
    """What is left out together, shape (n,): patients (groups) where there are two or more, else sections, else blocks.

    Parameters
    ----------
    groups, sections, positions
        As in :func:`~spatialwhisperer.statistics.left_out.left_out_units`.
    """
    codes = np.unique(np.asarray(groups).astype(str), return_inverse=True)[1]
    # how common a class is differs between patients most of all
    return codes if codes.max(initial=0) else left_out_units(groups, sections, positions)


def choose_scaling(
    scores: np.ndarray,
    correct: np.ndarray,
    *,
    sections: np.ndarray,
    units: np.ndarray,
    method: Method | None = None,
) -> LeftOut:
    """Scales and offsets whose penalty best predicts units that are left out, or a temperature alone where that is better.

    Parameters
    ----------
    scores, correct
        As in :func:`fit_scaling`.
    sections
        Section of each row, shape (n,), for the weights.
    units
        What is left out together, such as patients, shape (n,).
    method
        "vector" tries no temperature alone, "temperature" nothing else.
    """
    weights = row_weights(correct, sections)
    penalties = (None, *(() if method == "temperature" else PENALTIES))
    losses = {penalty: _left_out_loss(scores, correct, weights, units, penalty) for penalty in penalties}
    best = min(penalties[method == "vector" :], key=lambda penalty: losses[penalty])
    return LeftOut(_fit(scores, correct, weights, best), best, losses[best], losses[None])


def _left_out_loss(
    scores: np.ndarray, correct: np.ndarray, weights: np.ndarray, units: np.ndarray, penalty: float | None
) -> float:
    probability = np.empty(scores.shape)
    names = np.unique(units)
    for unit in names:
        own = units == unit
        rest = ~own if len(names) > 1 else own
        probability[own] = _fit(scores[rest], correct[rest], weights[rest], penalty).probabilities(scores[own])
    right = (probability * correct).sum(axis=1)
    return float(-(weights * np.log(right.clip(1e-12))).sum())


def _fit(scores: np.ndarray, correct: np.ndarray, weights: np.ndarray, penalty: float | None) -> Scaling:
    if penalty is None:
        return only_temperature(scores, correct)
    return fit_scaling(scores, correct, weights / weights.sum(), penalty)
