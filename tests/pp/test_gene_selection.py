from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

from spatialwhisperer.pp.gene_selection import select_genes

if TYPE_CHECKING:
    from pathlib import Path

G = 80
NAMES = [f"G{i}" for i in range(G)]


def table(seed: int, n: int = 60, names: list[str] = NAMES) -> Any:
    rng = np.random.default_rng(seed)
    rate = np.random.default_rng(99).gamma(0.5, 2.0, len(names)) + 0.05
    x = rng.poisson(rate * rng.lognormal(0, 0.7, (n, len(names))))
    obs = pd.DataFrame({"section": np.repeat(["a", "b"], [n // 2, n - n // 2])}, index=[f"r{i}" for i in range(n)])
    return ad.AnnData(sp.csr_matrix(x.astype(np.float32)), obs=obs, var=pd.DataFrame(index=names))


def scanpy_hvg(adata: ad.AnnData, n: int) -> set[str]:
    copy = adata.copy()
    sc.pp.normalize_total(copy)
    sc.pp.log1p(copy)
    return set(copy.var_names[sc.pp.highly_variable_genes(copy, n_top_genes=n, inplace=False)["highly_variable"]])


@pytest.mark.slow
def test_hvg_is_the_union_of_scanpys_choice_in_each_section() -> None:
    parts = [table(0), table(1)]
    before = parts[0].copy()
    expected = scanpy_hvg(parts[0], 15) | scanpy_hvg(parts[1], 15)
    chosen = select_genes(parts, n_top=15)
    assert chosen == [g for g in NAMES if g in expected]
    assert chosen == select_genes(parts, n_top=15)
    assert (parts[0].X != before.X).nnz == 0
    assert not parts[0].uns


def test_sections_of_one_table_count_like_several_objects() -> None:
    one = table(0)
    split = [one[one.obs["section"] == s].copy() for s in "ab"]
    assert select_genes(one, n_top=10, section_key="section") == select_genes(split, n_top=10)
    assert select_genes(one, n_top=10) == select_genes(split, n_top=10, section_key="section", per_section=False)
    # equal names in two objects are one section
    renamed = [s.copy() for s in split]
    for part in renamed:
        part.obs["section"] = "same"
    assert select_genes(renamed, n_top=10, section_key="section") == select_genes(one, n_top=10)


def test_mean_takes_genes_that_every_section_shows() -> None:
    parts = [table(0), table(1)]
    top = select_genes(parts, method="mean", n_top=3)
    x = parts[1].X.tolil()
    x[:, NAMES.index(top[0])] = 0
    parts[1].X = x.tocsr()
    again = select_genes(parts, method="mean", n_top=3)
    assert top[0] not in again
    assert len(again) >= 3


def test_genes_of_every_table_with_enough_spots() -> None:
    parts = [table(0), table(1, names=NAMES[::-1])[:, 10:].copy()]
    everything = select_genes(parts, method="all")
    assert everything == NAMES[:-10]
    shown: Any = sum(np.asarray((p[:, everything].X > 0).sum(axis=0)).ravel() for p in parts)
    assert select_genes(parts, method="all", min_spots=60) == [
        g for g, n in zip(everything, shown, strict=True) if n >= 60
    ]
    assert set(select_genes(parts, n_top=1000)) <= set(everything)


@pytest.mark.parametrize("method", ["hvg", "mean", "all"])
def test_tables_of_symbols_and_of_ids_give_the_genes_of_tables_of_symbols(method: str) -> None:
    parts, ids = [table(0), table(1)], [f"ENSG{i:011d}" for i in range(G)]
    expected = select_genes(parts, method=method, n_top=8)
    of_ids = parts[1].copy()
    of_ids.var_names, of_ids.var["symbol"] = ids, NAMES
    assert select_genes([parts[0], of_ids], method=method, n_top=8) == expected
    # the names are those of the first table
    turned = select_genes([of_ids, parts[0]], method=method, n_top=8)
    assert turned == [ids[NAMES.index(g)] for g in expected]


def test_what_cannot_be_is_refused() -> None:
    parts = [table(0), table(1)]
    with pytest.raises(ValueError, match="method='best'"):
        select_genes(parts, method="best")
    with pytest.raises(ValueError, match="n_top"):
        select_genes(parts, n_top=0)
    with pytest.raises(ValueError, match="min_spots"):
        select_genes(parts, min_spots=-1)
    with pytest.raises(ValueError, match="empty list"):
        select_genes([])
    with pytest.raises(ValueError, match="No gene is in all 2 tables"):
        select_genes([table(0), table(1, names=[f"X{i}" for i in range(G)])])
    with pytest.raises(ValueError, match="No gene is left"):
        select_genes(parts, min_spots=10_000)
    with pytest.raises(KeyError, match="section_key='slide'"):
        select_genes(parts, section_key="slide")
    parts[1].obs["slide"] = parts[0].obs["slide"] = "a"
    parts[1].obs.loc[parts[1].obs_names[0], "slide"] = None
    with pytest.raises(ValueError, match=r"\.obs\['slide'\] of object 1 has missing values; every row needs a section"):
        select_genes(parts, section_key="slide")
    with pytest.raises(KeyError, match="layer='raw'"):
        select_genes(parts, layer="raw")
    logged = table(0)
    logged.X = logged.X.log1p()
    with pytest.raises(ValueError, match="non-integer"):
        select_genes([logged, parts[1]])
    repeated = table(0, names=["G0", *NAMES[:-1]])
    with pytest.raises(ValueError, match="repeat in object 1: G0"):
        select_genes([parts[0], repeated])


def test_real_sections(data_folder: Path) -> None:
    from spatialwhisperer.datasets import her2st

    parts = [her2st(s, data_dir=data_folder, with_image=False) for s in ("C2", "C3")]
    chosen = select_genes(parts, n_top=1000)
    assert 1000 < len(chosen) <= 2000
    assert {"ERBB2", "IGKC"} <= set(select_genes(parts, method="mean", n_top=1000))
