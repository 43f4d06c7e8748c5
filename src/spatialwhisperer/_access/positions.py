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
        Integer array coordinates (``.obs['array_col']`` and ``.obs['array_row']``) instead of ``.obsm['spatial']``.
    """
    if "spatial" in table.obsm and not array:
        return np.asarray(table.obsm["spatial"], dtype=np.float64)[:, :2]
    if all(c in table.obs for c in ARRAY_COLUMNS):
        return table.obs[list(ARRAY_COLUMNS)].to_numpy(dtype=np.float64)
    return None
