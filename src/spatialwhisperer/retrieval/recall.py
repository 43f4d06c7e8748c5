"""How often the own partner of a row is among the nearest rows of the other modality."""

from __future__ import annotations

import numpy as np

_FLOATS = 2**24
"""Numbers of one block of similarities."""


def partner_ranks(queries: np.ndarray, keys: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Rank of each query's own key among the keys of its group, by cosine similarity.

    Parameters
    ----------
    queries, keys
        Rows of one length that belong together in their order, shape (n, u).
    groups
        Group of each row, shape (n,); keys of other groups do not count.

    Returns
    -------
    Ranks from 1, shape (n,). Keys that are as similar as the own one count half, so that a constant embedding is as good as chance.

    Examples
    --------
    >>> import numpy as np
    >>> from spatialwhisperer.retrieval.recall import partner_ranks
    >>> a, b = np.eye(3), np.eye(3)[[0, 2, 1]]
    >>> partner_ranks(a, b, np.zeros(3)).tolist()
    [1.0, 2.5, 2.5]
    """
    queries, keys = _unit(queries), _unit(keys)
    ranks = np.empty(len(queries))
    for group in np.unique(groups):
        inside = np.flatnonzero(groups == group)
        own_keys = keys[inside].T
        for rows in np.array_split(inside, -(-(len(inside) ** 2) // _FLOATS)):
            similarity = queries[rows] @ own_keys
            own = similarity[np.arange(len(rows)), np.searchsorted(inside, rows)][:, None]
            above, equal = (similarity > own).sum(axis=1), (similarity == own).sum(axis=1)
            ranks[rows] = above + (equal + 1) / 2
    return ranks


def _unit(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, dtype=np.float64)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(length > 0, length, 1.0))
