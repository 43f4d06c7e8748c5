"""Where the rows of a table lie: the positions that it stores, and those on an array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialwhisperer._access.contract import number_matrix
from spatialwhisperer._access.sections.lattice import array_indices, say_unread_indices
from spatialwhisperer._access.tables import obs_of

if TYPE_CHECKING:
    from anndata import AnnData

_NAMES = (("x", "y"), ("pxl_col", "pxl_row"))
"""What the names of the columns of x and y begin with. Space Ranger names pixels, the row (y) first."""


def stored_positions(table: AnnData) -> np.ndarray:
    """Position of each row in ``.obsm["spatial"]``, x before y, float64, shape (n, 2). See `xy_columns`.

    Raises
    ------
    ValueError
        If they are no numbers, or there are fewer than two columns.
    """
    return number_matrix(xy_part(table.obsm["spatial"]), ".obsm['spatial']", least_columns=2)[:, :2]


def xy_part(values: Any) -> Any:
    """What ``.obsm["spatial"]`` holds with x and y first: of a DataFrame whose columns have names, these two."""
    return values if (columns := xy_columns(values)) is None else values.iloc[:, columns]


def xy_columns(values: Any) -> list[int] | None:
    """Number of the columns of x and y that are named "x" and "y", or "pxl_col…" and "pxl_row…", in a DataFrame.

    ``None`` for an array, and where no pair of columns is named so: the first two count, as for squidpy and scanpy.
    """
    if not isinstance(values, pd.DataFrame):
        return None
    names = [str(name).strip().casefold() for name in values.columns]
    for pair in _NAMES:
        found = [[i for i, name in enumerate(names) if _is(name, axis)] for axis in pair]
        if all(len(own) == 1 for own in found):
            return [own[0] for own in found]
    return None


def _is(name: str, axis: str) -> bool:
    return name == axis if len(axis) == 1 else name.startswith(axis)


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
