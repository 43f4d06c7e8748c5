"""Neighbouring rows on the tissue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from spatialwhisperer._checks.values import check_whole
from spatialwhisperer._messages import listing
from spatialwhisperer.statistics.row_order import row_order

if TYPE_CHECKING:
    from spatialwhisperer._access.slide import Slide

_FURTHEST = 1e100
"""Squares of larger coordinates are beyond what a float holds."""

_SAME = 1e-6
"""Distances that differ by a smaller part of themselves are equal, but for rounding."""


@dataclass(frozen=True)
class Smoothing:
    """How the values of a row are mixed with those of its neighbours on the tissue.

    Attributes
    ----------
    weight
        Weight of the neighbours, 0 to 1.
    n_rings
        How many steps the neighbours reach; for ``"kmeans"``.
    n_neighs
        Nearest rows of the same section that count as neighbours, with all that are as near as the last of them: of a square lattice the
        eight around a row for 5 to 8.
    neighbors_key
        Graph to take instead: ``.obsp["<neighbors_key>_connectivities"]``, as squidpy writes it.

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> section = sw.datasets.simulate_sections(1, 60, n_genes=60, n_reference_cells=50, random_state=0).sections["P1"]
    >>> smooth = sw.tl.Smoothing(0.3, n_rings=2)
    >>> sw.tl.spatial_domains(section, use="observed", n_domains=3, smooth=smooth)
    >>> section["table"].obs["sw_domain"].nunique()
    3
    """

    weight: float = 0.0
    n_rings: int = 1
    n_neighs: int = 6
    neighbors_key: str | None = None

    def __post_init__(self) -> None:
        number = isinstance(self.weight, int | float | np.number) and not isinstance(self.weight, bool)
        if not number or not 0 <= self.weight <= 1:
            raise ValueError(f"smooth is a weight between 0 and 1, not {self.weight!r}.")
        for name in ("n_rings", "n_neighs"):
            check_whole(name, getattr(self, name))


def as_smoothing(smooth: float | Smoothing) -> Smoothing:
    """The options themselves, or those of a weight alone."""
    return smooth if isinstance(smooth, Smoothing) else Smoothing(smooth)


def spatial_graph(slide: Slide, smoothing: Smoothing) -> sp.csr_matrix | None:
    """Neighbours on the tissue, symmetric, 0 or 1 (or the weights of a given graph), none across sections; shape (n, n).

    ``None`` where the neighbours have no weight.

    Raises
    ------
    KeyError
        If the given graph, or the positions, do not exist.
    ValueError
        If a row has no position, or one that is too far away.
    """
    if not smoothing.weight:
        return None
    table, n_neighs, neighbors_key = slide.table, smoothing.n_neighs, smoothing.neighbors_key
    if neighbors_key is not None:
        name = f"{neighbors_key}_connectivities"
        if name not in table.obsp:
            raise KeyError(
                f"{name!r} is not in .obsp (found: {listing(table.obsp)}). Run sq.gr.spatial_neighbors_knn(adata, "
                f"key_added={neighbors_key!r}) first, or leave neighbors_key out."
            )
        return sp.csr_matrix(table.obsp[name], dtype=np.float64)
    xy = slide.positions()
    if xy is None:
        raise KeyError("'spatial' not in .obsm: the neighbours of a row need its position; smooth=0 needs none.")
    if not np.isfinite(xy).all():
        raise ValueError(f"{int((~np.isfinite(xy)).any(axis=1).sum())} rows have no position; smooth=0 needs none.")
    if np.abs(xy).max(initial=0) > _FURTHEST:
        raise ValueError(
            f"Positions reach {np.abs(xy).max():g}, so that distances cannot be computed. Store pixels in .obsm['spatial']; smooth=0 needs "
            "no positions."
        )
    names = slide.sections.astype(str)
    blocks = []
    for name in np.unique(names):
        rows = np.flatnonzero(names == name)
        # the order of the table must not choose among rows at one place
        rows = rows[row_order(xy[rows])]
        blocks.append((rows, _nearest(xy[rows], n_neighs)))
    row = np.concatenate([rows[b.row] for rows, b in blocks])
    col = np.concatenate([rows[b.col] for rows, b in blocks])
    return sp.csr_matrix((np.ones(len(row)), (row, col)), shape=(table.n_obs, table.n_obs))


def order_on_tissue(slide: Slide, rows: np.ndarray, values: np.ndarray, graph: sp.csr_matrix | None) -> np.ndarray:
    """The rows in the order of their values; with a graph, equal ones in that of section and position.

    Equal rows change places without a trace only where they have no neighbours of their own.

    Parameters
    ----------
    slide
        The table.
    rows
        Positions of some of its rows, shape (k,).
    values
        What is clustered, of all rows, shape (n, d).
    graph
        As :func:`spatial_graph` gives it.
    """
    if graph is not None:
        if (xy := slide.positions()) is not None:
            rows = rows[row_order(xy[rows])]
        rows = rows[np.argsort(slide.sections[rows].astype(str), kind="stable")]
    return rows[row_order(values[rows])]


def part_of(graph: sp.csr_matrix | None, rows: np.ndarray) -> sp.csr_matrix | None:
    """The graph among some rows, in their order; ``None`` where there is no graph."""
    if graph is None:
        return None
    part = graph[rows][:, rows]
    # sums over neighbours are rounded alike whatever order the whole graph has
    part.sort_indices()
    return part


def _nearest(xy: np.ndarray, n_neighs: int) -> sp.coo_matrix:
    """Nearest rows of one section with all that are as near as the last of them, made symmetric.

    Of the six nearest places on a square lattice two are diagonals, and which ones would depend on how the slide is turned.
    """
    from scipy.spatial import cKDTree

    n = len(xy)
    if n < 2:
        return sp.coo_matrix((n, n))
    tree, k = cKDTree(xy), min(n_neighs, n - 1)
    # a row is the nearest to itself, and the one after the last neighbour says whether that one has its equals
    distance, near = tree.query(xy, k=np.arange(1, min(k + 2, n) + 1))
    lost = np.flatnonzero((near[:, : k + 1] != np.arange(n)[:, None]).all(axis=1))
    near[lost, k] = lost  # behind others at its place
    furthest = distance[:, k] * (1 + _SAME)
    # rows at one place cannot be told apart, and may be very many
    tied = (distance[:, -1] <= furthest) & (furthest > 0)
    more = tree.query_ball_point(xy[tied], furthest[tied])
    found = np.where(tied, 0, k + 1)
    found[tied] = [len(one) for one in more]
    row = np.concatenate([np.repeat(np.flatnonzero(part), found[part]) for part in (~tied, tied)])
    col = np.concatenate([near[~tied, : k + 1].ravel(), *more]).astype(np.int64)
    other = row != col
    graph = sp.csr_matrix((np.ones(other.sum()), (row[other], col[other])), shape=(n, n))
    return ((graph + graph.T) > 0).tocoo()
