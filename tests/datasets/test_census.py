"""Cells of the Census, read from a small one that the test writes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import spatialwhisperer as sw
from spatialwhisperer.training.corpus.manifest import open_manifest

if TYPE_CHECKING:
    from pathlib import Path


def cells() -> Any:
    """60 cells of three donors in two data sets."""
    rng, n = np.random.default_rng(0), 60
    out = ad.AnnData(sp.csr_matrix(rng.poisson(1.0, (n, 40)).astype(np.float32)))
    out.obs = pd.DataFrame(
        {
            "dataset_id": np.repeat(["d1", "d2"], [40, 20]),
            "donor_id": np.repeat(["A", "B", "A"], 20),
            "cell_type": np.tile(["T cell", "B cell"], 30),
            "cell_type_ontology_term_id": np.tile(["CL:0000084", "CL:0000236"], 30),
            "tissue": "breast",
            "tissue_general": "breast",
            "tissue_ontology_term_id": "UBERON:0000310",
            "disease": np.repeat(["normal", "breast carcinoma"], [40, 20]),
            "disease_ontology_term_id": np.repeat(["PATO:0000461", "MONDO:0004989"], [40, 20]),
            "assay": "10x 3' v3",
            "development_stage": "adult",
            "sex": "female",
            "is_primary_data": np.arange(n) % 10 != 0,
        },
        index=[f"{i}" for i in range(n)],
    )
    out.var = pd.DataFrame(
        {"feature_id": [f"ENSG{i:011d}" for i in range(40)], "feature_name": [f"GENE{i}" for i in range(40)]},
        index=[f"g{i}" for i in range(40)],
    )
    return out


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a Census with the layout of the published one."""
    pytest.importorskip("cellxgene_census", reason="needs pip install 'spatialwhisperer[census]'")
    import tiledbsoma

    root = str(tmp_path_factory.mktemp("soma") / "census")
    with tiledbsoma.Collection.create(root) as census:
        data = census.add_new_collection("census_data")
        write(data.add_new_collection("homo_sapiens", kind=tiledbsoma.Experiment), cells())
    return root


def write(experiment: Any, table: Any) -> None:
    """Write a table as SOMA has it: tiledbsoma's own function does not know AnnData 0.13."""
    import pyarrow as pa
    import tiledbsoma

    def frame(into: Any, name: str, rows: pd.DataFrame) -> None:
        rows = rows.reset_index(drop=True).assign(soma_joinid=np.arange(len(rows)))
        written = pa.Table.from_pandas(rows, preserve_index=False)
        large = pa.schema(
            [pa.field(f.name, pa.large_string() if f.type == pa.string() else f.type) for f in written.schema]
        )
        into.add_new_dataframe(
            name, schema=large, index_column_names=["soma_joinid"], domain=[[0, len(rows) - 1]]
        ).write(written.cast(large))

    frame(experiment, "obs", table.obs)
    rna = experiment.add_new_collection("ms").add_new_collection("RNA", kind=tiledbsoma.Measurement)
    frame(rna, "var", table.var)
    x = rna.add_new_collection("X").add_new_sparse_ndarray("raw", type=pa.float32(), shape=table.shape)
    x.write(pa.SparseCOOTensor.from_scipy(sp.coo_matrix(table.X)))


def read(uri: str, *given: Any, **options: Any) -> Any:
    return sw.datasets.census(*given, uri=uri, min_genes=1, **options)


def test_data_sets_are_opened_one_by_one(uri: str) -> None:
    found, all_cells = read(uri), cells()
    assert dict(found.datasets) == {"d1": 36, "d2": 18}
    table = found["d2"]
    expected = all_cells[(all_cells.obs["dataset_id"] == "d2") & all_cells.obs["is_primary_data"]]
    assert (table.X != expected.X).nnz == 0
    assert table.var_names.tolist() == all_cells.var["feature_id"].tolist()
    assert table.obs["patient"].unique().tolist() == ["d2:A"]
    assert set(found["d1"].obs["patient"]) == {"d1:A", "d1:B"}
    assert set(table.obs["disease"]) == {"breast carcinoma"}


def test_a_query_chooses_cells(uri: str) -> None:
    assert dict(read(uri, "cell_type == 'T cell' and donor_id == 'B'").datasets) == {"d1": 10}
    with pytest.raises(ValueError, match="No cell of the Census fits"):
        read(uri, "cell_type == 'fat cell'")
    with pytest.raises(ValueError, match="cannot be read"):
        read(uri, "no_such_column == 'T cell'")


def test_pseudobulk_sums_the_cells_of_a_donor(uri: str) -> None:
    table = read(uri, "dataset_id == 'd1'", pseudobulk=["cell_type"])["d1"]
    assert table.n_obs == 4
    assert table.obs["cells"].sum() == 40
    assert table.X.sum() == cells()[:40].X.sum()
    assert set(zip(table.obs["patient"], table.obs["cell_type"], strict=True)) == {
        (p, c) for p in ("d1:A", "d1:B") for c in ("T cell", "B cell")
    }
    assert set(table.obs["tissue"]) == {"breast"}


def test_rows_with_few_genes_are_left_out(uri: str) -> None:
    table: Any = sw.datasets.census("dataset_id == 'd1'", uri=uri, min_genes=28)["d1"]
    assert 0 < table.n_obs < 40
    assert ((table.X != 0).sum(axis=1) >= 28).all()


def test_cells_of_the_census_become_a_corpus(uri: str, tmp_path: Path) -> None:
    tables = read(uri)
    encoder = sw.pp.fit_gene_encoder([tables["d1"], tables["d2"]], "pca", n_latent=4, n_top_genes=None)
    captions = partial(sw.pp.caption_metadata, templates=["{cell_type}"])
    source = sw.pp.CorpusSource("census", tables, "CC BY 4.0", prepare=captions)
    folder = sw.pp.build_corpus(source, tmp_path / "c", gene=encoder, text="minilm", shared=True)
    model: Any = sw.tl.train(folder, preset="spatialwhisperer", max_epochs=1)
    assert model.config.training.pairs == {"gene–text": 54}
    assert set(model.config.labels) == {"B cell", "T cell"}


def test_a_data_set_without_a_row_of_enough_genes_does_not_stop_a_corpus(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # sums of nine cells of d1, and the one cell of d2 that is asked for, which expresses fewer genes
    tables = sw.datasets.census(
        "soma_joinid < 42 and is_primary_data == True", uri=uri, pseudobulk=["cell_type"], min_genes=35
    )
    assert dict(tables.datasets) == {"d1": 36, "d2": 1}
    assert {name: tables[name].n_obs for name in tables} == {"d1": 4, "d2": 0}
    encoder = sw.pp.fit_gene_encoder(read(uri)["d1"], "pca", n_latent=3, n_top_genes=None)
    source = sw.pp.CorpusSource("census", tables, "CC BY 4.0", prepare=sw.pp.caption_metadata)
    with sw.settings.override(verbose=True):
        folder = sw.pp.build_corpus(source, tmp_path / "c", gene=encoder, text="minilm")
    assert "census/d2: no row of the table is left" in capsys.readouterr().err
    assert {s.name: s.rows for s in open_manifest(folder).slides} == {"d1": 4, "d2": 0}


def test_offline_reads_a_local_folder_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import SimpleNamespace

    def open_soma(**given: Any) -> Any:
        raise ConnectionError(f"asked for {given}")

    monkeypatch.setitem(sys.modules, "cellxgene_census", SimpleNamespace(open_soma=open_soma))
    from spatialwhisperer.datasets.census import CensusTables

    with sw.settings.override(offline=True):
        for uri in (None, "s3://bucket/census"):
            tables = CensusTables(uri, "2023-12-15", "homo_sapiens", None, {"d1": 3})
            for call in (
                partial(sw.datasets.census, uri=uri),
                partial(tables.__getitem__, "d1"),
                partial(tables.peek, "d1"),
            ):
                with pytest.raises(FileNotFoundError, match=r"settings\.offline is set.*uri=…"):
                    call()
        for uri in ("/data/census", "file:///data/census"):
            with pytest.raises(ConnectionError, match="asked for .*/data/census"):
                sw.datasets.census(uri=uri)
    with sw.settings.override(offline=False), pytest.raises(ConnectionError, match="2023-12-15"):
        sw.datasets.census()


def test_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cellxgene_census", None)
    with pytest.raises(ImportError, match=r"spatialwhisperer\[census\]"):
        sw.datasets.census()
