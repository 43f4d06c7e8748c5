"""How often the own partner of a row is among the nearest rows of the other modality."""

from __future__ import annotations

import numpy as np

from spatialwhisperer._compute.ties import Ranks, ranks

_FLOATS = 2**24
"""Numbers of one block of similarities."""


def partner_ranks(queries: np.ndarray, keys: np.ndarray, groups: np.ndarray) -> Ranks:
    """Rank of each query's own key among the keys of its group, by cosine similarity.

    Parameters
    ----------
    queries, keys
        Rows of one length that belong together in their order, shape (n, u).
    groups
        Group of each row, shape (n,); keys of other groups do not count.

    Returns
    -------
    How many keys are more similar than the own one, and how many as similar. Of the latter each is equally likely to come first, so
    that a constant embedding is as good as chance.

    Examples
    --------
    >>> import numpy as np
    >>> from spatialwhisperer.retrieval.recall import partner_ranks
    >>> a, b = np.eye(3), np.eye(3)[[0, 2, 1]]
    >>> found = partner_ranks(a, b, np.zeros(3))
    >>> found.mean.tolist(), found.within(1).tolist()
    ([1.0, 2.5, 2.5], [1.0, 0.0, 0.0])
    """
    queries, keys = _unit(queries), _unit(keys)
    out = Ranks(np.empty(len(queries)), np.empty(len(queries)))
    for group in np.unique(groups):
        inside = np.flatnonzero(groups == group)
        own_keys = keys[inside].T
        for rows in np.array_split(inside, -(-(len(inside) ** 2) // _FLOATS)):
            out.above[rows], out.equal[rows] = ranks(queries[rows] @ own_keys, np.searchsorted(inside, rows))
    return out


def _unit(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, dtype=np.float64)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(length > 0, length, 1.0))
