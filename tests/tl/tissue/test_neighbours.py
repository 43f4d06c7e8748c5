"""Neighbours on the tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from spatialwhisperer._access.slide import Slide
from spatialwhisperer.tl._tissue.neighbours import Smoothing, as_smoothing, spatial_graph

if TYPE_CHECKING:
    import anndata as ad


def test_the_graph_keeps_to_sections(halves: ad.AnnData) -> None:
    graph: Any = spatial_graph(Slide.open(halves, library_key="section"), Smoothing(0.5, n_neighs=4))
    assert (graph != graph.T).nnz == 0
    assert graph[:144, 144:].nnz == 0
    assert graph.sum(axis=1).min() >= 4


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
