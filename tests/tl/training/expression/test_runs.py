"""Models that learn to predict expression: how well each gene is said to be predicted, and what is refused."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import spatialdata as sd

import spatialwhisperer as sw
from spatialwhisperer._provenance import recorded
from spatialwhisperer.statistics.expression.gene_numbers import GeneNumbers
from spatialwhisperer.tl._training.expression.predictor import choose_genes
from spatialwhisperer.tl._training.sources import describe

if TYPE_CHECKING:
    from pathlib import Path

KEY = "sw_expression"


def planted(patients: list[str], n: int = 80, seed: int = 0) -> list[Any]:
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


GIVEN: dict[str, Any] = {
    "preset": sw.models.get_preset("bleep").replace(batch_size=80),
    "image": sw.tl.ImageFeatures(key="X_given"),
    "max_epochs": 8,
}


def predict(model: Any, data: Any, **options: Any) -> Any:
    return sw.tl.predict_expression(data, model=model, inplace=False, **options)


def snapshot(section: Any) -> Any:
    table = section["table"]
    return [sorted(part) for part in (section.tables, table.obs, table.obsm, table.layers, table.uns)]


# ------------------------------------------------------------------------------------------------- what it is trained on


def test_rows_without_counts_in_the_chosen_genes_are_trained_on_as_zeros() -> None:
    tables = planted(["A", "B"], n=30)
    for table in tables:
        x = table.X.toarray()
        x[:12, :2] = 0
        table.X = sp.csr_matrix(x)
    expression = sw.tl.ExpressionOptions(genes=["G0", "G1"], cross_validate=False)
    model: Any = sw.tl.train(tables, **GIVEN | {"max_epochs": 1}, expression=expression)
    bank = model.expression.values.toarray()
    assert len(bank) == 60
    assert (bank == 0).all(axis=1).sum() == 24


@pytest.mark.slow
def test_a_panel_beside_whole_tables_is_named() -> None:
    """In training, and where a model of one is evaluated on the other: spots are scaled over all genes of their table."""
    expression = sw.tl.ExpressionOptions(genes=["G0", "G1", "G2"], cross_validate=False)
    options = GIVEN | {"max_epochs": 1, "expression": expression}
    whole, test = planted(["A", "B", "C"], n=30), planted(["D"], n=30, seed=1)[0]
    test.obs_names = [f"test_{i}" for i in range(30)]
    panel = [table[:, :10].copy() for table in whole]
    found: list[tuple[Any, Any]] = []
    for tables, message in (
        (whole[:2], None),
        (panel[:2], None),
        ([whole[0], panel[1]], r"far fewer in object 1 \(10\) than the 40 that are counted in object 0\. Their"),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model: Any = sw.tl.train(tables, **options)
        texts = [str(w.message) for w in caught if "on different scales" in str(w.message)]
        assert len(texts) == (message is not None)
        assert message is None or re.search(message, texts[0])
        prediction = predict(model, test)
        found.append((model.expression.config.measured, (recorded(prediction, KEY) or {})["measured"]))
    numbers = [(40, 40), (10, 10), (10, 40)]
    assert found == [(GeneNumbers(n, m), {"genes": n, "counted": m}) for n, m in numbers]


def with_ids(table: Any) -> Any:
    """The same table with Ensembl ids as names and a column of symbols."""
    out = table.copy()
    out.var["symbol"] = out.var_names.to_numpy()
    out.var_names = [f"ENSG{i:011d}" for i in range(out.n_vars)]
    return out


def chosen(tables: list[Any], genes: Any = None) -> Any:
    sources = describe(
        tables, modalities=["gene", "image"], keys={"image": "X_given"}, text_keys=(), group_key="patient"
    )
    return choose_genes(sources, genes, GIVEN["preset"], set(), None)


@pytest.mark.parametrize("first", [0, 1])
def test_genes_have_a_name_and_an_id_whichever_a_table_has(first: int) -> None:
    symbols = planted(["A", "B"], n=20)
    names, ids = [f"G{i}" for i in range(40)], [f"ENSG{i:011d}" for i in range(40)]
    mixed = [symbols[0], with_ids(symbols[1])][:: 1 - 2 * first]
    assert sorted(zip(*chosen(mixed), strict=True)) == sorted(zip(names, ids, strict=True))
    assert chosen(mixed, ["G3", ids[1], ids[3], "G3"]) == (["G3", "G1"], [ids[3], ids[1]])
    assert chosen(mixed, "G12") == (["G12"], [ids[12]])
    with pytest.raises(KeyError, match="genes not in the counts: G7. Every object with images must have them"):
        chosen([mixed[0], mixed[1][:, [0, 1]].copy()], ["G0", "G7"])


def test_values_of_a_layer_are_found_by_symbol_or_id() -> None:
    tables = [with_ids(t) for t in planted(["A", "B"], n=20)]
    for table in tables:
        table.layers["corrected"] = table.X.toarray() / 7
    expression = sw.tl.ExpressionOptions(genes=["G5", "G1"], values_layer="corrected", cross_validate=False)
    model: Any = sw.tl.train(tables, expression=expression, **GIVEN | {"max_epochs": 1})
    expected = np.concatenate([t.layers["corrected"][:, [5, 1]] for t in tables])
    assert np.allclose(model.expression.values.toarray(), expected)
    assert model.expression.genes == ["G5", "G1"]


def test_no_genes_are_refused() -> None:
    with pytest.raises(ValueError, match="genes is empty: name at least one gene, or leave it out"):
        sw.tl.ExpressionOptions(genes=[])


# ------------------------------------------------------------------------------------------------- how good it is


@pytest.mark.slow
def test_the_held_out_accuracy_separates_planted_genes_from_noise() -> None:
    tables = planted(["A", "B", "C", "D"])
    model: Any = sw.tl.train(tables[:3], **GIVEN)
    for method in ("retrieval", "regression", "both"):
        out = predict(model, tables[3], method=method, k=20)
        stated = out.var["held_out_pearson"]
        assert stated["G0"] > 0.6
        assert abs(stated["G1"]) < 0.25
        assert stated.iloc[1:].abs().mean() < 0.2
        # and the planted gene is predicted on new tissue
        truth = np.log1p(1e4 * tables[3].X.toarray() / tables[3].X.toarray().sum(axis=1, keepdims=True))
        assert np.corrcoef(out.X[:, 0], truth[:, 0])[0, 1] > 0.6
    best = [np.nanmean(model.expression.held_out(m)) for m in ("retrieval", "regression", "both")]
    assert best[2] >= max(best[:2]) - 1e-6
    assert 0 <= model.expression.config.weight <= 1


def test_the_held_out_accuracy_is_that_by_hand() -> None:
    """The mean over the patients of what a model of the other patients reaches."""
    tables = planted(["A", "B", "C"])
    options = GIVEN | {"max_epochs": 2}
    whole: Any = sw.tl.train(tables, **options)
    r = []
    for out in range(3):
        rest = [t for i, t in enumerate(tables) if i != out]
        expression = sw.tl.ExpressionOptions(genes=whole.expression.genes, cross_validate=False)
        model: Any = sw.tl.train(rest, expression=expression, **options)
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
def test_patients_are_held_out_or_sections_of_one_patient(
    patients: list[str], held_out: list[set[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a single section nothing is measured, and a message says so."""
    from spatialwhisperer.tl._training.expression import predictor as expression_training

    left_in: list[set[int]] = []
    fit_model = expression_training.fit_model

    def watch(inputs: Any, items: Any, *arguments: Any, **options: Any) -> Any:
        left_in.append(set(items.row.tolist()))
        return fit_model(inputs, items, *arguments, **options)

    monkeypatch.setattr(expression_training, "fit_model", watch)
    model: Any = sw.tl.train(planted(patients), **GIVEN | {"max_epochs": 1})
    by_section = len(set(patients)) == 1
    labels = np.repeat([f"{i}:0" for i in range(len(patients))] if by_section else patients, 80)
    out = [set(np.delete(labels, sorted(rows)).tolist()) for rows in left_in]
    assert sorted(out, key=sorted) == held_out
    unmeasured = "held-out tissue was not measured" in capsys.readouterr().err
    assert unmeasured == (not held_out)
    assert np.isnan(model.expression.held_out("retrieval")).all() == (not held_out)


def test_values_of_a_layer_are_predicted_as_they_are() -> None:
    tables = planted(["A", "B"])
    for table in tables:
        table.layers["corrected"] = table.X.toarray() / 7 - 1
    layer = sw.tl.ExpressionOptions(values_layer="corrected", cross_validate=False)
    model: Any = sw.tl.train(tables, expression=layer, **GIVEN | {"max_epochs": 1})
    expected = np.concatenate([t[:, model.expression.genes].layers["corrected"] for t in tables])
    assert np.allclose(model.expression.values.toarray(), expected)
    out = predict(model, planted(["C"])[0])
    record: Any = recorded(out, KEY)
    assert record["value_space"] == "as given"
    tables[0].layers["corrected"][0, 0] = np.nan
    with pytest.raises(ValueError, match=r"layers\['corrected'\] of object 0 holds values that are not finite"):
        sw.tl.train(tables, expression=layer, **GIVEN)
    del tables[1].layers["corrected"]
    tables[0].layers["corrected"][0, 0] = 0
    with pytest.raises(KeyError, match=r"values_layer='corrected' not in .layers of object 1"):
        sw.tl.train(tables, expression=layer, **GIVEN)


def test_accuracy_is_unknown_where_it_was_not_measured() -> None:
    expression = sw.tl.ExpressionOptions(cross_validate=False)
    model: Any = sw.tl.train(planted(["A", "B"]), expression=expression, **GIVEN | {"max_epochs": 1})
    assert predict(model, planted(["C"])[0]).var["held_out_pearson"].isna().all()


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.fixture
def fresh(simulated: Any) -> list[Any]:
    """The training sections without image features, which a failed call must not leave behind."""
    out = []
    for s in (simulated.sections["P1"], simulated.sections["P2"]):
        table = s["table"].copy()
        del table.obsm["X_stain_texture"], table.uns["spatialwhisperer"]
        out.append(sd.SpatialData(images=dict(s.images), shapes=dict(s.shapes), tables={"table": table}))
    return out


TILES: dict[str, Any] = {"image": sw.tl.ImageFeatures(tile_um=80, tile_px=32), "preset": "bleep"}


def preset(**values: Any) -> Any:
    return sw.models.get_preset("bleep").replace(**values)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"preset": "blip"}, ValueError, "Unknown preset 'blip'"),
        (
            {"expression": sw.tl.ExpressionOptions(genes=["ERBB2", "none such"])},
            KeyError,
            "genes not in the counts: .*none such",
        ),
        (
            {"expression": sw.tl.ExpressionOptions(values_layer="scaled")},
            KeyError,
            "values_layer='scaled' not in .layers of object 0",
        ),
        ({"expression": False}, ValueError, "identity.* reads the genes"),
        (
            {"expression": True, "preset": preset(pairs={("gene", "text"): 1.0})},
            ValueError,
            "expression=… needs image–gene pairs|No object",
        ),
        ({"gene": sw.tl.GeneFeatures(layer="counts")}, KeyError, "counts"),
        ({"gene": sw.tl.GeneFeatures("pca", options={"n_latnet": 5})}, ValueError, "options of .pca. has n_latnet"),
        ({"validation": ["P1", "P2"]}, ValueError, "names every group"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(
    options: dict[str, Any], error: Any, message: str, fresh: list[Any]
) -> None:
    before = [snapshot(s) for s in fresh]
    with pytest.raises(error, match=message):
        sw.tl.train(fresh, **(TILES | options))
    assert [snapshot(s) for s in fresh] == before


def test_images_with_counts_are_needed(simulated: Any) -> None:
    with pytest.raises(ValueError, match="expression=… needs image–gene pairs"):
        sw.tl.train(simulated.reference, expression=True)
    with pytest.raises(ValueError, match="No object holds image–gene pairs"):
        sw.tl.train(simulated.reference, preset="bleep")


@pytest.mark.parametrize(
    ("value", "message"), [(-1.0, "negative values such as -1"), (np.nan, "NaN"), (0.5, "non-integer")]
)
@pytest.mark.parametrize("key", [None, "X_pca"])
def test_values_that_are_no_counts_are_refused(value: float, message: str, key: str | None, fresh: list[Any]) -> None:
    gene = None if key is None else sw.tl.GeneFeatures(key=key)
    for s in fresh:
        s["table"].obsm["X_pca"] = np.random.default_rng(0).normal(size=(120, 5)).astype(np.float32)
    table = fresh[1]["table"]
    table.X = table.X.astype(np.float32)
    table.X.data[3] = value
    before = [snapshot(s) for s in fresh]
    with pytest.raises(ValueError, match=message):
        sw.tl.train(fresh, gene=gene, **TILES)
    assert [snapshot(s) for s in fresh] == before
    some = sw.tl.ExpressionOptions(genes=list(table.var_names[:5]))
    with pytest.raises(ValueError, match=message):
        sw.tl.train(fresh, gene=gene, expression=some, **TILES)
    assert [snapshot(s) for s in fresh] == before


def test_sections_need_common_genes(fresh: list[Any]) -> None:
    fresh[1]["table"].var_names = [f"mouse{i}" for i in range(150)]
    fresh[1]["table"].var = fresh[1]["table"].var[[]]
    before = [snapshot(s) for s in fresh]
    with pytest.raises(ValueError, match="No gene is in all 2 tables"):
        sw.tl.train(fresh, **TILES)
    assert [snapshot(s) for s in fresh] == before


def stopping(after: int) -> tuple[Any, list[int]]:
    """A callback that interrupts the run after some epochs in all, and the epochs that were begun."""
    from lightning.pytorch.callbacks import Callback

    begun: list[int] = []

    class Stop(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
            if len(begun) == after:
                raise KeyboardInterrupt
            begun.append(trainer.current_epoch)

    return Stop(), begun


@pytest.mark.slow
def test_a_run_that_is_interrupted_while_it_measures_continues_with_the_patients_that_are_left(tmp_path: Path) -> None:
    """The model and the run without the first patient are not trained again, and nothing differs in the end."""
    tables = planted(["A", "B", "C"])
    dropout = sw.models.get_preset("bleep").replace(batch_size=80, dropout={"image": 0.2})
    options = GIVEN | {"preset": dropout, "max_epochs": 4}
    whole: Any = sw.tl.train(tables, **options)
    stop, begun = stopping(4 + 4 + 3)
    with pytest.raises(KeyboardInterrupt):
        sw.tl.train(tables, **options, folder=tmp_path, trainer={"callbacks": [stop]})
    assert len(begun) == 11
    go_on, begun = stopping(100)
    model: Any = sw.tl.train(tables, **options, folder=tmp_path, resume=True, trainer={"callbacks": [go_on]})
    assert begun == [3, 0, 1, 2, 3]
    for method in ("retrieval", "regression", "both"):
        assert np.array_equal(model.expression.held_out(method), whole.expression.held_out(method), equal_nan=True)
    assert model.expression.config.weight == whole.expression.config.weight
    assert np.array_equal(predict(model, tables[0]).X, predict(whole, tables[0]).X)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["whisperer", "spatialwhisperer"])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_captions_of_one_patient_are_enough_for_a_held_out_accuracy(preset: str) -> None:
    """Without that patient there is no caption, and the image is linked to the genes all the same."""
    tables = planted(["A", "B", "C"], n=40)
    tables[0].obs["text"] = np.where(tables[0].obsm["X_given"][:, 0] > 0, "tumour", "stroma")
    expression = sw.tl.ExpressionOptions(genes=[f"G{i}" for i in range(5)])
    options: dict[str, Any] = {"gene": "pca", "max_epochs": 2, "random_state": 0}
    if preset == "whisperer":
        options.pop("max_epochs")
    model: Any = sw.tl.train(tables, **GIVEN | {"preset": preset} | options, expression=expression)
    held_out = {name: values for name, values in model.expression.arrays.items() if name.startswith("held_out")}
    assert held_out
    assert all(np.isfinite(values[0]) for values in held_out.values())
