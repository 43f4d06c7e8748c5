"""Observed expression of variable genes."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

from spatialwhisperer.tl._tissue.observed import variable_expression, variable_genes


@pytest.fixture
def table() -> Any:
    """Two sections of 40 rows and 60 genes, of which the last is in no row."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.linspace(5, 50, 60), (80, 60))
    counts[:, 59] = 0
    return ad.AnnData(sp.csr_matrix(counts.astype(np.float32)))


SECTIONS = np.repeat(["a", "b"], 40)


def test_variable_genes_of_the_sections_are_united(table: Any) -> None:
    logged = table.X.log1p()
    a, b = (variable_genes(logged[SECTIONS == name], SECTIONS[SECTIONS == name], 3) for name in "ab")
    assert len(a) == len(b) == 3
    assert set(a) != set(b)
    assert variable_genes(logged, SECTIONS, 3).tolist() == sorted({*a.tolist(), *b.tolist()})


def test_a_section_of_two_rows_takes_every_gene_that_it_has(table: Any) -> None:
    sections = np.array(["tiny"] * 2 + ["rest"] * 78)
    assert variable_genes(table.X.log1p(), sections, 3).size >= 40


def test_three_rows_are_enough_to_rank_the_genes_of_a_section(table: Any) -> None:
    sections = np.array(["small"] * 3 + ["rest"] * 77)
    assert variable_genes(table.X.log1p(), sections, 3).size <= 6


def test_genes_without_counts_are_left_out(table: Any) -> None:
    for n_top_genes in (None, 59, 500):
        assert variable_genes(table.X.log1p(), SECTIONS, n_top_genes).tolist() == list(range(59))


def test_values_are_log1p_of_counts_per_ten_thousand(table: Any) -> None:
    x = table.X.toarray()
    expected = np.log1p(1e4 * x / x.sum(axis=1, keepdims=True))[:, :59]
    assert np.allclose(variable_expression(table, SECTIONS, None), expected, atol=1e-4)
    table.layers["raw"] = table.X.copy()
    table.X = table.X * 0.5
    assert np.allclose(variable_expression(table, SECTIONS, None, "raw"), expected, atol=1e-4)
    with pytest.raises(ValueError, match="raw counts"):
        variable_expression(table, SECTIONS, None)


def test_at_least_one_gene_is_needed(table: Any) -> None:
    with pytest.raises(ValueError, match="n_top_genes must be at least 1, not 0"):
        variable_expression(table, SECTIONS, 0)
