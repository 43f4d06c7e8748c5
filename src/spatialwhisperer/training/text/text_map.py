"""The map of text features onto the directions of captions, in closed form.

It is a ridge regression, as in the bilinear model of Romera-Paredes & Torr (ICML 2015), in which captions have fixed attributes instead of
text features. Features of "tumour" and "no tumour" are alike, so that no linear map can take them to opposite directions for many
captions. Where texts are given that negate a caption, a logistic regression on the text features says how likely a text is to negate, and
the mapped direction is turned round where that is likely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer.networks.negations import EVEN_ODDS
from spatialwhisperer.training.text.wordings import N_FOLDS

if TYPE_CHECKING:
    from spatialwhisperer.training.text.wordings import Wordings

TEXT_PENALTY = 0.1
"""Ridge penalty of a caption, for text features of length one. It sets how similar the directions of similar captions become."""

WORDING_PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Ridge penalties of other wordings, of which one is chosen. They are not smaller than that of a caption, which its rows have."""

SIGN_STRENGTH = 10.0
"""Inverse penalty of the logistic regression that tells texts that negate."""


@dataclass(frozen=True)
class Sign:
    """Whether a text says that something is there (1) or is not (-1), from its features.

    Attributes
    ----------
    weight, bias
        Of a logistic regression with classes of equal weight, shape (t,) and a number.
    """

    weight: np.ndarray
    bias: float

    def __call__(self, text: np.ndarray, odds: float | np.ndarray = EVEN_ODDS) -> np.ndarray:
        """Sign of text features (n, t): twice the probability of no negation, minus one, shape (n,).

        Parameters
        ----------
        text
            Features.
        odds
            That a text does not negate, before it is read, of all texts or of each, shape (n,). Texts of training are read at even
            odds; see `prior_odds` for those that are asked.
        """
        return np.tanh((text @ self.weight + self.bias + np.log(odds)) / 2)


@dataclass(frozen=True)
class TextMap:
    """Map of text features into the space of the directions.

    Attributes
    ----------
    weight
        Shape (d, t).
    sign
        What turns the direction of a text that negates; ``None`` where no text did in training.
    penalty
        Ridge penalty of the wordings; ``None`` where there are captions alone.
    """

    weight: np.ndarray
    sign: Sign | None = None
    penalty: float | None = None

    def __call__(self, text: np.ndarray, odds: float | np.ndarray = EVEN_ODDS) -> np.ndarray:
        """Directions of text features (n, t), shape (n, d); see :class:`Sign` for the odds."""
        return _signed(text, self.sign, odds) @ self.weight.T


def text_map(text: np.ndarray, directions: np.ndarray, penalty: float | np.ndarray = TEXT_PENALTY) -> np.ndarray:
    """Ridge regression from text features (c, t) to directions (d, c); a linear map (d, t).

    Parameters
    ----------
    text, directions
        Features and directions of texts. A text whose direction is zero has no part.
    penalty
        Of all texts, or of each, shape (c,).
    """
    known = np.abs(directions).sum(axis=0) > 0
    t, b = text[known], directions[:, known]
    each = np.broadcast_to(penalty, len(text))[known]
    if len(t) <= t.shape[1]:
        return b @ np.linalg.solve(t @ t.T + np.diag(each), t)
    # the same solution, by a system of the size of the features
    weighted = t / each[:, None]
    return np.linalg.solve(weighted.T @ t + np.eye(t.shape[1]), weighted.T @ b.T).T


def fit_text_map(text: np.ndarray, directions: np.ndarray, wordings: Wordings | None) -> TextMap:
    """Fit the map to captions and to other texts that speak of them.

    The penalty of the wordings is the one at which directions of wordings that are left out are most similar (cosine) to their own;
    captions keep theirs.

    Parameters
    ----------
    text
        Features of all texts, the captions first, shape (n_texts, t).
    directions
        Direction of each text, shape (d, n_texts).
    wordings
        Which other text says what of which caption; ``None`` where there are captions alone.
    """
    if wordings is None:
        return TextMap(text_map(text, directions))
    states, negated = wordings.states(len(text))
    kinds = np.unique(np.column_stack([states, negated]), axis=0, return_inverse=True)[1].ravel()
    fit = _Fit(text, directions, negated, wordings.n_captions)
    penalty = max(WORDING_PENALTIES, key=_left_out_cosines(fit, kinds, wordings.folds()).__getitem__)
    return fit.fitted(np.ones(len(text), bool), penalty)


@dataclass(frozen=True)
class _Fit:
    """Features (n, t), directions (d, n) and whether each text negates (n,); the captions are first."""

    text: np.ndarray
    directions: np.ndarray
    negated: np.ndarray
    n_captions: int

    def sign(self, keep: np.ndarray) -> Sign | None:
        """The sign learnt from some of the texts; ``None`` where none of them negates."""
        if not self.negated[keep].any():
            return None
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=SIGN_STRENGTH, class_weight="balanced", max_iter=1000)
        model.fit(self.text[keep], ~self.negated[keep])
        return Sign(model.coef_[0], float(model.intercept_[0]))

    def fitted(self, keep: np.ndarray, penalty: float, sign: Sign | None = None) -> TextMap:
        """The map of some of the texts, with a sign that was learnt before or is learnt now."""
        sign = self.sign(keep) if sign is None else sign
        each = np.where(np.arange(len(self.text)) < self.n_captions, TEXT_PENALTY, penalty)[keep]
        return TextMap(text_map(_signed(self.text[keep], sign), self.directions[:, keep], each), sign, penalty)


def _left_out_cosines(fit: _Fit, kinds: np.ndarray, folds: np.ndarray) -> dict[float, float]:
    """Mean cosine of the directions of left-out texts with their own, by penalty; texts that say the same count as one."""
    lengths = np.linalg.norm(fit.directions, axis=0)
    cosines = {penalty: np.full(len(fit.text), np.nan) for penalty in WORDING_PENALTIES}
    for number in range(N_FOLDS):
        out = (folds == number) & (lengths > 0)
        if not out.any():
            continue
        sign = fit.sign(folds != number)
        for penalty, found in cosines.items():
            z = fit.fitted(folds != number, penalty, sign)(fit.text[out])
            dots = (z * fit.directions[:, out].T).sum(axis=1)
            found[out] = dots / (np.linalg.norm(z, axis=1) * lengths[out]).clip(min=1e-12)
    return {penalty: _mean_of_means(found, kinds) for penalty, found in cosines.items()}


def _mean_of_means(values: np.ndarray, codes: np.ndarray) -> float:
    """Mean within each code, then over codes; NaN does not count."""
    known = np.isfinite(values)
    sums, counts = np.bincount(codes[known], values[known]), np.bincount(codes[known])
    return float((sums[counts > 0] / counts[counts > 0]).mean()) if known.any() else 0.0


def _signed(text: np.ndarray, sign: Sign | None, odds: float | np.ndarray = EVEN_ODDS) -> np.ndarray:
    return text if sign is None else sign(text, odds)[:, None] * text
