from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

from spatialwhisperer.statistics import counts as module
from spatialwhisperer.statistics.counts import as_counts, not_counts, select_genes, stored_once, training_counts


@pytest.fixture(scope="module")
def counts() -> sp.csr_matrix:
    """60 rows of 40 genes; of the last ten genes one row each has a count, and the very last gene has none."""
    rng = np.random.default_rng(0)
    x = rng.poisson(rng.gamma(1, 2, size=(60, 40)))
    x[:, 30:] = 0
    x[np.arange(9), np.arange(30, 39)] = 5
    return sp.csr_matrix(x)


# ------------------------------------------------------------------------------------------------- checks


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 2.0], None),
        ([], None),
        ([0, 1.5, 2.25], "non-integer values such as 1.5, 2.25"),
        ([0, np.nan], "NaN or infinite values such as nan"),
        ([np.inf], "NaN or infinite values such as inf"),
        ([1, -2, -3], "negative values such as -2, -3"),
    ],
)
def test_values_that_are_not_counts_are_named(values: list[float], expected: str | None) -> None:
    assert not_counts(np.array(values, float)) == expected


def test_every_chunk_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 4)
    assert not_counts(np.arange(11.0)) is None
    assert not_counts(np.r_[np.arange(10.0), 0.5]) == "non-integer values such as 0.5"


def test_counts_become_sparse_and_float32() -> None:
    dense = np.arange(6).reshape(2, 3)
    for given in (dense, sp.csc_matrix(dense), sp.csr_array(dense), dense.astype(np.float32)):
        matrix = as_counts(given, 3)
        assert sp.issparse(matrix)
        assert (matrix.format, matrix.dtype) == ("csr", np.float32)
        assert np.array_equal(matrix.toarray(), dense)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "bool", "float32"])
def test_values_that_are_stored_for_one_entry_are_summed_without_wrapping(dtype: str) -> None:
    values = np.array([200, 100, 3], dtype)
    twice = sp.csr_matrix((values, [0, 0, 1], [0, 2, 3]), shape=(2, 2))
    expected = [[values[:2].astype(int).sum(), 0], [0, values[2]]]
    assert as_counts(twice, 2).toarray().tolist() == expected
    assert stored_once(twice).toarray().tolist() == expected
    assert twice.nnz == 3


def test_zeros_that_are_stored_are_dropped_from_a_copy() -> None:
    given = sp.csr_matrix((np.array([2, 0, 3], np.int32), [0, 1, 1], [0, 2, 3]), shape=(2, 2))
    got = stored_once(given)
    assert (got.data.tolist(), got.indices.tolist(), got.indptr.tolist()) == ([2, 3], [0, 1], [0, 1, 2])
    assert given.nnz == 3
    assert stored_once(got) is got
    assert as_counts(given, 2).nnz == 2


def test_counts_of_other_genes_or_of_logarithms_are_refused() -> None:
    with pytest.raises(ValueError, match=r"counts have 3 columns and the encoder takes 5 genes.*sw\.pp\.embed_genes"):
        as_counts(np.ones((2, 3)), 5)
    with pytest.raises(ValueError, match=r"take raw counts; these hold non-integer values such as 0\.69"):
        as_counts(np.log1p(np.ones((2, 3))), 3)


# ------------------------------------------------------------------------------------------------- choice of genes


def test_every_gene_with_a_count_is_kept_without_a_number(counts: sp.csr_matrix) -> None:
    assert select_genes(counts, None, None).tolist() == list(range(39))
    assert select_genes(counts, 39, None).tolist() == list(range(39))


@pytest.mark.slow
def test_genes_of_one_row_do_not_compete(counts: sp.csr_matrix) -> None:
    assert select_genes(counts, 35, None).tolist() == list(range(30))
    assert select_genes(counts, 10, None).max() < 30


@pytest.mark.slow
@pytest.mark.parametrize("batch", [None, np.repeat(["a", "b"], 30)])
def test_the_choice_is_that_of_scanpy(counts: sp.csr_matrix, batch: np.ndarray | None) -> None:
    obs = pd.DataFrame({"batch": np.zeros(60) if batch is None else batch}, index=[str(i) for i in range(60)])
    adata = ad.AnnData(counts[:, :30], obs=obs.astype("category"))
    sc.pp.highly_variable_genes(adata, flavor="seurat_v3", n_top_genes=12, batch_key="batch")
    assert select_genes(counts, 12, batch).tolist() == np.flatnonzero(adata.var["highly_variable"]).tolist()


def test_a_stored_zero_is_no_count() -> None:
    matrix = sp.csr_matrix((np.array([1.0, 0.0]), ([0, 1], [0, 1])), shape=(2, 2))
    assert select_genes(matrix, None, None).tolist() == [0]


@pytest.mark.parametrize("n", [1, 2])
def test_batches_that_are_too_small_are_named(counts: sp.csr_matrix, n: int) -> None:
    with pytest.raises(
        ValueError, match=rf"The smallest batch has {n} row\(s\): merge small batches.*n_top_genes=None"
    ):
        select_genes(counts, 12, np.array(["a"] * (60 - n) + ["b"] * n))


# ------------------------------------------------------------------------------------------------- rows to fit on


def test_rows_without_counts_in_the_chosen_genes_are_left_out(counts: sp.csr_matrix) -> None:
    dense = counts.toarray()
    dense[[3, 7]] = 0
    matrix, chosen, rows = training_counts(dense, 40, 12, None)
    assert np.flatnonzero(~rows).tolist() == [3, 7]
    assert len(chosen) == 12
    assert np.array_equal(matrix.toarray(), dense[rows][:, chosen])


def test_three_rows_are_the_fewest_to_fit_on() -> None:
    x = np.zeros((5, 2))
    x[:2] = 1
    with pytest.raises(ValueError, match="2 rows with counts are too few"):
        training_counts(x, 2, None, None)
    x[2] = 1
    assert training_counts(x, 2, None, None)[0].shape == (3, 2)
