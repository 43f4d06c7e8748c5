"""Confidence intervals by resampling blocks of rows, and the area under the ROC curve of weighted rows."""

from __future__ import annotations

import numpy as np

BLOCK_ROWS = 12
"""Rows in a block of neighbouring spots. Neighbours are not independent, so they are drawn together."""


class Bootstrap:
    """Block bootstrap: blocks of rows are drawn with replacement, as many as there are.

    Parameters
    ----------
    blocks
        Block of each row, shape (n,).
    n
        Number of resamplings.
    random_state
        Seed.

    Attributes
    ----------
    weights
        How often each row was drawn, shape (resamplings, rows).
    n_blocks
        Number of distinct blocks.

    Examples
    --------
    >>> import numpy as np
    >>> from spatialwhisperer.statistics.bootstrap import Bootstrap
    >>> low, high = Bootstrap(np.arange(100), 200, 0).mean(np.arange(100.0))
    >>> bool(low < 49.5 < high)
    True
    """

    def __init__(self, blocks: np.ndarray, n: int, random_state: int = 0) -> None:
        codes = np.unique(np.asarray(blocks), return_inverse=True)[1]
        self.n_blocks = int(codes.max(initial=-1)) + 1
        rng = np.random.default_rng(random_state)
        drawn = rng.multinomial(self.n_blocks, np.full(max(self.n_blocks, 1), 1 / max(self.n_blocks, 1)), size=n)
        self.weights = drawn[:, codes].astype(np.float64)

    def means(self, values: np.ndarray) -> np.ndarray:
        """Mean of the values, shape (n,), in each resampling, shape (resamplings,); rows with NaN are left out."""
        known = np.isfinite(values)
        total = self.weights[:, known].sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(total > 0, self.weights[:, known] @ values[known] / total, np.nan)

    def mean(self, values: np.ndarray) -> tuple[float, float]:
        """95 % confidence interval of the mean of the values, shape (n,)."""
        return interval(self.means(values))


def interval(samples: np.ndarray) -> tuple[float, float]:
    """Quantiles 2.5 % and 97.5 % of resampled values; NaN where fewer than half of the values are defined."""
    known = samples[np.isfinite(samples)]
    if len(known) < max(2, len(samples) / 2):
        return np.nan, np.nan
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def spatial_blocks(positions: np.ndarray | None, sections: np.ndarray, rows: int = BLOCK_ROWS) -> np.ndarray:
    """Cut each section into blocks of about ``rows`` neighbouring rows.

    Parameters
    ----------
    positions
        Position of each row, shape (n, 2), in any unit. Where it is ``None`` or not finite, every row is a block of its own.
    sections
        Section of each row, shape (n,).
    rows
        Number of rows in a block.

    Returns
    -------
    Integer code of the block of each row, shape (n,).
    """
    n = len(sections)
    if positions is None or not np.isfinite(positions).all():
        return np.arange(n)
    out = np.empty(n, int)
    used = 0
    for name in np.unique(sections.astype(str)):
        inside = np.flatnonzero(sections.astype(str) == name)
        parts = max(1, round(np.sqrt(len(inside) / rows)))
        column = _cut(positions[inside, 0], parts)
        for c in range(parts):
            strip = inside[column == c]
            out[strip] = used + _cut(positions[strip, 1], parts)
            used += parts
    return out


def _cut(values: np.ndarray, parts: int) -> np.ndarray:
    """Code of the part of each value, when the sorted values are cut into parts of equal size."""
    rank = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return rank * parts // max(len(values), 1)


def auroc(scores: np.ndarray, present: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the ROC curve: probability that a present row scores above an absent one, ties counting half.

    Parameters
    ----------
    scores
        Shape (n,).
    present
        Whether each row belongs to the class, Boolean, shape (n,).
    weights
        Weights of the rows, shape (b, n), such as :attr:`Bootstrap.weights`; ``None`` gives every row the weight 1.

    Returns
    -------
    Shape (b,), or a number without weights; NaN where there is no present or no absent row.
    """
    single = weights is None
    w = np.ones((1, len(scores))) if weights is None else weights
    order = np.argsort(scores, kind="stable")
    # rows of equal score form a group, and a pair of rows inside it counts half
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
    on = np.add.reduceat(w[:, order] * present[order], starts, axis=1)
    off = np.add.reduceat(w[:, order] * ~present[order], starts, axis=1)
    below = np.cumsum(off, axis=1) - off
    pairs = on.sum(axis=1) * off.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        out = np.where(pairs > 0, (on * (below + off / 2)).sum(axis=1) / pairs, np.nan)
    return out[0] if single else out
