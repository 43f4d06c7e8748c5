"""Where the rows of a table lie on an array."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialwhisperer._access.sections.lattice import array_indices, say_unread_indices
from spatialwhisperer._access.tables import obs_of

if TYPE_CHECKING:
    from anndata import AnnData


def array_positions(table: AnnData, xy: np.ndarray | None, sections: np.ndarray) -> np.ndarray | None:
    """Array coordinates of each row, float64 (n, 2); ``None`` where nothing states them.

    Parameters
    ----------
    table
        The table, whose columns ``.obs['array_col']`` and ``.obs['array_row']`` are taken where they hold numbers.
    xy
        Position of each row, shape (n, 2). Without these columns it is counted in units of the distance between neighbours.
    sections
        Section of each row, shape (n,). The distance between neighbours is that of the section.
    """
    indices = array_indices(obs_of(table))
    if indices is not None:
        return indices
    say_unread_indices(obs_of(table))
    if xy is None:
        return None
    out = np.full(xy.shape, np.nan)
    for section in pd.unique(sections):
        rows = sections == section
        out[rows] = _lattice(xy[rows])
    return out


def _lattice(xy: np.ndarray) -> np.ndarray:
    """Positions in units of the median distance between nearest places, rounded, from 1 on; NaN stays NaN."""
    from scipy.spatial import cKDTree

    places = np.unique(xy[np.isfinite(xy).all(axis=1)], axis=0)
    if not len(places):
        return np.full(xy.shape, np.nan)
    spacing = np.median(cKDTree(places).query(places, k=2)[0][:, 1]) if len(places) > 1 else 1.0
    return 1 + np.round((xy - places.min(axis=0)) / (spacing or 1.0))
