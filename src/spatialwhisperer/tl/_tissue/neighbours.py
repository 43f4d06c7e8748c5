"""Who lies beside whom on the tissue."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from spatialwhisperer._access import get_table, section_codes, sections
from spatialwhisperer._access.slots import column
from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData


def section_names(data: Any, table: AnnData, library_key: str | None, table_key: str | None) -> np.ndarray:
    """Section of each row."""
    if library_key is not None and "spatial" not in table.uns:
        return column(table, library_key, "library_key").astype(str)
    return section_codes(data, table_key=table_key, library_key=library_key)


def spatial_graph(
    data: Any, *, n_neighs: int, neighbors_key: str | None, library_key: str | None, table_key: str | None
) -> sp.csr_matrix:
    """Neighbours on the tissue, symmetric, 0 or 1 (or the weights of a given graph), none across sections; shape (n, n).

    Raises
    ------
    KeyError
        If the given graph, or the positions, do not exist.
    ValueError
        If ``n_neighs`` is below one.
    """
    table = get_table(data, table_key)
    if neighbors_key is not None:
        slot = f"{neighbors_key}_connectivities"
        if slot not in table.obsp:
            raise KeyError(
                f"{slot!r} is not in .obsp (found: {listing(table.obsp)}). Run sq.gr.spatial_neighbors_knn(adata, "
                f"key_added={neighbors_key!r}) first, or leave neighbors_key out."
            )
        return sp.csr_matrix(table.obsp[slot], dtype=np.float64)
    if n_neighs < 1:
        raise ValueError(f"n_neighs must be at least 1, not {n_neighs!r}.")
    xy = _positions(data, table, table_key)
    names = section_names(data, table, library_key, table_key)
    blocks = [
        (rows, _nearest(xy[rows], n_neighs)) for name in np.unique(names) for rows in [np.flatnonzero(names == name)]
    ]
    row = np.concatenate([rows[b.row] for rows, b in blocks])
    col = np.concatenate([rows[b.col] for rows, b in blocks])
    return sp.csr_matrix((np.ones(len(row)), (row, col)), shape=(table.n_obs, table.n_obs))


def _positions(data: Any, table: AnnData, table_key: str | None) -> np.ndarray:
    if "spatial" in table.obsm:
        xy = np.asarray(table.obsm["spatial"], dtype=float)[:, :2]
    else:
        xy = np.full((table.n_obs, 2), np.nan)
        for section in sections(data, table_key=table_key, need_mpp=False):
            xy[section.rows] = section.xy_px
    if not np.isfinite(xy).all():
        raise ValueError(f"{int((~np.isfinite(xy)).any(axis=1).sum())} rows have no position; smooth=0 needs none.")
    return xy


def _nearest(xy: np.ndarray, n_neighs: int) -> sp.coo_matrix:
    """Nearest rows of one section, by squidpy, made symmetric."""
    n = len(xy)
    if n < 2:
        return sp.coo_matrix((n, n))
    import anndata as ad
    import squidpy as sq

    bare = ad.AnnData(sp.csr_matrix((n, 0)), obsm={"spatial": xy})
    with _quiet():
        graph = sq.gr.spatial_neighbors_knn(bare, n_neighs=min(n_neighs, n - 1), copy=True).connectivities
    return ((graph + graph.T) > 0).tocoo()


@contextmanager
def _quiet() -> Iterator[None]:
    # squidpy reports through spatialdata's logger that it builds a graph
    logger = logging.getLogger("spatialdata._logging")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
