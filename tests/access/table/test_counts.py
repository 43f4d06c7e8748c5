from __future__ import annotations

import warnings
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from spatialwhisperer._access.table.counts import (
    align_counts,
    counts_for,
    counts_matrix,
    find_genes,
    match_genes,
    matched_genes,
    names_and_ids,
)
from spatialwhisperer._messages import SpatialWhispererWarning

G = 40
SYMBOLS = [f"SYM{i}" for i in range(G)]
IDS = [f"ENSG{i:011d}" for i in range(G)]
NONE = [""] * G


@pytest.mark.parametrize("kind", ["array", "dask", "backed"])
def test_counts_of_half_precision_are_read_as_they_are(kind: str, tmp_path: Any) -> None:
    import dask.array as da

    adata = table()
    expected = adata.X.toarray() if sp.issparse(adata.X) else np.asarray(adata.X)
    expected[0, 0] = 2048  # the largest count before which half precision leaves none out
    adata.X = da.from_array(expected.astype(np.float16)) if kind == "dask" else expected.astype(np.float16)
    if kind == "backed":
        adata.write_h5ad(tmp_path / "half.h5ad")
        adata = ad.read_h5ad(tmp_path / "half.h5ad", backed="r")
    assert np.array_equal(counts_matrix(adata).toarray(), expected)


def table(names: list[str] = SYMBOLS, **var: list[Any]) -> Any:
    x = np.random.default_rng(0).poisson(1.5, (12, len(names))).astype(np.int32)
    return ad.AnnData(sp.csr_matrix(x), var=pd.DataFrame(var, index=names))


# ------------------------------------------------------------------------------------------------- which gene is which


def test_genes_are_matched_by_name_then_by_id() -> None:
    every = np.arange(G)
    ways: list[tuple[list[str], dict[str, list[Any]]]] = [
        (SYMBOLS, {}),
        (IDS, {}),
        ([f"{i}.12" for i in IDS], {}),
        ([f"row{i}" for i in range(G)], {"feature_name": SYMBOLS}),
        ([f"row{i}" for i in range(G)], {"ensembl_id": [f"{i}.3" for i in IDS]}),
        ([f"{s}_old" if i % 2 else s for i, s in enumerate(SYMBOLS)], {"gene_ids": IDS}),
    ]
    for names, var in ways:
        assert np.array_equal(match_genes(SYMBOLS, IDS, table(names, **var)), every), names[0]


def test_clone_names_keep_their_suffix() -> None:
    adata = table([*SYMBOLS[:38], "FO538757.1", "FO538757.2"])
    got = match_genes(["FO538757.2", "FO538757.3", "FO538757.1"], ["", "", ""], adata)
    assert got.tolist() == [39, -1, 38]


def test_no_column_serves_two_genes() -> None:
    assert match_genes(["SYM0", "SYM0"], ["", ""], table()).tolist() == [0, -1]


def test_an_id_on_both_sides_decides_before_a_name() -> None:
    # the symbol of the second gene belongs to the first one in the table
    genes, ids = ["OLD", "CCL5", "ALB"], IDS[:3]
    adata = table(["CCL5", "ALB"], ensembl_id=[f"{IDS[0]}.4", IDS[2]])
    assert match_genes(genes, ids, adata).tolist() == [0, -1, 1]
    # also where the gene itself is not in the table, or the column's not in the encoder
    assert match_genes(["OLD", "CCL5"], [IDS[0], IDS[5]], adata).tolist() == [0, -1]
    assert match_genes(["CCL5"], [IDS[2]], adata).tolist() == [1]
    # an id that only one of both has may be the old one of the same gene
    assert match_genes(["CCL5"], [IDS[1]], adata).tolist() == [0]
    assert match_genes(["OTHER", "SYM0"], [IDS[0], ""], table(gene_ids=IDS)).tolist() == [0, -1]
    # the column that the caller names comes first
    assert match_genes(["CCL5"], [IDS[1]], table(["a", "b"], symbol=["CCL5", "x"], gene_ids=IDS[:2]), "symbol") == [0]


def test_names_decide_where_an_id_is_missing_or_of_another_kind() -> None:
    genes, ids = ["A", "B", "C"], [IDS[0], "", IDS[2]]
    assert match_genes(genes, ids, table(["C", "B", "A"], gene_ids=["", IDS[7], None])).tolist() == [2, 1, 0]
    for other in ("6352", "ENSMUSG00000000007", "FBgn0000007"):
        assert match_genes(genes, ids, table(["C", "B", "A"], gene_ids=[other] * 3)).tolist() == [2, 1, 0]


def test_of_columns_with_the_same_id_the_one_with_the_name_of_the_gene_is_taken() -> None:
    adata = table(["X", "Y", "Z"], gene_ids=[IDS[0], IDS[0], IDS[0]])
    assert match_genes(["Y", "W", "V"], [IDS[0]] * 3, adata).tolist() == [1, 0, -1]


def test_an_ensembl_id_in_any_known_column_is_the_one_that_is_stated() -> None:
    adata = table(["CCL5", "ALB"], gene_id=["6352", "213"], ensembl_id=IDS[:2])
    assert names_and_ids(adata) == (["CCL5", "ALB"], IDS[:2])
    assert match_genes(["CCL5", "x"], [IDS[5], IDS[0]], adata).tolist() == [-1, 0]
    assert names_and_ids(adata, "gene_id")[1] == ["6352", "213"]


def test_an_encoder_of_a_table_finds_every_gene_of_that_table() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        names = [*rng.permutation(SYMBOLS)[:20], *rng.permutation(IDS)[:4]]
        columns: dict[str, Any] = {
            key: [rng.choice([*IDS[:9], "", "6352", "ENSMUSG00000000001"]) for _ in names]
            for key in rng.permutation(["gene_ids", "ensembl_id", "gene_symbols"])[: rng.integers(0, 4)]
        }
        adata = table(names, **columns)
        genes, ids = names_and_ids(adata)
        assert match_genes(genes, ids, adata).tolist() == list(range(len(names))), columns


def test_the_first_of_repeated_identifiers_is_taken_and_missing_ones_match_nothing() -> None:
    adata = table(["a", "b", "c", "d"], gene_ids=[IDS[0], IDS[0], None, ""])
    assert match_genes(["", "x", "y"], [IDS[0], "", "nan"], adata).tolist() == [0, -1, -1]


def test_a_column_that_is_named_comes_first() -> None:
    adata = table(["a", "b", "c"], probe=["c", "a", "zzz"])
    assert match_genes(["a", "c", "zzz"], [""] * 3, adata, "probe").tolist() == [1, 0, 2]
    with pytest.raises(KeyError, match=r"gene_ids_key='nothing' is not in \.var \(found: probe\)"):
        match_genes(["a"], [""], adata, "nothing")


def test_names_that_repeat_are_refused() -> None:
    twice = table(["A", "A", *SYMBOLS[2:]])
    with pytest.raises(ValueError, match=r"repeat: A\. Run adata\.var_names_make_unique\(\)"):
        match_genes(SYMBOLS, NONE, twice)


def test_names_and_ids_of_a_table_are_found_in_either_order() -> None:
    assert names_and_ids(table()) == (SYMBOLS, NONE)
    assert names_and_ids(table(gene_ids=IDS)) == (SYMBOLS, IDS)
    assert names_and_ids(table(IDS)) == (IDS, IDS)
    assert names_and_ids(table([f"{i}.4" for i in IDS], gene_symbols=SYMBOLS)) == (SYMBOLS, IDS)
    # a symbol that is taken or missing leaves the id as the name
    symbols: list[Any] = ["SYM1", "SYM1", None, *SYMBOLS[3:]]
    assert names_and_ids(table(IDS, gene_symbols=symbols))[0] == ["SYM1", IDS[1], IDS[2], *SYMBOLS[3:]]


# ------------------------------------------------------------------------------------------------- counts in order


def test_genes_of_several_tables_are_the_same_by_name_or_id() -> None:
    symbols, both = table(SYMBOLS[:3]), table(SYMBOLS[1:4], gene_ids=IDS[1:4])
    ids = table([f"{i}.2" for i in IDS[2:5]])
    columns, names, found = matched_genes([symbols, both, ids])
    assert columns.tolist() == [[0, 1, 2, -1, -1], [-1, 0, 1, 2, -1], [-1, -1, 0, 1, 2]]
    assert names == [*SYMBOLS[:4], f"{IDS[4]}.2"]
    assert found == ["", *IDS[1:5]]
    # symbols are the names where a table has them beside ids
    assert matched_genes([table(IDS[:2], symbol=SYMBOLS[:2])])[1:] == (SYMBOLS[:2], IDS[:2])


def test_a_name_of_two_genes_is_given_once() -> None:
    first = table(["A", "B", "C"], gene_ids=[IDS[0], IDS[1], ""])
    second = table(["A", "B", "D", "C", "Q"], gene_ids=[IDS[5], IDS[1], "", "", IDS[0]])
    columns, names, ids = matched_genes([first, second])
    assert columns.tolist() == [[0, 1, 2, -1, -1], [4, 1, 3, 0, 2]]
    assert names == ["A", "B", "C", IDS[5], "D"]
    assert ids == [IDS[0], IDS[1], "", IDS[5], ""]


def test_a_gene_is_found_by_name_or_id() -> None:
    asked = ["SYM1", IDS[2], f"{IDS[0]}.7", "SYM9", ""]
    assert find_genes(asked, SYMBOLS[:3], IDS[:3]).tolist() == [1, 2, 0, -1, -1]
    assert find_genes(["A"], ["B", "A"], ["A", ""]).tolist() == [1]


def test_counts_are_brought_into_the_order_of_the_genes() -> None:
    adata = table()
    names = ["SYM3", "NOT", "SYM1", "SYM2"]
    counts, present, library, of_table = align_counts(names, [""] * 4, adata)
    np.testing.assert_array_equal(library, adata.X.toarray().sum(axis=1))
    np.testing.assert_array_equal(of_table.toarray(), adata.X.toarray())
    assert present.tolist() == [True, False, True, True]
    expected = adata.X.toarray()[:, [3, 0, 1, 2]]
    expected[:, 1] = 0
    assert np.array_equal(counts.toarray(), expected)
    assert counts.dtype == np.float32
    assert counts.has_sorted_indices
    assert (counts_for(names, [""] * 4, adata, None) != counts).nnz == 0


def test_few_genes_in_common_warn_and_fewer_raise() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", SpatialWhispererWarning)
        align_counts(SYMBOLS, NONE, table(SYMBOLS[:38]))
    with pytest.warns(SpatialWhispererWarning, match=r"25 of the encoder's 40 genes .* missing are SYM25, SYM26"):
        align_counts(SYMBOLS, NONE, table(SYMBOLS[:25]))
    with pytest.raises(
        ValueError,
        match=r"Only 10 of the encoder's 40 genes .* knows SYM10.* ids such as ENSG0.*adata.var_names = adata.var",
    ):
        align_counts(SYMBOLS, IDS, table(SYMBOLS[:10]))


def test_too_few_genes_because_ids_differ_is_said() -> None:
    with pytest.raises(
        ValueError,
        match=rf"Only 10 .* 30 others have the same name and another Ensembl id .* SYM10 \({IDS[0]} here, {IDS[10]} there\).*del adata\.var",
    ):
        align_counts(SYMBOLS, IDS, table(gene_ids=[*IDS[:10], *[IDS[0]] * 30]))


def test_any_storage_of_counts_is_read() -> None:
    import dask.array as da

    adata = table()
    expected = adata.X.toarray()
    for stored in (
        expected,
        expected.astype(float),
        sp.csc_matrix(expected),
        sp.csr_array(expected),
        da.from_array(expected),
    ):
        got = counts_matrix(ad.AnnData(stored))
        assert np.array_equal(got.toarray(), expected)
    # entries that were stored in two parts are added up
    parts = sp.csr_matrix((np.array([1, 2]), np.array([3, 3]), np.array([0, 2])), shape=(1, 5))
    assert counts_matrix(ad.AnnData(parts)).toarray().tolist() == [[0, 0, 0, 3, 0]]


def test_values_that_are_stored_for_one_entry_are_summed() -> None:
    twice = sp.csr_matrix((np.array([200, 100], np.uint8), [0, 0], [0, 2]), shape=(1, 2))
    assert counts_matrix(ad.AnnData(twice)).toarray().tolist() == [[300, 0]]


def test_zeros_that_are_stored_are_left_out_and_kept_in_the_table() -> None:
    stored = sp.csr_matrix((np.array([2.0, 0.0]), [0, 1], [0, 2]), shape=(1, 2))
    assert counts_matrix(ad.AnnData(stored)).nnz == 1
    assert stored.nnz == 2


def test_a_backed_file_is_read(tmp_path: Any) -> None:
    adata = table()
    for kind in ("sparse", "dense"):
        stored = adata if kind == "sparse" else ad.AnnData(adata.X.toarray())
        stored.write_h5ad(tmp_path / f"{kind}.h5ad")
        backed = ad.read_h5ad(tmp_path / f"{kind}.h5ad", backed="r")
        assert np.array_equal(counts_matrix(backed).toarray(), adata.X.toarray())
        backed.file.close()


def test_values_that_are_no_counts_are_refused_with_where_counts_are() -> None:
    adata = table()
    adata.layers["counts"] = adata.X.copy()
    adata.layers["scaled"] = adata.X.toarray() - 0.5
    adata.raw = adata.copy()
    adata.X = np.log1p(adata.X.toarray())
    with pytest.raises(
        ValueError,
        match=r"\.X holds non-integer values such as .*pass layer='counts' or adata\.raw\.to_adata\(\) as data",
    ):
        counts_matrix(adata)
    with pytest.raises(ValueError, match=r"\.layers\['scaled'\] holds non-integer.*layers found: counts, scaled"):
        counts_matrix(adata, "scaled")
    with pytest.raises(KeyError, match=r"layer='raw' is not in \.layers \(found: counts, scaled\)"):
        counts_matrix(adata, "raw")
    adata.layers["scaled"], adata.X = adata.X, adata.layers["counts"]
    with pytest.raises(ValueError, match=r"layer=None \(\.X\)"):
        counts_matrix(adata, "scaled")
    with pytest.raises(ValueError, match=r"negative values such as -1.*No layer holds counts.*\.raw does not exist"):
        counts_matrix(ad.AnnData(-np.ones((2, 2))))
    with pytest.raises(ValueError, match="NaN or infinite"):
        counts_matrix(ad.AnnData(np.full((2, 2), np.nan)))


def test_an_empty_table_holds_no_counts() -> None:
    with pytest.raises(ValueError, match=r"empty \(0 rows, 40 genes\)"):
        counts_matrix(table()[:0].copy())
    with pytest.raises(ValueError, match=r"empty \(12 rows, 0 genes\)"):
        counts_matrix(table()[:, :0].copy())
    with pytest.raises(ValueError, match=r"\.X is empty\. No layer holds counts"):
        counts_matrix(ad.AnnData(obs=pd.DataFrame(index=["a"]), var=pd.DataFrame(index=["b"])))


def test_genes_of_another_species_are_named() -> None:
    mouse = [i.replace("ENSG", "ENSMUSG") for i in IDS]
    with pytest.raises(ValueError, match="fewer than half. The genes look like those of another species"):
        align_counts(SYMBOLS, IDS, table(mouse))
