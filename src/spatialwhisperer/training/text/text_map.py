"""The map of text features onto the directions of captions, in closed form.

It is a ridge regression, as in the bilinear model of Romera-Paredes & Torr (ICML 2015), in which captions have fixed attributes instead of
text features. Features of "tumour" and "no tumour" are alike, so that no linear map can take them to opposite directions for many
captions. Where texts are given that negate a caption, a logistic regression on the text features says how likely a text is to negate, and
the mapped direction is turned round by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

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
        Of a logistic regression, shape (t,) and a number.
    """

    weight: np.ndarray
    bias: float

    def __call__(self, text: np.ndarray) -> np.ndarray:
        """Sign of text features (n, t): twice the probability of no negation, minus one, shape (n,)."""
        return np.tanh((text @ self.weight + self.bias) / 2)


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

    def __call__(self, text: np.ndarray) -> np.ndarray:
        """Directions of text features (n, t), shape (n, d)."""
        return _signed(text, self.sign) @ self.weight.T


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

    A text has the mean direction of the captions that it states, or minus that of the captions that it negates: with presences centred
    within groups, the direction of the rows without a caption is exactly the opposite one. The penalty of the wordings is the one at
    which directions of wordings that are left out are most similar (cosine) to those of their captions; captions keep theirs.

    Parameters
    ----------
    text
        Features of all texts, the captions first, shape (n_texts, t).
    directions
        Directions of the captions, shape (d, c).
    wordings
        Which other text says what of which caption; ``None`` where there are captions alone.
    """
    if wordings is None:
        return TextMap(text_map(text, directions))
    fit = _Fit(text, *_targets(directions, wordings, len(text)))
    folds = np.r_[wordings.folds(), np.full(len(text), -1)][: len(text)]
    penalty = max(WORDING_PENALTIES, key=_left_out_cosines(fit, wordings, folds).__getitem__)
    return fit.fitted(np.ones(len(text), bool), penalty, wordings.n_captions)


@dataclass(frozen=True)
class _Fit:
    """Features (n, t), target directions (d, n) and whether each text negates (n,)."""

    text: np.ndarray
    targets: np.ndarray
    negated: np.ndarray

    def sign(self, keep: np.ndarray) -> Sign | None:
        """The sign learnt from some of the texts; ``None`` where none of them negates."""
        if not self.negated[keep].any():
            return None
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=SIGN_STRENGTH, class_weight="balanced", max_iter=1000)
        model.fit(self.text[keep], ~self.negated[keep])
        return Sign(model.coef_[0], float(model.intercept_[0]))

    def fitted(self, keep: np.ndarray, penalty: float, n_captions: int, sign: Sign | None = None) -> TextMap:
        """The map of some of the texts, with a sign that was learnt before or is learnt now."""
        sign = self.sign(keep) if sign is None else sign
        each = np.where(np.arange(len(self.text)) < n_captions, TEXT_PENALTY, penalty)[keep]
        return TextMap(text_map(_signed(self.text[keep], sign), self.targets[:, keep], each), sign, penalty)


def _left_out_cosines(fit: _Fit, wordings: Wordings, folds: np.ndarray) -> dict[float, float]:
    """Mean cosine of the directions of left-out texts with their targets, by penalty; each caption counts alike."""
    lengths = np.linalg.norm(fit.targets, axis=0)
    cosines = {penalty: np.full(len(fit.text), np.nan) for penalty in WORDING_PENALTIES}
    for number in range(N_FOLDS):
        out = (folds == number) & (lengths > 0)
        if not out.any():
            continue
        sign = fit.sign(folds != number)
        for penalty, found in cosines.items():
            z = fit.fitted(folds != number, penalty, wordings.n_captions, sign)(fit.text[out])
            dots = (z * fit.targets[:, out].T).sum(axis=1)
            found[out] = dots / (np.linalg.norm(z, axis=1) * lengths[out]).clip(min=1e-12)
    return {penalty: _by_caption(found, wordings) for penalty, found in cosines.items()}


def _by_caption(values: np.ndarray, wordings: Wordings) -> float:
    """Mean over the texts of each caption, those that negate by themselves, then over captions."""
    each = values[wordings.text]
    codes = (2 * wordings.caption + wordings.negated)[np.isfinite(each)]
    sums, counts = np.bincount(codes, each[np.isfinite(each)]), np.bincount(codes)
    return float((sums[counts > 0] / counts[counts > 0]).mean()) if len(codes) else 0.0


def _targets(directions: np.ndarray, wordings: Wordings, n_texts: int) -> tuple[np.ndarray, np.ndarray]:
    """Target direction (d, n_texts) of each text, and whether it negates (n_texts,)."""
    known = np.abs(directions).sum(axis=0) > 0
    targets = np.zeros((directions.shape[0], n_texts))
    counts, negated = np.zeros(n_texts), np.zeros(n_texts, bool)
    own = np.arange(wordings.n_captions)
    text, caption = np.r_[own, wordings.text], np.r_[own, wordings.caption]
    no = np.r_[np.zeros(len(own), bool), wordings.negated]
    negated[text] = no
    text, caption, no = (x[known[caption]] for x in (text, caption, no))
    np.add.at(targets.T, text, (np.where(no, -1, 1) * directions[:, caption]).T)
    np.add.at(counts, text, 1)
    return targets / counts.clip(min=1), negated


def _signed(text: np.ndarray, sign: Sign | None) -> np.ndarray:
    return text if sign is None else sign(text)[:, None] * text
