"""Expression from images: what is computed, what is written, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import logging
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import spatialdata as sd
from scipy.spatial.distance import cdist

import spatialwhisperer as sw
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer._provenance import recorded
from spatialwhisperer.models.expression.predictor import ExpressionPredictor
from spatialwhisperer.statistics.expression.value_spaces import to_space
from tests.tl.small_models import TILES, alone, few, predict

KEY, STD = "sw_expression", "sw_expression_std"


def snapshot(data: Any) -> Any:
    tables = dict(data.tables) if isinstance(data, sd.SpatialData) else {"": data}
    return {
        name: (
            sorted(t.obs),
            sorted(t.obsm),
            sorted(t.layers),
            sorted(t.uns),
            sorted(t.uns.get("spatialwhisperer", {})),
        )
        for name, t in tables.items()
    }


@pytest.fixture(scope="module")
def trained(training: list[Any], genes: list[str]) -> Any:
    done: dict[Any, Any] = {}

    def get(preset: str, protocol: str = "strict") -> Any:
        if (preset, protocol) not in done:
            expression = sw.tl.ExpressionOptions(genes=genes, cross_validate=False, image=())
            done[preset, protocol] = sw.tl.train(
                training, preset=few(preset, protocol), image=TILES, expression=expression, max_epochs=2
            )
        return done[preset, protocol]

    return get


@pytest.fixture(scope="module")
def bleep(training: list[Any], genes: list[str]) -> Any:
    """A model with its accuracy on held-out patients."""
    expression = sw.tl.ExpressionOptions(genes=genes)
    return sw.tl.train(training, preset=few("bleep"), image=TILES, expression=expression, max_epochs=2)


# ------------------------------------------------------------------------------------------------- what is computed


def weights_by_hand(kind: str, temperature: float, cosine: np.ndarray, query: np.ndarray, near: np.ndarray) -> Any:
    if kind == "uniform":
        w = np.ones(len(near))
    elif kind == "softmax":
        w = np.exp(cosine / temperature)
    elif kind == "inv_sq_l1":
        w = 1 / cdist(query[None], near, "cityblock")[0] ** 2
    else:
        w = 1 / cdist(query[None], near)[0] ** 2
    return w / w.sum()


@pytest.mark.parametrize(
    ("preset", "protocol"),
    [("bleep", "strict"), ("heclip-heg", "strict"), ("heclip-hvg", "peer"), ("mclstexp", "strict")]
    + [("mclstexp", "peer"), ("whisperer", "strict")],
)
@pytest.mark.parametrize("k", [None, 7])
def test_retrieval_regression_and_both_are_those_by_hand(
    preset: str, protocol: str, k: int | None, trained: Any, section: Any
) -> None:
    model = trained(preset, protocol)
    predictor, retrieval = model.expression, model.expression.config.retrieval
    x = section["table"].obsm["X_stain_texture"]
    z = model.project("image", x, unit=False).astype(np.float64)
    bank = predictor.arrays[retrieval.key].astype(np.float64)
    values = predictor.values.toarray().astype(np.float64)
    cosine = (z @ bank.T) / np.linalg.norm(z, axis=1)[:, None] / np.linalg.norm(bank, axis=1)
    expected, std = np.empty((120, 40)), np.empty(120)
    for i in range(120):
        near = np.argsort(-cosine[i].astype(np.float32), kind="stable")[: k or retrieval.k]
        w = weights_by_hand(retrieval.weights, retrieval.temperature, cosine[i, near], z[i], bank[near])
        expected[i] = w @ values[near]
        std[i] = np.sqrt(np.maximum(w @ values[near] ** 2 - expected[i] ** 2, 0)).mean()
    out = predict(model, section, method="retrieval", k=k)
    assert np.allclose(out.X, expected, atol=1e-4)
    assert np.allclose(out.obs[STD], std, atol=1e-4)
    # the regression, from standardised features
    standardised = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    regressed = model.standardized("image", x) @ predictor.arrays["weight"].T + predictor.arrays["intercept"]
    assert np.allclose(predict(model, section, method="regression", k=k).X, regressed, atol=1e-4)
    if model.config.modality("image").standardize == "section":
        same = np.abs(standardised - model.standardized("image", x)) < 1e-2
        assert same.mean() > 0.9  # but for what is clipped
    weight = predictor.config.weight
    assert 0 < weight < 1
    mixed = predict(model, section, method="both", k=k)
    assert np.allclose(mixed.X, weight * regressed + (1 - weight) * expected, atol=1e-4)
    assert np.allclose(mixed.obs[STD], std, atol=1e-4)


def test_the_bank_holds_the_training_values(trained: Any, training: list[Any], genes: list[str]) -> None:
    for protocol in ("strict", "peer"):
        predictor = trained("mclstexp", protocol).expression
        parts = []
        for s in training:
            counts = s["table"][:, genes].X
            library = np.asarray(s["table"].X.sum(axis=1)).ravel()
            parts.append(to_space(sp.csr_matrix(counts), predictor.config.value_space, library=library))
        assert np.allclose(predictor.values.toarray(), sp.vstack(parts).toarray(), atol=1e-6)
        assert predictor.genes == genes
        assert sorted(predictor.config.groups) == ["P1", "P2"]


def test_the_gene_input_is_the_matrix_that_is_predicted(bleep: Any, training: list[Any]) -> None:
    """BLEEP normalises all genes and then takes some: one matrix is input, bank and truth."""
    predictor = bleep.expression
    assert predictor.config.retrieval.key == "gene"
    values = predictor.values.toarray()
    found: Any = [sw.pp.embed_genes(s["table"], bleep.encoders["gene"], inplace=False) for s in training]
    assert np.allclose(np.concatenate(found), values, atol=1e-6)
    bank = predictor.arrays["gene"].astype(np.float32)
    assert np.allclose(bleep.project("gene", values, unit=False), bank, atol=1e-2)
    embedded = [sw.tl.embed(s, model=bleep, modality="gene", inplace=False) for s in training]
    unit = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    assert np.allclose(np.concatenate([np.asarray(e) for e in embedded]), unit, atol=1e-2)


def test_genes_may_be_named(bleep: Any, section: Any, genes: list[str]) -> None:
    whole = predict(bleep, section)
    some = [genes[5], genes[0], genes[17]]
    out = predict(bleep, section, genes=some)
    assert list(out.var_names) == some
    assert np.array_equal(out.X, whole[:, some].X)
    assert np.array_equal(out.var["held_out_pearson"], whole.var.loc[some, "held_out_pearson"])
    assert np.array_equal(out.obs[STD], whole.obs[STD])
    assert predict(bleep, section, genes=genes[3]).shape == (120, 1)


def test_the_genes_of_the_model_are_recorded_where_a_spot_is_scaled_over_them(
    bleep: Any, section: Any, genes: list[str]
) -> None:
    of_table: Any = recorded(predict(bleep, section, genes=genes[:2]), KEY)
    assert of_table["library"] is None
    model = copy.copy(bleep)
    model.expression = copy.copy(bleep.expression)
    model.expression.config = dataclasses.replace(bleep.expression.config, value_space="per_spot_log10")
    every, few = predict(model, section), predict(model, section, genes=genes[3:5])
    of_model: Any = recorded(few, KEY)
    assert of_model["library"]["genes"] == genes
    mse = [sw.tl.evaluate_expression(section, p, per_gene=True).set_index("gene")["mse"] for p in (every, few)]
    np.testing.assert_allclose(mse[1], mse[0][genes[3:5]], rtol=1e-5)


@pytest.mark.parametrize("preset", ["bleep", "heclip-heg", "mclstexp", "whisperer"])
def test_neither_row_order_nor_batch_size_matter(preset: str, trained: Any, section: Any) -> None:
    model = trained(preset)
    whole = predict(model, section, method="both")
    order = np.random.default_rng(0).permutation(120)
    shuffled = predict(model, alone(section["table"])[order].copy(), method="both")
    assert list(shuffled.obs_names) == list(whole.obs_names[order])
    assert np.allclose(shuffled.X, whole.X[order], atol=1e-4)
    assert np.array_equal(predict(model, section, method="both", batch_size=7).X, whole.X)


def test_rows_without_features_are_nan(bleep: Any, section: Any) -> None:
    section["table"].obsm["X_stain_texture"][[2, 9]] = np.nan
    for method in bleep.expression.methods():
        out = predict(bleep, section, method=method)
        empty = np.isnan(out.X).all(axis=1)
        assert np.flatnonzero(empty).tolist() == [2, 9]
        assert np.isfinite(out.X[~empty]).all()
        assert np.isnan(out.obs[STD].iloc[[2, 9]]).all()


@pytest.mark.parametrize("scope", ["all", "other_groups"])
def test_an_image_of_the_training_is_recognised_without_its_spots(bleep: Any, training: list[Any], scope: str) -> None:
    known = training[0]
    table = known["table"].copy()
    table.obs_names = [f"tile {i}" for i in range(table.n_obs)]
    new = sd.SpatialData(images=dict(known.images), shapes=dict(known.shapes), tables={"table": table})
    with pytest.warns(SpatialWhispererWarning, match="is one that the model was trained on"):
        predict(bleep, new, bank_scope=scope)


def test_rows_without_tissue_are_nan_and_a_slide_of_them_is_refused(bleep: Any, section: Any, caplog: Any) -> None:
    from spatialwhisperer.encoders.image.stain_texture import StainTextureEncoder

    table = section["table"]
    fraction = StainTextureEncoder().feature_names().index("tissue_fraction")
    table.obsm["X_stain_texture"][[2, 9], fraction] = 0
    with caplog.at_level(logging.INFO, logger="spatialwhisperer"):
        out = predict(bleep, section)
    assert np.flatnonzero(np.isnan(out.X).all(axis=1)).tolist() == [2, 9]
    assert np.flatnonzero(np.isnan(out.X).any(axis=1)).tolist() == [2, 9]
    assert np.flatnonzero(out.obs[STD].isna()).tolist() == [2, 9]
    assert "2 of 120 rows have no whole tile on tissue and no prediction (NaN)." in caplog.messages
    table.obsm["X_stain_texture"][:, fraction] = 0
    before = snapshot(section)
    with pytest.raises(ValueError, match="None of the 120 rows has a whole tile on tissue"):
        sw.tl.predict_expression(section, model=bleep)
    assert snapshot(section) == before


# ------------------------------------------------------------------------------------------------- what is written


@pytest.mark.slow
def test_positions_are_written_x_first(bleep: Any, section: Any) -> None:
    table = section["table"]
    xy = np.array(table.obsm["spatial"])
    table.obsm["spatial"] = pd.DataFrame(xy[:, ::-1], index=table.obs_names, columns=["y", "x"])
    got: Any = sw.tl.predict_expression(section, model=bleep, inplace=False)
    assert np.array_equal(got.obsm["spatial"], xy)


def test_a_table_is_written_beside_the_others(bleep: Any, section: Any, genes: list[str], tmp_path: Any) -> None:
    before = snapshot(section)
    assert sw.tl.predict_expression(section, model=bleep) is None
    table, source = section[KEY], section["table"]
    assert {k: v for k, v in snapshot(section).items() if k != KEY} == before
    assert table.X.dtype == np.float32
    assert list(table.obs_names) == list(source.obs_names)
    assert list(table.var_names) == genes
    assert table.var["held_out_pearson"].dtype == np.float32
    assert table.var["held_out_pearson"].notna().any()
    assert list(table.var["gene_id"]) == list(source.var["gene_ids"][:40])
    assert table.obs[STD].dtype == np.float32
    assert (table.obs[STD] > 0).all()
    assert list(table.obs["patient"]) == list(source.obs["patient"])
    assert np.array_equal(table.obsm["spatial"], source.obsm["spatial"])
    attrs = source.uns["spatialdata_attrs"]
    assert table.uns["spatialdata_attrs"]["region"] == attrs["region"]
    assert list(table.obs[attrs["instance_key"]]) == list(source.obs[attrs["instance_key"]])
    sd.models.TableModel().validate(table)
    facts: Any = recorded(table, KEY)
    assert (facts["value_space"], facts["method"], facts["k"], facts["bank"]) == (
        "per_spot_log1p",
        "retrieval",
        50,
        240,
    )
    assert facts["model"]["preset"] == "bleep"
    assert set(facts["gene_lists"]) == {"HEG50", "HVG50"}
    assert set(facts["gene_lists"]["HEG50"]) <= set(genes)
    assert np.array_equal(predict(bleep, section).X, table.X)
    # without the pixels, which take their time
    sd.SpatialData(shapes=dict(section.shapes), tables=dict(section.tables)).write(tmp_path / "s.zarr")
    back = sd.read_zarr(tmp_path / "s.zarr")[KEY]
    assert np.array_equal(back.X, table.X)
    assert np.array_equal(back.obs[STD], table.obs[STD])
    assert np.array_equal(back.var["held_out_pearson"], table.var["held_out_pearson"], equal_nan=True)
    assert recorded(back, KEY) == facts


def test_a_second_prediction_replaces_the_first(bleep: Any, section: Any, genes: list[str]) -> None:
    sw.tl.predict_expression(section, model=bleep)
    sw.tl.predict_expression(section, model=bleep, genes=genes[:3])
    assert section[KEY].n_vars == 3
    sw.tl.predict_expression(section, model=str(bleep.folder), table_key="table", key_added="again")
    assert section["again"].n_vars == 40
    assert set(section.tables) == {"table", "cells", KEY, "again"}


@pytest.mark.parametrize("name", ["cells", "table", "P3_image", "P3_spots"])
def test_a_name_that_is_taken_is_refused(name: str, bleep: Any, section: Any) -> None:
    del section["table"].obsm["X_stain_texture"]
    before = snapshot(section)
    with pytest.raises(ValueError, match=f"already has an element named '{name}'.*key_added"):
        sw.tl.predict_expression(section, model=bleep, key_added=name)
    assert snapshot(section) == before


def test_the_prediction_of_an_anndata_is_returned(bleep: Any, adata: Any, section: Any) -> None:
    before = snapshot(adata)
    out = sw.tl.predict_expression(adata, model=bleep)
    assert isinstance(out, ad.AnnData)
    assert snapshot(adata) == before
    assert np.allclose(np.asarray(out.X), predict(bleep, section).X, atol=1e-5)
    assert "spatialdata_attrs" not in out.uns


def test_nothing_but_the_image_is_read(bleep: Any, section: Any, genes: list[str]) -> None:
    bare = alone(section["table"])[:, :0].copy()
    out = predict(bleep, bare)
    assert list(out.var_names) == genes
    assert np.array_equal(out.X, predict(bleep, section).X)


def test_a_slide_without_a_table_gets_a_grid(bleep: Any, section: Any, genes: list[str], caplog: Any) -> None:
    slide = section.subset(["P3_image"])
    with caplog.at_level(logging.INFO, logger="spatialwhisperer"):
        returned = predict(bleep, slide)
    assert not slide.tables
    assert not slide.shapes
    assert "The slide has no table, so a grid of" in " ".join(caplog.messages)
    sw.tl.predict_expression(slide, model=bleep)
    assert set(slide.tables) == {"sw_tiles", KEY}
    assert list(slide[KEY].var_names) == genes
    assert np.array_equal(slide[KEY].X, returned.X)
    assert list(slide[KEY].obs_names) == list(slide["sw_tiles"].obs_names)
    sd.models.TableModel().validate(slide[KEY])
    # a grid that the user lays gives the same
    again = section.subset(["P3_image"])
    sw.pp.tiles(again, tile_um=80, at="grid")
    sw.tl.predict_expression(again, model=bleep)
    assert np.array_equal(slide[KEY].X, again[KEY].X)
    # and nothing is added before an error
    bare = section.subset(["P3_image"])
    for name in ("P3_image", "sw_tiles"):
        with pytest.raises(ValueError, match=f"already has an element named '{name}'"):
            sw.tl.predict_expression(bare, model=bleep, key_added=name)
    assert not bare.tables
    assert not bare.shapes


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.fixture(scope="module")
def small(training: list[Any], genes: list[str]) -> Any:
    """A bank of one patient, smaller than k."""
    table = alone(training[0]["table"])[:30].copy()
    expression = sw.tl.ExpressionOptions(genes=genes, cross_validate=False)
    with pytest.warns(SpatialWhispererWarning, match="averages 50 neighbours, and there are 30 training rows"):
        return sw.tl.train(table, preset=few("bleep"), image=TILES, expression=expression, max_epochs=1)


def test_a_bank_that_is_smaller_than_k_is_averaged_as_a_whole(small: Any, section: Any) -> None:
    out = predict(small, section, method="retrieval")
    assert recorded(out, KEY)["k"] == 30  # type: ignore[index]
    assert np.allclose(out.X, small.expression.values.toarray().mean(axis=0), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "knn"}, ValueError, "Unknown method 'knn'; choose one of retrieval, regression, both"),
        ({"bank_scope": "mine"}, ValueError, "'all' or 'other_groups', not 'mine'"),
        ({"k": 241}, ValueError, r"k = 241 neighbours.*240 usable rows.*Lower k to 240"),
        ({"k": 0}, ValueError, "k must be a positive whole number"),
        ({"k": 2.5}, ValueError, "k must be a positive whole number"),
        ({"genes": ["Gene of none"]}, KeyError, "Gene of none.*It predicts 40.*ExpressionOptions.genes="),
        ({"genes": []}, ValueError, "genes is empty"),
        ({"genes": ["GENE0001", "GENE0002", "GENE0001"]}, ValueError, "genes holds GENE0001 more than once"),
        ({"bank_scope": "other_groups", "group_key": "donor"}, KeyError, "group_key='donor' is not in .obs"),
        ({"table_key": "spots"}, KeyError, "table_key='spots' is not a table"),
        ({"model": None}, ValueError, r"embedded model 'her2st-mini' predicts no expression.*sw.tl.train"),
        ({"model": "no_model_here"}, FileNotFoundError, "There is no folder no_model_here"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(
    options: dict[str, Any], error: Any, message: str, bleep: Any, section: Any
) -> None:
    # without features, so that a call which computes them before it checks is found out
    del section["table"].obsm["X_stain_texture"]
    before = snapshot(section)
    with pytest.raises(error, match=message):
        sw.tl.predict_expression(section, **({"model": bleep} | options))
    assert snapshot(section) == before


def test_models_that_cannot_predict_are_refused(model: Any, small: Any, section: Any) -> None:
    del section["table"].obsm["X_stain_texture"]
    before = snapshot(section)
    with pytest.raises(
        ValueError, match=r"model \(preset 'spatialwhisperer'\) predicts no expression.*expression=True"
    ):
        sw.tl.predict_expression(section, model=model)
    with pytest.raises(ValueError, match=r"k = 50.*30 usable rows.*Lower k to 30"):
        sw.tl.predict_expression(section, model=small, k=50)
    section["table"].obs["patient"] = "P1"
    with pytest.raises(ValueError, match="all 30 usable rows of the bank are of the section or patient of a query"):
        sw.tl.predict_expression(section, model=small, k=1, bank_scope="other_groups")
    assert snapshot(section) == before


def test_a_model_without_a_regression_retrieves_only(bleep: Any, section: Any) -> None:
    model = copy.deepcopy(bleep)
    config = dataclasses.replace(model.expression.config, regression="none")
    model.expression = ExpressionPredictor(config, model.expression.values, model.expression.arrays)
    with pytest.raises(ValueError, match="no regression; use method='retrieval'"):
        predict(model, section, method="both")
    assert np.array_equal(predict(model, section).X, predict(bleep, section).X)


def test_an_image_is_needed(bleep: Any, adata: Any) -> None:
    del adata.obsm["X_stain_texture"], adata.uns["spatial"]
    before = snapshot(adata)
    with pytest.raises(KeyError, match="image"):
        sw.tl.predict_expression(adata, model=bleep)
    assert snapshot(adata) == before
