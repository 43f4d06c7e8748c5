"""The area under the ROC curve, and what each row contributes to it."""

from __future__ import annotations

import numpy as np


def auroc(scores: np.ndarray, present: np.ndarray) -> float:
    """Area under the ROC curve: probability that a present row scores above an absent one, ties counting half.

    Parameters
    ----------
    scores
        Shape (n,).
    present
        Whether each row belongs to the class, Boolean, shape (n,).

    Returns
    -------
    A number; NaN where there is no present or no absent row.
    """
    return float(placements(scores, present)[present].mean()) if 0 < present.sum() < len(present) else np.nan


def placements(scores: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Fraction of the rows of the other kind that each row is ranked correctly against, ties counting half.

    The mean over the present rows is the AUROC, and so is the mean over the absent rows (DeLong et al., Biometrics 1988).

    Parameters
    ----------
    scores, present
        As in :func:`auroc`; both kinds of rows are there.

    Returns
    -------
    Shape (n,).
    """
    from scipy.stats import rankdata

    out = np.empty(len(scores))
    overall = rankdata(scores)
    for kind in (present, ~present):
        others = (~kind).sum()
        below = (overall[kind] - rankdata(scores[kind])) / others
        out[kind] = below if kind is present else 1 - below
    return out


def influence(scores: np.ndarray, present: np.ndarray) -> np.ndarray:
    """How much each row moves the AUROC: influence values with mean 0, shape (n,)."""
    n, above = len(scores), placements(scores, present) - auroc(scores, present)
    return above * np.where(present, n / present.sum(), n / (~present).sum())
