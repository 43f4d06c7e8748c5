"""Where the rows of a table lie on an array."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._access.scale import ARRAY_COLUMNS

if TYPE_CHECKING:
    from anndata import AnnData


def array_positions(table: AnnData, xy: np.ndarray | None) -> np.ndarray | None:
    """Array coordinates of each row, float64 (n, 2); ``None`` where nothing states them.

    Parameters
    ----------
    table
        The table; ``.obs['array_col']`` and ``.obs['array_row']`` count where they are there.
    xy
        Position of each row, which is counted in the distance between neighbours where they are not.
    """
    if all(c in table.obs for c in ARRAY_COLUMNS):
        return table.obs[list(ARRAY_COLUMNS)].to_numpy(dtype=np.float64)
    return None if xy is None else _lattice(xy)


def _lattice(xy: np.ndarray) -> np.ndarray:
    """Positions in units of the median distance between nearest places, rounded, from 1 on."""
    from scipy.spatial import cKDTree

    places = np.unique(xy[np.isfinite(xy).all(axis=1)], axis=0)
    spacing = np.median(cKDTree(places).query(places, k=2)[0][:, 1]) if len(places) > 1 else 1.0
    return 1 + np.round((xy - places.min(axis=0)) / spacing)
