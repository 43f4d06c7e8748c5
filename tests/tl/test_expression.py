"""Expression from images: what is computed, what is written, how good it is said to be, and what is refused."""

from __future__ import annotations

import warnings
from typing import Any

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import spatialdata as sd
from scipy.spatial.distance import cdist

import spatialwhisperer as sw
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer._provenance import recorded
from spatialwhisperer.statistics.value_spaces import to_space

FEW = {"max_epochs": 2, "batch_size": 64}
KEY = "sw_expression"


def alone(table: Any) -> Any:
    """The table as an AnnData of its own."""
    out = table.copy()
    out.uns.pop("spatialdata_attrs", None)
    return out


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
def training(simulated: Any) -> list[Any]:
    return [simulated.sections["P1"], simulated.sections["P2"]]


@pytest.fixture(scope="module")
def genes(training: list[Any]) -> list[str]:
    return [str(g) for g in training[0]["table"].var_names[:40]]


@pytest.fixture(scope="module")
def trained(training: list[Any], genes: list[str]) -> Any:
    done: dict[Any, Any] = {}

    def get(preset: str, protocol: str = "strict") -> Any:
        if (preset, protocol) not in done:
            options = {"genes": genes, "cross_validate": False, **FEW}
            done[preset, protocol] = sw.tl.train(training, preset=preset, protocol=protocol, **options)
        return done[preset, protocol]

    return get


@pytest.fixture(scope="module")
def bleep(training: list[Any], genes: list[str]) -> Any:
    """With its accuracy on held-out patients."""
    return sw.tl.train(training, preset="bleep", genes=genes, **FEW)


def predict(model: Any, data: Any, **options: Any) -> Any:
    return sw.tl.predict_expression(data, model=model, inplace=False, **options)


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
def test_by_hand(preset: str, protocol: str, k: int | None, trained: Any, section: Any) -> None:
    model = trained(preset, protocol)
    predictor, retrieval = model.expression, model.expression.retrieval
    x = section["table"].obsm["X_stain_texture"]
    z = model.project("image", x, unit=False).astype(np.float64)
    bank = predictor.arrays[retrieval.key].astype(np.float64)
    values = predictor.values.toarray().astype(np.float64)
    cosine = (z @ bank.T) / np.linalg.norm(z, axis=1)[:, None] / np.linalg.norm(bank, axis=1)
    expected, spread = np.empty((120, 40)), np.empty(120)
    for i in range(120):
        near = np.argsort(-cosine[i].astype(np.float32), kind="stable")[: k or retrieval.k]
        w = weights_by_hand(retrieval.weights, retrieval.temperature, cosine[i, near], z[i], bank[near])
        expected[i] = w @ values[near]
        spread[i] = np.sqrt(np.maximum(w @ values[near] ** 2 - expected[i] ** 2, 0)).mean()
    out = predict(model, section, method="retrieval", k=k)
    assert np.allclose(out.X, expected, atol=1e-4)
    assert np.allclose(out.obs["sw_expression_spread"], spread, atol=1e-4)
    # the regression, from standardised features
    standardised = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    regressed = model.standardized("image", x) @ predictor.arrays["weight"].T + predictor.arrays["intercept"]
    assert np.allclose(predict(model, section, method="regression", k=k).X, regressed, atol=1e-4)
    if protocol == "strict":
        same = np.abs(standardised - model.standardized("image", x)) < 1e-2
        assert same.mean() > 0.9  # but for what is clipped
    share = predictor.config["weight"]
    assert 0 < share < 1
    mixed = predict(model, section, method="both", k=k)
    assert np.allclose(mixed.X, share * regressed + (1 - share) * expected, atol=1e-4)
    assert np.allclose(mixed.obs["sw_expression_spread"], spread, atol=1e-4)


def test_the_bank_holds_the_training_values(trained: Any, training: list[Any], genes: list[str]) -> None:
    for protocol in ("strict", "peer"):
        predictor = trained("mclstexp", protocol).expression
        parts = []
        for s in training:
            counts = s["table"][:, genes].X
            library = np.asarray(s["table"].X.sum(axis=1)).ravel()
            parts.append(to_space(sp.csr_matrix(counts), predictor.config["value_space"], library=library))
        assert np.allclose(predictor.values.toarray(), sp.vstack(parts).toarray(), atol=1e-6)
        assert predictor.genes == genes
        assert sorted(predictor.config["groups"]) == ["P1", "P2"]


def test_genes_that_are_named(bleep: Any, section: Any, genes: list[str]) -> None:
    whole = predict(bleep, section)
    some = [genes[5], genes[0], genes[17]]
    out = predict(bleep, section, genes=some)
    assert list(out.var_names) == some
    assert np.array_equal(out.X, whole[:, some].X)
    assert np.array_equal(out.var["held_out_pearson"], whole.var.loc[some, "held_out_pearson"])
    assert np.array_equal(out.obs["sw_expression_spread"], whole.obs["sw_expression_spread"])
    assert predict(bleep, section, genes=genes[3]).shape == (120, 1)


@pytest.mark.parametrize("preset", ["bleep", "heclip-heg", "mclstexp", "whisperer"])
def test_neither_row_order_nor_batch_size_matter(preset: str, trained: Any, section: Any) -> None:
    model = trained(preset)
    whole = predict(model, section, method="both")
    order = np.random.default_rng(0).permutation(120)
    shuffled = predict(model, alone(section["table"])[order].copy(), method="both")
    assert list(shuffled.obs_names) == list(whole.obs_names[order])
    assert np.allclose(shuffled.X, whole.X[order], atol=1e-4)
    assert np.array_equal(predict(model, section, method="both", batch_size=7).X, whole.X)


def test_rows_without_features_are_empty(bleep: Any, section: Any) -> None:
    section["table"].obsm["X_stain_texture"][[2, 9]] = np.nan
    for method in bleep.expression.methods():
        out = predict(bleep, section, method=method)
        empty = np.isnan(out.X).all(axis=1)
        assert np.flatnonzero(empty).tolist() == [2, 9]
        assert np.isfinite(out.X[~empty]).all()
        assert np.isnan(out.obs["sw_expression_spread"].iloc[[2, 9]]).all()


# ------------------------------------------------------------------------------------------------- who is in the bank


@pytest.fixture(scope="module")
def marked(training: list[Any], genes: list[str]) -> Any:
    """Two sections of two patients, each with a gene that no other has; and a model of them."""
    tables = []
    for number, s in enumerate(training):
        table = alone(s["table"])
        x = table.X.toarray()
        x[:, :2] = 0
        x[:, number] = 50
        table.X = sp.csr_matrix(x)
        tables.append(table)
    return tables, sw.tl.train(tables, preset="bleep", genes=genes, cross_validate=False, **FEW)


def test_a_training_section_never_retrieves_itself(marked: Any) -> None:
    tables, model = marked
    for own, table in enumerate(tables):
        with pytest.warns(SpatialWhispererWarning, match="trained on .* says nothing about new tissue"):
            out = predict(model, table, method="retrieval")
        assert (out.X[:, own] == 0).all()
        assert (out.X[:, 1 - own] > 0).all()
        # whatever the order of its rows
        with pytest.warns(SpatialWhispererWarning, match="trained on"):
            assert (predict(model, table[::-1].copy(), method="retrieval").X[:, own] == 0).all()
    renamed = tables[0].copy()
    renamed.obs_names = [f"new_{i}" for i in range(renamed.n_obs)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", SpatialWhispererWarning)
        assert (predict(model, renamed, method="retrieval").X[:, 0] > 0).any()


def test_other_groups(marked: Any) -> None:
    tables, model = marked
    again = tables[0].copy()
    again.obs_names = [f"second_{i}" for i in range(again.n_obs)]
    out = predict(model, again, method="retrieval", bank_scope="other_groups")
    assert (out.X[:, 0] == 0).all()
    assert recorded(out, KEY)["bank_scope"] == "other_groups"
    again.obs["donor"] = "P2"
    out = predict(model, again, method="retrieval", bank_scope="other_groups", group_key="donor")
    assert (out.X[:, 0] > 0).all()
    assert (out.X[:, 1] == 0).all()
    again.obs["donor"] = ["P1"] * 60 + ["P2"] * 60
    out = predict(model, again, method="retrieval", bank_scope="other_groups", group_key="donor")
    assert (out.X[:60, 0] == 0).all()
    assert (out.X[60:, 1] == 0).all()


def test_a_validation_patient_is_not_training_tissue(training: list[Any], genes: list[str], section: Any) -> None:
    model = sw.tl.train([*training, section], preset="bleep", genes=genes, validation="P3", **FEW)
    assert model.expression.values.shape[0] == 240
    assert sorted(model.expression.config["groups"]) == ["P1", "P2"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", SpatialWhispererWarning)
        predict(model, section)


# ------------------------------------------------------------------------------------------------- what is written


def test_the_table_that_is_written(bleep: Any, section: Any, genes: list[str], tmp_path: Any) -> None:
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
    assert table.obs["sw_expression_spread"].dtype == np.float32
    assert (table.obs["sw_expression_spread"] > 0).all()
    assert list(table.obs["patient"]) == list(source.obs["patient"])
    assert np.array_equal(table.obsm["spatial"], source.obsm["spatial"])
    attrs = source.uns["spatialdata_attrs"]
    assert table.uns["spatialdata_attrs"]["region"] == attrs["region"]
    assert list(table.obs[attrs["instance_key"]]) == list(source.obs[attrs["instance_key"]])
    sd.models.TableModel().validate(table)
    said = recorded(table, KEY)
    assert (said["value_space"], said["method"], said["k"], said["bank"]) == ("per_spot_log1p", "retrieval", 50, 240)
    assert said["model"]["preset"] == "bleep"
    assert set(said["gene_lists"]) == {"HEG50", "HVG50"}
    assert set(said["gene_lists"]["HEG50"]) <= set(genes)
    assert np.array_equal(predict(bleep, section).X, table.X)
    # without the pixels, which take their time
    sd.SpatialData(shapes=dict(section.shapes), tables=dict(section.tables)).write(tmp_path / "s.zarr")
    back = sd.read_zarr(tmp_path / "s.zarr")[KEY]
    assert np.array_equal(back.X, table.X)
    assert np.array_equal(back.obs["sw_expression_spread"], table.obs["sw_expression_spread"])
    assert np.array_equal(back.var["held_out_pearson"], table.var["held_out_pearson"], equal_nan=True)
    assert recorded(back, KEY) == said


def test_a_second_prediction_replaces_the_first(bleep: Any, section: Any, genes: list[str]) -> None:
    sw.tl.predict_expression(section, model=bleep)
    sw.tl.predict_expression(section, model=bleep, genes=genes[:3])
    assert section[KEY].n_vars == 3
    sw.tl.predict_expression(section, model=str(bleep.folder), table_key="table", key_added="again")
    assert section["again"].n_vars == 40
    assert set(section.tables) == {"table", "cells", KEY, "again"}


@pytest.mark.parametrize("name", ["cells", "table", "P3_image", "P3_spots"])
def test_a_name_that_is_taken(name: str, bleep: Any, section: Any) -> None:
    del section["table"].obsm["X_stain_texture"]
    before = snapshot(section)
    with pytest.raises(ValueError, match=f"already has an element named '{name}'.*key_added"):
        sw.tl.predict_expression(section, model=bleep, key_added=name)
    assert snapshot(section) == before


def test_an_anndata_gets_its_prediction_back(bleep: Any, adata: Any, section: Any) -> None:
    before = snapshot(adata)
    out = sw.tl.predict_expression(adata, model=bleep)
    assert isinstance(out, ad.AnnData)
    assert snapshot(adata) == before
    assert np.allclose(out.X, predict(bleep, section).X, atol=1e-5)
    assert "spatialdata_attrs" not in out.uns


def test_a_slide_without_expression(bleep: Any, section: Any, genes: list[str]) -> None:
    """Nothing is asked of the query but its image."""
    bare = alone(section["table"])[:, :0].copy()
    out = predict(bleep, bare)
    assert list(out.var_names) == genes
    assert np.array_equal(out.X, predict(bleep, section).X)


# ------------------------------------------------------------------------------------------------- how good it is


def planted(patients: list[str], n: int = 80, seed: int = 0) -> list[ad.AnnData]:
    """Features that say much about gene 0, gene 1 of the same mean that is noise, and genes that follow nothing."""
    rng = np.random.default_rng(seed)
    tables = []
    for number, patient in enumerate(patients):
        x = rng.normal(size=(n, 6)).astype(np.float32)
        counts = rng.poisson(20, size=(n, 40))
        counts[:, 0] = rng.poisson(10 * np.exp(0.6 * x[:, 0]))
        table = ad.AnnData(sp.csr_matrix(counts.astype(np.float32)))
        table.var_names = [f"G{i}" for i in range(40)]
        table.obs_names = [f"{number}_{i}" for i in range(n)]
        table.obs["patient"] = patient
        table.obsm["X_given"] = x
        tables.append(table)
    return tables


GIVEN = {"preset": "bleep", "image_features": "X_given", "max_epochs": 8, "batch_size": 80}


def test_planted_and_noise_genes() -> None:
    tables = planted(["A", "B", "C", "D"])
    model = sw.tl.train(tables[:3], **GIVEN)
    for method in ("retrieval", "regression", "both"):
        out = predict(model, tables[3], method=method, k=20)
        stated = out.var["held_out_pearson"]
        assert stated["G0"] > 0.6
        assert abs(stated["G1"]) < 0.25
        assert stated.iloc[1:].abs().mean() < 0.2
        # and so it is on tissue that nobody has seen
        truth = np.log1p(1e4 * tables[3].X.toarray() / tables[3].X.toarray().sum(axis=1, keepdims=True))
        assert np.corrcoef(out.X[:, 0], truth[:, 0])[0, 1] > 0.6
    best = [np.nanmean(model.expression.held_out(m)) for m in ("retrieval", "regression", "both")]
    assert best[2] >= max(best[:2]) - 1e-6
    assert 0 <= model.expression.config["weight"] <= 1


def test_not_measured() -> None:
    model = sw.tl.train(planted(["A", "B"]), cross_validate=False, **GIVEN | {"max_epochs": 1})
    out = predict(model, planted(["C"])[0])
    assert out.var["held_out_pearson"].isna().all()


def test_held_out_accuracy_by_hand() -> None:
    """What is stated for a gene is what a model of the other patients reaches on each, mean over the patients."""
    tables = planted(["A", "B", "C"])
    options = GIVEN | {"max_epochs": 2}
    whole = sw.tl.train(tables, **options)
    r = []
    for out in range(3):
        rest = [t for i, t in enumerate(tables) if i != out]
        model = sw.tl.train(rest, genes=whole.expression.genes, cross_validate=False, **options)
        x = predict(model, tables[out], method="retrieval").X
        counts = tables[out].X.toarray()
        truth = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
        r.append([np.corrcoef(x[:, g], truth[:, g])[0, 1] for g in range(40)])
    assert np.allclose(whole.expression.held_out("retrieval"), np.mean(r, axis=0), atol=1e-3)


@pytest.mark.parametrize(
    ("patients", "held_out"),
    [
        (["A", "A", "B"], [{"A"}, {"B"}]),
        (["A", "B", "C"], [{"A"}, {"B"}, {"C"}]),
        (["A", "A"], [{"0:0"}, {"1:0"}]),
        (["A"], []),
    ],
)
def test_what_is_held_out(
    patients: list[str], held_out: list[set[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Patients where there are several, else sections; one section alone is said to be unmeasured."""
    from spatialwhisperer.tl._training import expression as expression_training

    left_in: list[set[int]] = []
    fit_model = expression_training.fit_model

    def watch(inputs: Any, items: Any, *arguments: Any, **options: Any) -> Any:
        left_in.append(set(items.row.tolist()))
        return fit_model(inputs, items, *arguments, **options)

    monkeypatch.setattr(expression_training, "fit_model", watch)
    model = sw.tl.train(planted(patients), **GIVEN | {"max_epochs": 1})
    by_section = len(set(patients)) == 1
    labels = np.repeat([f"{i}:0" for i in range(len(patients))] if by_section else patients, 80)
    out = [set(np.delete(labels, sorted(rows)).tolist()) for rows in left_in]
    assert sorted(out, key=sorted) == held_out
    said = "held-out tissue was not measured" in capsys.readouterr().err
    assert said == (not held_out)
    assert np.isnan(model.expression.held_out("retrieval")).all() == (not held_out)


def test_values_of_a_layer() -> None:
    """Values that are given are predicted as they are."""
    tables = planted(["A", "B"])
    for table in tables:
        table.layers["corrected"] = table.X.toarray() / 7 - 1
    model = sw.tl.train(tables, values_layer="corrected", cross_validate=False, **GIVEN | {"max_epochs": 1})
    expected = np.concatenate([t[:, model.expression.genes].layers["corrected"] for t in tables])
    assert np.allclose(model.expression.values.toarray(), expected)
    out = predict(model, planted(["C"])[0])
    assert recorded(out, KEY)["value_space"] == "as given"
    tables[0].layers["corrected"][0, 0] = np.nan
    with pytest.raises(ValueError, match=r"layers\['corrected'\] of object 0 holds values that are not finite"):
        sw.tl.train(tables, values_layer="corrected", **GIVEN)
    del tables[1].layers["corrected"]
    tables[0].layers["corrected"][0, 0] = 0
    with pytest.raises(KeyError, match=r"values_layer='corrected' not in .layers of object 1"):
        sw.tl.train(tables, values_layer="corrected", **GIVEN)


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.fixture(scope="module")
def small(training: list[Any], genes: list[str]) -> Any:
    """A bank of one patient, smaller than k."""
    table = alone(training[0]["table"])[:30].copy()
    return sw.tl.train(table, preset="bleep", genes=genes, cross_validate=False, **FEW)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "knn"}, ValueError, "Unknown method 'knn'; choose one of retrieval, regression, both"),
        ({"bank_scope": "mine"}, ValueError, "'all' or 'other_groups', not 'mine'"),
        ({"k": 241}, ValueError, r"k = 241 neighbours.*240 usable rows.*Lower k to 240"),
        ({"k": 0}, ValueError, "k must be a whole number of at least 1"),
        ({"k": 2.5}, ValueError, "k must be a whole number of at least 1"),
        ({"genes": ["Gene of none"]}, KeyError, "Gene of none.*It predicts 40.*train with genes="),
        ({"bank_scope": "other_groups", "group_key": "donor"}, KeyError, "group_key='donor' not in .obs"),
        ({"table_key": "spots"}, KeyError, "table_key='spots' is not a table"),
        ({"model": None}, ValueError, r"embedded model 'her2st-mini' did not learn to predict expression.*sw.tl.train"),
        ({"model": "no_model_here"}, FileNotFoundError, "There is no folder no_model_here"),
    ],
)
def test_bad_arguments(options: dict[str, Any], error: Any, message: str, bleep: Any, section: Any) -> None:
    # without features, so that a call which computes them before it checks is found out
    del section["table"].obsm["X_stain_texture"]
    before = snapshot(section)
    with pytest.raises(error, match=message):
        sw.tl.predict_expression(section, **({"model": bleep} | options))
    assert snapshot(section) == before


def test_models_that_cannot(small: Any, section: Any) -> None:
    model = sw.tl.train(planted(["A", "B"]), **GIVEN | {"preset": "spatialwhisperer", "max_epochs": 1})
    del section["table"].obsm["X_stain_texture"]
    before = snapshot(section)
    with pytest.raises(ValueError, match=r"did not learn to predict expression.*expression=True"):
        sw.tl.predict_expression(section, model=model)
    with pytest.raises(ValueError, match=r"k = 50.*30 usable rows.*Lower k to 30"):
        sw.tl.predict_expression(section, model=small)
    section["table"].obs["patient"] = "P1"
    with pytest.raises(ValueError, match="0 usable rows for the query whose own group is the largest"):
        sw.tl.predict_expression(section, model=small, k=1, bank_scope="other_groups")
    assert snapshot(section) == before
    no_regression = sw.tl.train(planted(["A", "B"]), cross_validate=False, **GIVEN | {"max_epochs": 1})
    no_regression.expression.config["regression"] = "none"
    with pytest.raises(ValueError, match="no regression; use method='retrieval'"):
        predict(no_regression, planted(["C"])[0], method="both")


def test_no_image(bleep: Any, adata: Any) -> None:
    del adata.obsm["X_stain_texture"], adata.uns["spatial"]
    before = snapshot(adata)
    with pytest.raises(KeyError, match="image"):
        sw.tl.predict_expression(adata, model=bleep)
    assert snapshot(adata) == before


@pytest.fixture
def fresh(training: list[Any]) -> list[Any]:
    """The training sections without image features, which a failed call must not leave behind."""
    out = []
    for s in training:
        table = s["table"].copy()
        del table.obsm["X_stain_texture"], table.uns["spatialwhisperer"]
        out.append(sd.SpatialData(images=dict(s.images), shapes=dict(s.shapes), tables={"table": table}))
    return out


TILES = {"tile_um": 80, "tile_px": 32, "preset": "bleep"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"preset": "blip"}, ValueError, "Unknown preset 'blip'"),
        ({"protocol": "paper"}, ValueError, "Unknown protocol 'paper'"),
        ({"genes": ["ERBB2", "none such"]}, KeyError, "genes not in the counts: .*none such"),
        ({"values_layer": "scaled"}, KeyError, "values_layer='scaled' not in .layers of object 0"),
        ({"expression": False, "genes": ["G"]}, ValueError, "belong to the prediction of expression"),
        ({"expression": False}, ValueError, "gene_encoder='identity' reads the genes"),
        (
            {"expression": True, "pairs": [("gene", "text")]},
            ValueError,
            "expression=True needs image–gene pairs|No object",
        ),
        ({"layer": "counts"}, KeyError, "counts"),
        ({"validation": ["P1", "P2"]}, ValueError, "names every group"),
    ],
)
def test_what_training_refuses(options: dict[str, Any], error: Any, message: str, fresh: list[Any]) -> None:
    before = [snapshot(s) for s in fresh]
    with pytest.raises(error, match=message):
        sw.tl.train(fresh, **(TILES | options))
    assert [snapshot(s) for s in fresh] == before


def test_expression_without_images(simulated: Any) -> None:
    with pytest.raises(ValueError, match="expression=True needs image–gene pairs"):
        sw.tl.train(simulated.reference, expression=True)
    with pytest.raises(ValueError, match="No object holds image–gene pairs"):
        sw.tl.train(simulated.reference, preset="bleep")


@pytest.mark.parametrize(
    ("value", "message"), [(-1.0, "negative values such as -1"), (np.nan, "NaN"), (0.5, "non-integer")]
)
@pytest.mark.parametrize("gene_features", [None, "X_pca"])
def test_counts_that_are_none(value: float, message: str, gene_features: str | None, fresh: list[Any]) -> None:
    for s in fresh:
        s["table"].obsm["X_pca"] = np.random.default_rng(0).normal(size=(120, 5)).astype(np.float32)
    table = fresh[1]["table"]
    table.X = table.X.astype(np.float32)
    table.X.data[3] = value
    before = [snapshot(s) for s in fresh]
    with pytest.raises(ValueError, match=message):
        sw.tl.train(fresh, gene_features=gene_features, **TILES)
    assert [snapshot(s) for s in fresh] == before
    genes = list(table.var_names[:5])
    with pytest.raises(ValueError, match=message):
        sw.tl.train(fresh, gene_features=gene_features, genes=genes, **TILES)
    assert [snapshot(s) for s in fresh] == before


def test_sections_without_common_genes(fresh: list[Any]) -> None:
    fresh[1]["table"].var_names = [f"mouse{i}" for i in range(150)]
    fresh[1]["table"].var = fresh[1]["table"].var[[]]
    before = [snapshot(s) for s in fresh]
    with pytest.raises(ValueError, match="No gene is in all 2 tables"):
        sw.tl.train(fresh, **TILES)
    assert [snapshot(s) for s in fresh] == before
