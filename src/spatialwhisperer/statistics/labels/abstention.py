"""The confidence below which a label is worth less than none."""

from __future__ import annotations

import numpy as np

THRESHOLDS = tuple(percent / 100 for percent in range(50, 100))
FEWEST = 0.25
"""Fraction of the rows of each section that keep a label at least."""

ERRORS = 2.0
"""Standard errors by which the labels that are kept are better than the commonest class."""


def least_confidence(confidence: np.ndarray, right: np.ndarray, sections: np.ndarray, commonest: np.ndarray) -> float:
    """Smallest confidence at which labels are worth more than naming the commonest class of their section throughout.

    It is the smallest one, from one half upwards in steps of a hundredth, at which in every section the accuracy of the rows that
    keep their label exceeds the fraction of the commonest class by two standard errors. Where there is none, it is the one at which
    the section that gains least gains most. At least a quarter of the rows of each section keep their label.

    Parameters
    ----------
    confidence
        Probability of the best label of each row, shape (n,). Take the scores from a model that has not seen the row.
    right
        Whether that label is correct, shape (n,).
    sections
        Section of each row, shape (n,).
    commonest
        Whether the commonest class of its section is correct in the row, shape (n,).

    Returns
    -------
    Between 0.5 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> from spatialwhisperer.statistics.labels.abstention import least_confidence
    >>> confidence = np.repeat([0.55, 0.9], 100)
    >>> right = np.r_[np.arange(100) < 40, np.arange(100) < 95]  # 40 % and 95 % are correct
    >>> round(least_confidence(confidence, right, np.zeros(200), np.arange(200) % 10 < 7), 2)
    0.56
    """
    codes = np.unique(np.asarray(sections).astype(str), return_inverse=True)[1]
    best = (-np.inf, THRESHOLDS[0])
    for least in THRESHOLDS:
        gains = []
        for code in range(codes.max(initial=0) + 1):
            own = codes == code
            kept = own & (confidence >= least)
            if kept.sum() < max(1, FEWEST * own.sum()):
                return float(best[1])
            accuracy = right[kept].mean()
            error = np.sqrt(accuracy * (1 - accuracy) / kept.sum())
            gains.append(accuracy - commonest[own].mean() - ERRORS * error)
        if min(gains) > best[0]:
            best = (min(gains), least)
        if min(gains) > 0:
            return float(least)
    return float(best[1])


def commonest_class(correct: np.ndarray, sections: np.ndarray) -> np.ndarray:
    """Whether the label that is correct in most rows of its section is correct in the row, Boolean of shape (n,)."""
    out = np.zeros(len(correct), bool)
    names = np.asarray(sections).astype(str)
    for section in np.unique(names):
        own = names == section
        out[own] = correct[own][:, correct[own].mean(axis=0).argmax()]
    return out
