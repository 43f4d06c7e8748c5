"""Nearest neighbours of rows in space, within each section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

_FARTHEST = 1e100
"""Squares of larger distances are not finite."""


@dataclass(frozen=True)
class Neighbourhood:
    """Nearest rows of each row within its own section.

    Attributes
    ----------
    index
        int64 (n, 1 + k). Column 0 is the row itself, followed by its neighbours, nearest first; -1 where there is none.
    offsets
        float32 (n, 1 + k, 2). Position of the neighbour minus that of the row, in units of the spacing of the section (the median
        distance between nearest positions); 0 where there is no neighbour.
    """

    index: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.index)


def section_neighbours(xy: np.ndarray, sections: Sequence[Any] | np.ndarray, k: int) -> Neighbourhood:
    """Find the nearest rows of each row in its own section.

    Among equally near rows the choice depends on their positions only, not on the order of the rows. A square lattice
    has complete rings at k = 4 and 8, a hexagonal lattice (Visium) at k = 6 and 18.

    Parameters
    ----------
    xy
        Positions, shape (n, 2), in any unit. A row with NaN has no neighbours and is not a neighbour of any row.
    sections
        Section of each row, shape (n,). A row without a section (NaN, None) has no neighbours.
    k
        Number of neighbours. In a section with fewer rows all other rows are neighbours.

    Raises
    ------
    ValueError
        If the shapes do not match or ``k`` is not a positive whole number.

    Examples
    --------
    >>> import numpy as np
    >>> from spatialwhisperer.retrieval.neighbours import section_neighbours
    >>> xy = np.array([[0.0, 0.0], [10.0, 0.0], [30.0, 0.0], [0.0, 0.0]])
    >>> section_neighbours(xy, ["a", "a", "a", "b"], k=2).index.tolist()
    [[0, 1, 2], [1, 0, 2], [2, 1, 0], [3, -1, -1]]
    """
    import pandas as pd

    xy = np.asarray(xy, dtype=np.float64)
    codes = pd.factorize(np.asarray(sections))[0]
    if xy.ndim != 2 or xy.shape[1] != 2 or codes.shape != (len(xy),):
        raise ValueError(f"xy must have shape (n, 2) and sections (n,), not {xy.shape} and {codes.shape}.")
    if isinstance(k, bool) or int(k) != k or k < 1:
        raise ValueError(f"k must be a positive whole number, not {k!r}.")
    k = int(k)
    index = np.full((len(xy), 1 + k), -1, np.int64)
    index[:, 0] = np.arange(len(xy))
    offsets = np.zeros((len(xy), 1 + k, 2), np.float32)
    placed = np.isfinite(xy).all(axis=1) & (codes >= 0)
    if np.abs(xy[placed]).max(initial=0) > _FARTHEST:
        raise ValueError(
            f"Positions must lie within ±{_FARTHEST:g}; found {np.abs(xy[placed]).max():g}. Check their unit."
        )
    # sorted by position, so that ties are broken in the same way whatever the order of the rows
    order = np.lexsort((xy[:, 1], xy[:, 0], codes))
    order = order[placed[order]]
    for rows in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        if len(rows) < 2:
            continue
        near, spacing = _nearest(xy[rows], k)
        index[rows, 1 : 1 + near.shape[1]] = rows[near]
        offsets[rows, 1 : 1 + near.shape[1]] = (xy[rows[near]] - xy[rows][:, None]) / spacing
    return Neighbourhood(index, offsets)


def _nearest(xy: np.ndarray, k: int) -> tuple[np.ndarray, float]:
    """Nearest other points of at least two points, shape (n, at most k), and the median distance between nearest positions."""
    from scipy.spatial import cKDTree

    k = min(k, len(xy) - 1)
    near = cKDTree(xy).query(xy, k=k + 1)[1]
    itself = near == np.arange(len(xy))[:, None]
    # where more than k points are in one place, a point may be missing from its own neighbours: then the last one is removed
    itself[~itself.any(axis=1), -1] = True
    places = np.unique(xy, axis=0)
    spacing = float(np.median(cKDTree(places).query(places, k=2)[0][:, 1])) if len(places) > 1 else 1.0
    return near[~itself].reshape(len(xy), k), spacing
