"""The area under the ROC curve, and what each row contributes to it."""

from __future__ import annotations

import numpy as np

from spatialwhisperer._compute.blocks import blocks, each

_COLUMNS = 16


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
    A number; NaN where there is no present or no absent row, or a score is NaN.
    """
    n, n_present = len(present), int(np.count_nonzero(present))
    if not 0 < n_present < n:
        return np.nan
    order = scores.argsort()
    ranked = scores[order]
    if np.isnan(ranked[-1]):
        return np.nan
    # rows of equal score are a group, and count half against each other; in whole numbers there is no rounding
    last = np.flatnonzero(np.concatenate([ranked[1:] != ranked[:-1], [True]]))
    found = np.cumsum(present[order])[last]
    own, size = np.diff(found, prepend=0), np.diff(last, prepend=-1)
    below = last + 1 - found - (size - own)
    return int((own * (2 * below + size - own)).sum()) / (2 * n_present * (n - n_present))


def aurocs(scores: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """AUROC of each column against the rows with its code, on all cores.

    Parameters
    ----------
    scores
        Shape (n, c).
    codes
        Which column each row belongs to, shape (n,).

    Returns
    -------
    Shape (c,); NaN as in :func:`auroc`.

    Examples
    --------
    >>> import numpy as np
    >>> from spatialwhisperer.statistics.intervals.auroc import aurocs
    >>> aurocs(np.array([[0.9, 0.1], [0.2, 0.2], [0.4, 0.2]]), np.array([0, 1, 1])).tolist()
    [1.0, 1.0]
    """

    def of(columns: slice) -> list[float]:
        # several columns at once, because neighbours in a row share a line of the cache
        part = np.ascontiguousarray(scores[:, columns].T)
        return [auroc(own, codes == columns.start + i) for i, own in enumerate(part)]

    return np.array([value for part in each(of, blocks(scores.shape[1], 1, _COLUMNS)) for value in part], np.float64)


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
