"""How many genes a spot is scaled over."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from spatialwhisperer.statistics.expression.gene_numbers import (
    GeneNumbers,
    different_scales,
    gene_numbers,
    joined_numbers,
)


def test_genes_without_a_count_are_told_from_those_of_the_table() -> None:
    counts = sp.csr_matrix(np.array([[0, 3, 0, 1], [0, 2, 0, 0]], np.float32))
    counts.data[counts.data == 1] = 0  # a zero that is stored
    assert gene_numbers(counts) == GeneNumbers(genes=4, counted=1)


def test_several_tables_are_as_few_as_the_smallest_and_count_as_many_as_the_largest() -> None:
    assert joined_numbers([GeneNumbers(300, 290), GeneNumbers(18_000, 11_000)]) == GeneNumbers(300, 11_000)
    assert joined_numbers([]) is None


def test_a_panel_is_few_beside_a_transcriptome_and_a_filtered_or_a_small_table_is_not() -> None:
    whole, filtered, small = GeneNumbers(36_000, 20_000), GeneNumbers(15_000, 15_000), GeneNumbers(36_000, 4_000)
    panel = GeneNumbers(300, 300)
    assert [panel.few_beside(other) for other in (whole, filtered, small)] == [True] * 3
    for one in (whole, filtered, small):
        assert not any(one.few_beside(other) for other in (whole, filtered, small, panel))


def test_tables_are_compared_with_the_others_and_named_once() -> None:
    tables = {"a": GeneNumbers(300, 250), "b": GeneNumbers(20_000, 9_000), "c": GeneNumbers(18_000, 12_000)}
    text = different_scales(tables | {"d": GeneNumbers(500, 480)})
    assert text.endswith("far fewer in a (300), d (500) than the 12000 that are counted in c.")
    assert different_scales({name: tables[name] for name in ("b", "c")}) == ""
    # several tables together may be few beside themselves, which says nothing of the others
    assert different_scales({"joined": GeneNumbers(10, 40), "own": GeneNumbers(30, 18)}) == ""
    assert different_scales({}) == ""
