"""Ranks among similarities, where those that differ by rounding alone are equal."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

ROUNDING = 1e-10
"""Cosine similarities that differ by less are equal. A matrix product of float64 rounds them by less, in another way in each place."""


class Ranks(NamedTuple):
    """Where one candidate of each row stands among all of them.

    Attributes
    ----------
    above
        Number of candidates that are more similar, shape (n,).
    equal
        Number of candidates that are as similar, itself among them, shape (n,).
    """

    above: np.ndarray
    equal: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Rank from 1, the mean over those that are as similar; shape (n,)."""
        return self.above + (self.equal + 1) / 2

    def within(self, k: int) -> np.ndarray:
        """Probability of being among the k most similar where ties are broken at random, shape (n,)."""
        return np.clip((k - self.above) / self.equal, 0, 1)


def ranks(similar: np.ndarray, own: np.ndarray) -> Ranks:
    """Rank one candidate of each row.

    Parameters
    ----------
    similar
        Cosine similarity of each row to each candidate, float64, shape (n, candidates).
    own
        Which candidate is ranked, shape (n,).
    """
    mine = similar[np.arange(len(similar)), own][:, None]
    above = (similar > mine + ROUNDING).sum(axis=1)
    return Ranks(above, (similar >= mine - ROUNDING).sum(axis=1) - above)
