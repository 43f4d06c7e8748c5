"""Neighbours on the tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from spatialwhisperer._access.slide import Slide
from spatialwhisperer.tl._tissue.neighbours import Smoothing, _nearest, as_smoothing, spatial_graph

if TYPE_CHECKING:
    import anndata as ad


def test_the_graph_keeps_to_sections(halves: ad.AnnData) -> None:
    graph: Any = spatial_graph(Slide.open(halves, library_key="section"), Smoothing(0.5, n_neighs=4))
    assert (graph != graph.T).nnz == 0
    assert graph[:144, 144:].nnz == 0
    assert graph.sum(axis=1).min() >= 4


def test_rows_that_are_as_near_as_the_last_neighbour_are_neighbours_too() -> None:
    x, y = (i.ravel() for i in np.meshgrid(range(8), range(7)))
    xy = np.c_[x, y] * 100.0
    steps = np.abs(xy[:, None] - xy[None]).max(axis=2)
    got = _nearest(xy, 6).toarray()
    # six of the eight around a place would be a matter of how the slide is turned; rows at the edge reach two steps inwards
    inside = np.flatnonzero((x > 2) & (x < 5) & (y == 3))
    assert len(inside) == 2
    assert np.array_equal(got[inside], steps[inside] == 100)
    for moved in (np.c_[600 - xy[:, 1], xy[:, 0]], np.c_[-xy[:, 0], xy[:, 1]], xy * (1 + 1e-9 * (x[:, None] % 2))):
        assert np.array_equal(_nearest(moved, 6).toarray(), got)


def test_the_nearest_rows_are_those_of_squidpy_where_none_are_equally_near() -> None:
    import anndata as ad
    import squidpy as sq

    rng = np.random.default_rng(0)
    xy = rng.random((200, 2))
    bare = ad.AnnData(np.zeros((200, 1), np.float32))
    bare.obsm["spatial"] = xy
    for k in (1, 6, 30):
        graph: Any = sq.gr.spatial_neighbors_knn(bare, n_neighs=k, copy=True).connectivities
        assert np.array_equal(_nearest(xy, k).toarray(), ((graph + graph.T) > 0).toarray())


def test_rows_at_one_place_have_as_many_neighbours_as_asked_for() -> None:
    xy = np.array([[0.0, 0.0]] * 50 + [[1.0, 0.0]])
    graph = _nearest(xy, 3).tocsr()
    assert graph.diagonal().sum() == 0
    assert (graph != graph.T).nnz == 0
    assert 3 <= graph[:50].sum(axis=1).min()
    assert graph[:50, :50].nnz <= 2 * 3 * 50
    assert graph[50].nnz == 50
    assert _nearest(xy[:3], 6).nnz == 6


def test_a_graph_of_the_object_is_taken(halves: ad.AnnData) -> None:
    slide = Slide.open(halves, library_key="section")
    graph: Any = spatial_graph(slide, Smoothing(0.5, n_neighs=4))
    halves.obsp["mine_connectivities"] = graph
    given: Any = spatial_graph(slide, Smoothing(0.5, n_neighs=99, neighbors_key="mine"))
    assert (given != graph).nnz == 0
    with pytest.raises(KeyError, match=r"'yours_connectivities' is not in \.obsp \(found: mine"):
        spatial_graph(slide, Smoothing(0.5, neighbors_key="yours"))


def test_no_graph_is_made_without_a_weight(halves: ad.AnnData) -> None:
    del halves.obsm["spatial"]
    assert spatial_graph(Slide.open(halves), Smoothing(0.0)) is None


def test_a_section_of_one_row_has_no_neighbours(halves: ad.AnnData) -> None:
    few = halves[[0, 144, 145]].copy()
    graph: Any = spatial_graph(Slide.open(few, library_key="section"), Smoothing(1.0))
    assert graph.toarray().tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_positions_are_needed(halves: ad.AnnData) -> None:
    halves.obsm["spatial"][3] = np.nan
    with pytest.raises(ValueError, match="1 rows have no position; smooth=0 needs none"):
        spatial_graph(Slide.open(halves), Smoothing(0.5))
    halves.obsm["spatial"][3] = 1e300
    with pytest.raises(ValueError, match=r"Positions reach 1e\+300, so that distances cannot be computed"):
        spatial_graph(Slide.open(halves), Smoothing(0.5))
    del halves.obsm["spatial"]
    with pytest.raises(KeyError, match=r"'spatial' not in \.obsm"):
        spatial_graph(Slide.open(halves), Smoothing(0.5))


def test_a_number_is_a_weight() -> None:
    assert as_smoothing(0.3) == Smoothing(0.3)
    own = Smoothing(0.3, n_rings=2)
    assert as_smoothing(own) is own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 2}, "smooth is a weight between 0 and 1, not 2"),
        ({"n_neighs": 0}, "n_neighs must be a positive whole number, not 0"),
        ({"n_rings": 1.5}, "n_rings must be a positive whole number, not 1.5"),
        ({"n_rings": True}, "n_rings must be a positive whole number, not True"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Smoothing(**options)
