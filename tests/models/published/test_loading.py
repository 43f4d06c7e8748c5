"""The published checkpoint beside an independent computation in double precision."""

from __future__ import annotations

import collections
import warnings
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer.encoders.recipe import EncoderIdentity
from spatialwhisperer.encoders.text.transformer import TransformerEncoder
from spatialwhisperer.tl._embedding.texts import embed_texts
from tests.models.published.conftest import converted
from tests.models.published.generator import BLOCKS, FULL, Sizes, new_bert, state_dict, towers, write_checkpoint
from tests.models.published.reference import doubles, pooled, project

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("transformers")

LABELS = ["T cells", "B cells", "plasma cells", "a sample of tumor", "stroma"]
IDS = {
    "T cells": [2, 5, 8, 9, 3],
    "B cell": [2, 7, 8, 3],
    "t cell": [2, 6, 8, 3],
    "a sample of tumor": [2, 14, 15, 13, 11, 3],
}
"""Tokens by hand."""


def rows(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


@pytest.fixture
def model(checkpoint: Path, vocabulary: Path, cache: Path) -> Any:  # noqa: ARG001
    return sw.models.load(checkpoint, tokenizer=vocabulary)


def test_parameters_are_those_of_the_checkpoint(model: Any, state: Any) -> None:
    """Every tensor of the file is one of the model, bit for bit, and there are no others but the training statistics."""
    own = {name: value.numpy() for name, value in model.state_dict().items()}
    renamed = {
        "nonlinear.0": "feature_nonlinear.0",
        "nonlinear.1": "feature_nonlinear.1",
        "nonlinear.4": "feature_nonlinear.3",
    }
    renamed |= {"shortcut": "feature_shortcut", "norm": "feature_block_ln"}
    seen = set()
    for name, value in own.items():
        if name.startswith("towers.text.network."):
            theirs = f"model.text_model.{name.removeprefix('towers.text.network.')}"
        elif name.startswith("heads."):
            _, modality, rest = name.split(".", 2)
            module, _, part = rest.rpartition(".")
            theirs = f"model.discriminator.{BLOCKS[modality]}.{renamed[module]}.{part}"
        elif name == "log_scale":
            theirs = "model.discriminator.temperature"
        else:
            assert name.endswith(("_mean", "_std"))
            continue
        np.testing.assert_array_equal(value, state[theirs].numpy())
        seen.add(theirs)
    assert seen == set(state)


def test_sizes_are_those_of_the_tensors_and_not_the_pickled_ones(model: Any) -> None:
    config = model.config
    assert config.projection_dim == 32
    assert {name: m.feature_dim for name, m in config.modalities.items()} == {"gene": 512, "image": 1536, "text": 128}
    assert [config.modality(m).features.name for m in ("gene", "image", "text")] == ["geneformer", "uni2-h", "biobert"]
    assert {m.standardize for m in config.modalities.values()} == {"none"}
    assert [name for name, m in config.modalities.items() if m.trained] == ["text"]
    assert model.scale == pytest.approx(np.exp(2.9))


def test_heads_are_those_of_the_formula(model: Any, state: Any) -> None:
    double = doubles(state)
    for modality, d in (("gene", 512), ("image", 1536)):
        x = rows(40, d)
        np.testing.assert_allclose(model.project(modality, x, device="cpu"), project(double, modality, x), atol=1e-5)


def test_texts_are_those_of_the_formula_whatever_the_padding(model: Any, state: Any) -> None:
    double = doubles(state)
    encoder = model.encoders["text"]
    assert encoder.prepare(list(IDS)) == list(IDS.values())
    expected = project(double, "text", np.stack([pooled(double, ids, 2) for ids in IDS.values()]))
    np.testing.assert_allclose(model.project("text", list(IDS), device="cpu"), expected, atol=1e-5)
    single = np.concatenate([model.project("text", [text], device="cpu") for text in IDS])
    np.testing.assert_allclose(single, expected, atol=1e-5)
    assert np.abs(expected[1] - expected[2]).max() > 0.01


def test_texts_are_cut_off_at_the_longest_input(model: Any, state: Any) -> None:
    assert model.encoders["text"].max_length == Sizes().positions
    long = " ".join(["tumor"] * 300)
    expected = project(doubles(state), "text", pooled(doubles(state), [2, *[11] * 38, 3], 2)[None])
    np.testing.assert_allclose(model.project("text", [long], device="cpu"), expected, atol=1e-5)


@pytest.mark.parametrize("modality", ["image", "gene"])
def test_an_object_is_annotated_by_the_features_that_it_holds(
    modality: str, checkpoint: Path, vocabulary: Path, state: Any, cache: Path
) -> None:
    keys = {"image": "X_uni2", "gene": "geneformer"}
    model = sw.models.load(checkpoint, tokenizer=vocabulary, features=keys)
    data = ad.AnnData(np.zeros((30, 1), np.float32))
    data.obsm[keys[modality]] = x = rows(30, {"image": 1536, "gene": 512}[modality])
    x[3] = np.nan
    sw.tl.zero_shot_annotate(data, LABELS, model=model, modality=modality, normalize="none", device="cpu")
    double = doubles(state)
    complete = np.isfinite(x).all(axis=1)
    tokens: Any = model.encoders["text"].prepare(LABELS)
    t = project(double, "text", np.stack([pooled(double, ids, 2) for ids in tokens]))
    score = project(double, modality, x[complete]) @ t.T
    found = np.asarray(data.obsm["sw_label_scores"])
    np.testing.assert_allclose(found[complete], score, atol=1e-5)
    assert np.isnan(found[~complete]).all()
    logits = np.exp(2.9) * score
    logits = np.exp(logits - logits.max(1, keepdims=True))
    confidence = (logits / logits.sum(1, keepdims=True)).max(1)
    np.testing.assert_allclose(data.obs["sw_label_confidence"].to_numpy()[complete], confidence, atol=1e-4)
    assert converted(cache)


def test_it_is_converted_once_and_opens_as_a_folder(
    checkpoint: Path, vocabulary: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sw.models.load(checkpoint, tokenizer=vocabulary)
    name = converted(cache)
    assert len(name) == 1
    monkeypatch.setattr("spatialwhisperer.models.published.loading.convert", lambda *_: pytest.fail("converted again"))
    again = sw.models.load(checkpoint, tokenizer=vocabulary)
    folder = sw.models.load(cache / "published" / name[0])
    x = rows(5, 1536)
    for other in (again, folder):
        np.testing.assert_array_equal(other.project("image", x, device="cpu"), first.project("image", x, device="cpu"))
        np.testing.assert_array_equal(
            other.project("text", LABELS, device="cpu"), first.project("text", LABELS, device="cpu")
        )
    assert sorted(p.name for p in (cache / "published" / name[0]).iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "text_encoder",
    ]
    with pytest.raises(ValueError, match="tokenizer is for the published checkpoint"):
        sw.models.load(cache / "published" / name[0], tokenizer=vocabulary)


def test_the_licence_is_said_and_stands_in_the_card(
    checkpoint: Path,
    vocabulary: Path,
    cache: Path,  # noqa: ARG001
    capsys: pytest.CaptureFixture,
) -> None:
    with sw.settings.override(verbose=True):
        model = sw.models.load(checkpoint, tokenizer=vocabulary)
        said = capsys.readouterr().err
        assert "CC-BY-NC-4.0" in said
        assert "not for commercial use" in said
        assert "CC-BY-NC-4.0" in repr(model)
        sw.models.load(str(model.folder))
        assert "CC-BY-NC-4.0" in capsys.readouterr().err
    assert model.config.card is not None
    assert len(model.config.card.recipe["checkpoint_sha256"]) == 64


@pytest.mark.slow
def test_the_full_size_with_a_locked_text_tower(tmp_path: Path, cache: Path) -> None:  # noqa: ARG001
    """2,048 dimensions and no text tower, as a run that locks all towers leaves it."""
    state = state_dict(FULL)
    assert len(state) == 37
    model = sw.models.load(write_checkpoint(tmp_path / "heads.ckpt", state))
    double = doubles(state)
    assert model.config.projection_dim == 2048
    embedded = {}
    for modality, d in (("gene", 512), ("image", 1536), ("text", 768)):
        x = rows(6, d)
        embedded[modality] = project(double, modality, x)
        np.testing.assert_allclose(model.project(modality, x, device="cpu"), embedded[modality], atol=1e-5)
    assert model.config.modality("text").features.encoder == EncoderIdentity("biobert")


def test_a_locked_text_tower_is_the_registered_encoder(tmp_path: Path, vocabulary: Path, cache: Path) -> None:  # noqa: ARG001
    """The pooler output of BioBERT goes with its name, so that it is opened by the name, and taken without a warning."""
    state = state_dict(Sizes())
    double = doubles(state)
    locked = {key: value for key, value in state.items() if "text_model" not in key}
    bert = new_bert(Sizes())
    bert.load_state_dict({k.removeprefix("model.text_model."): v for k, v in state.items() if k not in locked})
    bert.save_pretrained(tmp_path / "bert")
    (tmp_path / "bert" / "vocab.txt").write_text(vocabulary.read_text(encoding="utf-8"), encoding="utf-8")
    cased = '{"do_lower_case": false, "tokenizer_class": "BertTokenizer"}'
    (tmp_path / "bert" / "tokenizer_config.json").write_text(cased, encoding="utf-8")
    path = write_checkpoint(tmp_path / "locked.ckpt", locked)
    texts = ["T cells", "a sample of tumor"]
    expected = project(double, "text", np.stack([pooled(double, IDS[text], 2) for text in texts]))
    for how in ("by name", "from a folder"):
        encoder = TransformerEncoder.open("biobert", weights=tmp_path / "bert")
        if how == "by name":
            encoder._identity = EncoderIdentity("biobert")
            assert encoder.identity == EncoderIdentity("biobert")
        with warnings.catch_warnings():
            warnings.simplefilter("error", SpatialWhispererWarning)
            model = sw.models.load(path, encoders={"text": encoder})
            np.testing.assert_allclose(embed_texts(model, texts), expected, atol=1e-5)


@pytest.mark.parametrize("wrapper", ["", "_orig_mod."])
def test_a_full_checkpoint_gives_its_image_tower(
    wrapper: str, tmp_path: Path, cache: Path, state: Any, vocabulary: Path, capsys: pytest.CaptureFixture
) -> None:
    from safetensors.numpy import load_file

    full = towers()
    named = {key.replace("image_model.model.", f"image_model.model.{wrapper}"): value for key, value in full.items()}
    path = write_checkpoint(tmp_path / "full.ckpt", {**state, **named})
    with sw.settings.override(verbose=True):
        model = sw.models.load(path, tokenizer=vocabulary)
        assert "holds the image tower too" in capsys.readouterr().err
        sw.models.load(path, tokenizer=vocabulary)
        assert "holds the image tower too" not in capsys.readouterr().err
    np.testing.assert_allclose(
        model.project("image", rows(3, 1536), device="cpu"), project(doubles(state), "image", rows(3, 1536)), atol=1e-5
    )
    [name] = [name for name in converted(cache) if name.startswith("uni2-h-")]
    stored = load_file(cache / "published" / name / "model.safetensors")
    start = "model.image_model.model."
    assert stored.keys() == {key.removeprefix(start) for key in full if key.startswith(start)}
    for key, value in stored.items():
        np.testing.assert_array_equal(value, full[start + key].numpy())


@pytest.mark.parametrize(
    "change", ["prefix", "position ids", "half", "views", "compiled", "parallel", "settings", "bare"]
)
def test_other_forms_of_the_same_file_are_read(
    change: str,
    tmp_path: Path,
    state: Any,
    vocabulary: Path,
    cache: Path,  # noqa: ARG001
) -> None:
    import torch

    other, others = dict(state), dict[str, Any]()
    if change == "prefix":
        other = {name.removeprefix("model."): value for name, value in other.items()}
    elif change == "compiled":
        other = {name.replace("text_model.", "text_model._orig_mod."): value for name, value in other.items()}
    elif change == "parallel":
        other = {f"module.{name.replace('image_block.', 'image_block.module.')}": v for name, v in other.items()}
    elif change == "settings":
        others = {"hyper_parameters": {"lr": np.float64(1e-5), "x": collections.defaultdict(list, a=[np.int64(1)])}}
    elif change == "position ids":
        other["model.text_model.embeddings.position_ids"] = torch.arange(40)[None]
    elif change == "half":
        other = {name: v.to(torch.bfloat16) if v.is_floating_point() else v for name, v in other.items()}
        state = {name: v.float() if v.is_floating_point() else v for name, v in other.items()}
    elif change == "views":
        # one storage, transposed, and with an offset
        name = "model.discriminator.image_block.feature_nonlinear.3.weight"
        whole = torch.zeros(40, 40)
        whole[3:35, 5:37] = other[name].T
        other[name] = whole[3:35, 5:37].T
        other["model.discriminator.image_block.feature_shortcut.weight"] = torch.nn.Parameter(
            other["model.discriminator.image_block.feature_shortcut.weight"]
        )
    path = write_checkpoint(tmp_path / "other.ckpt", other, **others)
    if change == "bare":
        weights = collections.OrderedDict(other)
        # as Module.state_dict leaves it
        weights._metadata = collections.OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
        torch.save(weights, path)
    model = sw.models.load(path, tokenizer=vocabulary)
    x = rows(7, 1536)
    np.testing.assert_allclose(model.project("image", x, device="cpu"), project(doubles(state), "image", x), atol=1e-5)


def test_unknown_tensors_are_reported_and_left_out(tmp_path: Path, state: Any, vocabulary: Path, cache: Path) -> None:  # noqa: ARG001
    import torch

    path = write_checkpoint(tmp_path / "more.ckpt", {**state, "model.other.weight": torch.zeros(3)})
    with pytest.warns(SpatialWhispererWarning, match=r"1 tensors .* left out: other.weight"):
        sw.models.load(path, tokenizer=vocabulary)


def test_own_models_open_too(tmp_path: Path) -> None:
    model = sw.models.load("her2st-mini")
    assert model.modalities == ("gene", "image", "text")
    again = sw.models.load(model.save(tmp_path / "copy"), features={"image": "mine"})
    assert again.config.modality("image").features.key == "mine"
    with pytest.raises(KeyError, match="no modality 'sound'"):
        sw.models.load("her2st-mini", features={"sound": "x"})
    with pytest.raises(ValueError, match="part of the model, or reads texts"):
        sw.models.load("her2st-mini", features={"text": "x"})
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        sw.models.load(tmp_path / "none")
    with pytest.raises(TypeError, match=r"features\['image'\] must be the name of a key"):
        sw.models.load("her2st-mini", features={"image": 3})  # type: ignore[dict-item]
    with pytest.raises(FileNotFoundError, match="There is no file"):
        sw.models.load("a" * 5000 + ".ckpt")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        sw.models.load(tmp_path / "none.ckpt")


def test_pixels_are_taken_as_they_are_where_that_is_asked_for(checkpoint: Path, vocabulary: Path, cache: Path) -> None:
    model = sw.models.load(checkpoint, tokenizer=vocabulary, native_pixels=True)
    recipe = model.config.modality("image").features
    assert (recipe.native_px, recipe.tile_px, recipe.border) == (True, 224, "nan")
    assert not sw.models.load(checkpoint, tokenizer=vocabulary).config.modality("image").features.native_px
    again = sw.models.load(model.save(cache / "saved"))
    assert again.config.modality("image").features == recipe
    with pytest.raises(ValueError, match="native_pixels is for models that compute image features"):
        sw.models.load(checkpoint, tokenizer=vocabulary, native_pixels=True, features={"image": "x"})
