"""How unlike known tissue a row's counts are, whatever their depth: what an embedding does not see it cannot tell.

An encoder maps any counts somewhere, and counts that it makes nothing of often to the middle of what it knows. So the counts
themselves are compared with the expression of rows that had captions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

FEWEST_COUNTS = 20
"""Counts in the genes below which a row says nothing."""

_PSEUDO = 1e-7


def log_profiles(counts: Any, codes: np.ndarray, n: int) -> np.ndarray:
    """Logarithm of the share of each gene in the pooled counts of each code, a little smoothed.

    Parameters
    ----------
    counts
        CSR, shape (rows, genes).
    codes
        Profile that each row belongs to, shape (rows,).
    n
        Number of profiles.

    Returns
    -------
    float64 (n, genes); NaN for a code without counts.
    """
    import scipy.sparse as sp

    member = sp.csr_matrix((np.ones(len(codes)), (codes, np.arange(len(codes)))), shape=(n, len(codes)))
    pooled = np.asarray((member @ counts).todense(), dtype=np.float64)
    whole = pooled.sum(axis=0)
    # genes that a profile lacks get the share of all profiles together at the weight of one count in ten thousand
    background = (whole + 1) / (whole + 1).sum()
    total = pooled.sum(axis=1, keepdims=True)
    shares = (pooled + 1e-4 * total * background) / np.maximum(total * (1 + 1e-4), 1e-12)
    return np.log(np.where(total > 0, shares.clip(min=_PSEUDO), np.nan))


def excess_cross_entropy(counts: Any, log_profile: np.ndarray, have: np.ndarray | None = None) -> np.ndarray:
    """Nats per count by which rows are harder to say than rows of the profile that fits them best.

    The cross-entropy of a row's counts under a profile less the entropy of the profile: 0 on average for counts drawn from it, at
    any depth, and positive where genes are high that the profile has low.

    Parameters
    ----------
    counts
        CSR, shape (n, genes).
    log_profile
        From `log_profiles`, shape (c, genes).
    have
        Genes that were measured, Boolean; the profiles are rescaled to them.

    Returns
    -------
    Shape (n,); NaN for rows with fewer than 20 counts.
    """
    if have is not None:
        counts, log_profile = counts[:, have], log_profile[:, have]
    log_profile = log_profile[np.isfinite(log_profile).all(axis=1)]
    if not counts.shape[1] or not len(log_profile):
        return np.full(counts.shape[0], np.nan)
    log_share = log_profile - np.log(np.exp(log_profile).sum(axis=1, keepdims=True))
    entropy = -(np.exp(log_share) * log_share).sum(axis=1)
    depth = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    cross = -np.asarray(counts @ log_share.T) / np.maximum(depth, 1)[:, None]
    best = cross.argmin(axis=1)
    out = cross[np.arange(len(best)), best] - entropy[best]
    return np.where(depth >= FEWEST_COUNTS, out, np.nan)


def left_out_excess(counts: Any, codes: np.ndarray, n: int, groups: np.ndarray) -> np.ndarray:
    """Surprise of each row under profiles of the other groups: what new tissue of the same kind would get, shape (rows,).

    One group is cut into halves, which are left out in turn.
    """
    if len(np.unique(groups)) < 2:
        groups = np.arange(len(groups)) % 2
    out = np.full(len(groups), np.nan)
    for name in np.unique(groups):
        inside = groups == name
        out[inside] = excess_cross_entropy(counts[inside], log_profiles(counts[~inside], codes[~inside], n))
    return out
