"""How reliable counted expression is, from counts that are split at random into halves."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def halves(counts: sp.csr_matrix, rng: np.random.Generator) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Split raw counts into two halves: every molecule goes to the first with probability 1/2.

    Halves of Poisson counts are independent given the expected count, so that they share nothing but the expectation.

    Parameters
    ----------
    counts
        Raw counts, CSR, shape (n, g).
    rng
        Source of random numbers.

    Returns
    -------
    Two matrices of float32 whose sum is the counts.
    """
    whole = sp.csr_matrix(counts)
    first = whole.astype(np.float32)
    first.data = rng.binomial(whole.data.astype(np.int64), 0.5).astype(np.float32)
    return first, sp.csr_matrix(whole - first).astype(np.float32)


def reliability(r: np.ndarray) -> np.ndarray:
    """Reliability of all counts from the correlation r of their halves: ``2 r / (1 + r)``, and 0 for r below 0 (Spearman; Brown 1910).

    Its square root is the largest correlation that a prediction can have in expectation: that of the true expected expression with what
    was counted. The formula is exact for counts. In logarithms halves are noisier than half of the counts would be, and the ceiling of
    genes with few counts is a little too low.

    Examples
    --------
    >>> reliability(np.array([0.5, 0.0, -0.2, np.nan])).round(3).tolist()
    [0.667, 0.0, 0.0, nan]
    """
    r = np.asarray(r, np.float64)
    return np.asarray(2 * r.clip(min=0) / (1 + r.clip(min=0)))
