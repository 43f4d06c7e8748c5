"""The best genes of each row, against sorting."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from spatialwhisperer.encoders.gene._sentence_kernel import best_genes


@pytest.mark.parametrize("top", [1, 3, 50])
@pytest.mark.parametrize("factor", [1, 3000])
def test_genes_come_by_count_and_ties_in_gene_order(top: int, factor: int) -> None:
    """Small counts, which are counted, and large ones, which are inserted; some rows have both."""
    rng = np.random.default_rng(0)
    dense = rng.poisson(1.0, (40, 12)).astype(np.float32)
    dense[rng.random(dense.shape) < 0.3] *= factor
    dense[3] = 0
    usable = rng.random(12) < 0.7
    counts = sp.csr_matrix(dense)
    best, length = np.full((40, top), -1), np.zeros(40, np.int64)
    best_genes(counts.data, counts.indices, counts.indptr, usable, best, length)
    for row, n, found in zip(dense, length, best, strict=True):
        order = [g for g in np.lexsort((np.arange(12), -row)) if row[g] > 0 and usable[g]][:top]
        assert n == len(order)
        assert found[:n].tolist() == order


@pytest.mark.parametrize("odd", [0.5, -1.0, np.nan, np.inf])
def test_rows_with_values_that_are_no_counts_are_told(odd: float) -> None:
    counts = sp.csr_matrix(np.array([[2.0, 1.0], [3.0, odd], [0.0, 4.0]]))
    # also where the gene itself is left out
    for usable in (np.ones(2, bool), np.array([True, False])):
        best, length = np.zeros((3, 2), np.int64), np.zeros(3, np.int64)
        best_genes(counts.data, counts.indices, counts.indptr, usable, best, length)
        assert length.tolist() == [1 + usable[1], -1, int(usable[1])]
