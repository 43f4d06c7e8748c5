"""Where the rows of a table lie, for whatever looks at neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData

ARRAY_COLUMNS = ("array_col", "array_row")


def positions(table: AnnData, *, array: bool = False) -> np.ndarray | None:
    """Position of each row, float64 (n, 2), in a unit that is one within a section; ``None`` where nothing states it.

    Parameters
    ----------
    table
        The table.
    array
        Whole-numbered array coordinates: ``.obs['array_col']`` and ``.obs['array_row']``, or ``.obsm['spatial']`` counted in
        the distance between neighbours where there are none.
    """
    spatial = np.asarray(table.obsm["spatial"], dtype=np.float64)[:, :2] if "spatial" in table.obsm else None
    if spatial is not None and not array:
        return spatial
    if all(c in table.obs for c in ARRAY_COLUMNS):
        return table.obs[list(ARRAY_COLUMNS)].to_numpy(dtype=np.float64)
    return None if spatial is None else _lattice(spatial)


def _lattice(xy: np.ndarray) -> np.ndarray:
    """Positions in units of the median distance between nearest places, rounded, from 1 on."""
    from scipy.spatial import cKDTree

    places = np.unique(xy[np.isfinite(xy).all(axis=1)], axis=0)
    spacing = np.median(cKDTree(places).query(places, k=2)[0][:, 1]) if len(places) > 1 else 1.0
    return 1 + np.round((xy - places.min(axis=0)) / spacing)
