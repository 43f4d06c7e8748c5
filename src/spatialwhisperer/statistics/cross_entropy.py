"""How much the counts of a row differ from the expression of known cell types and tissues, whatever their depth.

An encoder maps any counts to some embedding, and unfamiliar counts often to the centre of the embeddings it was trained on. The
embedding therefore does not show that counts are unfamiliar. So the counts themselves are compared with the mean expression
profiles of rows that had captions in training.
"""

from __future__ import annotations

from typing import Any

import numpy as np

FEWEST_COUNTS = 20
"""Rows with fewer counts than this in the compared genes get NaN."""

_PSEUDO = 1e-7


def log_profiles(counts: Any, codes: np.ndarray, n: int) -> np.ndarray:
    """Logarithm of the fraction of each gene in the pooled counts of each profile, slightly smoothed.

    Parameters
    ----------
    counts
        Raw counts, CSR, shape (rows, genes).
    codes
        Profile that each row belongs to, shape (rows,).
    n
        Number of profiles.

    Returns
    -------
    float64 (n, genes); NaN for a profile without counts.
    """
    import scipy.sparse as sp

    member = sp.csr_matrix((np.ones(len(codes)), (codes, np.arange(len(codes)))), shape=(n, len(codes)))
    pooled = np.asarray((member @ counts).todense(), dtype=np.float64)
    whole = pooled.sum(axis=0)
    # a gene without counts in a profile gets its fraction over all profiles, with the weight of one count in ten thousand
    background = (whole + 1) / (whole + 1).sum()
    total = pooled.sum(axis=1, keepdims=True)
    fractions = (pooled + 1e-4 * total * background) / np.maximum(total * (1 + 1e-4), 1e-12)
    return np.log(np.where(total > 0, fractions.clip(min=_PSEUDO), np.nan))


def excess_cross_entropy(counts: Any, log_profile: np.ndarray, have: np.ndarray | None = None) -> np.ndarray:
    """Excess cross-entropy of each row under the profile that fits it best, in nats per count.

    This is the cross-entropy of the counts of a row under a profile, minus the entropy of that profile. It is 0 on average for counts
    drawn from the profile, at any depth, and positive where genes are high that are low in the profile.

    Parameters
    ----------
    counts
        Raw counts, CSR, shape (n, genes).
    log_profile
        Logarithms of fractions, as `log_profiles` returns them, shape (c, genes); rows with NaN are left out.
    have
        Which genes were measured, Boolean, shape (genes,); the profiles are rescaled to these genes. ``None`` means all.

    Returns
    -------
    Shape (n,); NaN for rows with fewer than `FEWEST_COUNTS` counts.
    """
    from scipy.special import entr, log_softmax

    if have is not None:
        counts, log_profile = counts[:, have], log_profile[:, have]
    log_profile = log_profile[np.isfinite(log_profile).all(axis=1)]
    if not counts.shape[1] or not len(log_profile):
        return np.full(counts.shape[0], np.nan)
    log_fraction = log_softmax(log_profile, axis=1)
    entropy = entr(np.exp(log_fraction)).sum(axis=1)
    depth = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    cross = -np.asarray(counts @ log_fraction.T) / np.maximum(depth, 1)[:, None]
    best = cross.argmin(axis=1)
    out = cross[np.arange(len(best)), best] - entropy[best]
    return np.where(depth >= FEWEST_COUNTS, out, np.nan)


def left_out_excess(counts: Any, codes: np.ndarray, n: int, groups: np.ndarray) -> np.ndarray:
    """Excess cross-entropy of each row under the profiles of the other groups, shape (rows,).

    These are the values to expect of new tissue of the same kind. Where there is only one group, it is cut into two halves.

    Parameters
    ----------
    counts, codes, n
        As in `log_profiles`.
    groups
        Patient or other group of each row, shape (rows,).
    """
    if len(np.unique(groups)) < 2:
        groups = np.arange(len(groups)) % 2
    out = np.full(len(groups), np.nan)
    for name in np.unique(groups):
        inside = groups == name
        out[inside] = excess_cross_entropy(counts[inside], log_profiles(counts[~inside], codes[~inside], n))
    return out
