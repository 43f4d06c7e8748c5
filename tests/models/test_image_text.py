"""Published models of images and texts at tiny size: towers against their libraries, and an annotation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("transformers")

import spatialwhisperer as sw
from tests.encoders.hub_mirror import fill_cache, use_cache
from tests.encoders.tiny_models import (
    PX,
    bert_tokenizer,
    keep_repository,
    open_clip_repository,
    transformers_repository,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXTS = ["fat", "a tumour of many cells", "fat"]
REPOSITORIES = {
    "plip": "vinid/plip",
    "keep": "Astaxanthin/KEEP",
    "quiltnet-b32": "wisdomik/QuiltNet-B-32",
    "biomedclip": "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    use_cache(monkeypatch, tmp_path / "cache")
    with sw.settings.override(offline=True, device="cpu"):
        yield tmp_path / "cache"


def make(name: str, folder: Path) -> Any:
    """Write a tiny model in the format of the published one; return it."""
    folder.mkdir()
    if name == "plip":
        bert_tokenizer(folder)
        return transformers_repository(folder, "clip")
    if name == "keep":
        bert_tokenizer(folder)
        return keep_repository(folder)
    if name == "biomedclip":
        bert_tokenizer(folder)
        return open_clip_bert(folder)
    return open_clip_repository(folder)


def open_clip_bert(folder: Path) -> Any:
    """A text tower of transformers inside open_clip, whose configuration lies in another repository."""
    from transformers import BertConfig

    config = folder.parent / "text_configuration"
    size: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    BertConfig(vocab_size=13, max_position_embeddings=24, **size).save_pretrained(config)
    fill_cache(folder.parent / "cache", "owner/bert", config)
    text = {
        "hf_model_name": "owner/bert",
        "hf_tokenizer_name": "owner/bert",
        "hf_proj_type": "mlp",
        "hf_pooler_type": "cls_last_hidden_state_pooler",
        "context_length": 16,
    }
    return open_clip_repository(folder, built={**text, "hf_model_name": str(config)}, text_cfg=text)


def theirs(name: str, network: Any, folder: Path) -> np.ndarray:
    """Rows of texts by the library itself, one at a time, scaled to unit length."""
    import torch
    from transformers import AutoTokenizer

    rows = []
    for text in TEXTS:
        with torch.inference_mode():
            if name in ("quiltnet-b32", "biomedclip"):
                import open_clip

                row = network.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")([text]), normalize=True)
            else:
                tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
                if name == "keep":
                    row = network.text(**tokens).pooler_output
                else:
                    tokens.pop("token_type_ids", None)
                    row = network.text_projection(network.text_model(**tokens).pooler_output)
        rows.append(row[0].double().numpy())
    return np.stack(rows) / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("name", REPOSITORIES)
def test_rows_of_texts_are_those_of_the_library_whatever_the_padding(name: str, tmp_path: Path, cache: Path) -> None:
    network = make(name, tmp_path / "model")
    fill_cache(cache, REPOSITORIES[name], tmp_path / "model")
    encoder: Any = sw.models.open_encoder(name, "text")
    whole = encoder.encode(TEXTS)
    unit = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    np.testing.assert_allclose(unit, theirs(name, network, tmp_path / "model"), atol=2e-5)
    np.testing.assert_allclose(encoder.encode(TEXTS, batch_size=1), whole, atol=1e-5)
    assert encoder.spec.dim == whole.shape[1]
    assert encoder.scale == pytest.approx(
        float(network.logit_scale.exp()) if name in ("quiltnet-b32", "biomedclip") else encoder.scale
    )
    assert encoder.identity == sw.models.EncoderIdentity(name)
    # neither tower carries the other along
    names = [n for n, _ in encoder.network.named_parameters()]
    assert not any("vis" in n for n in names)


def test_a_name_annotates_an_image(tmp_path: Path, cache: Path) -> None:
    network = make("keep", tmp_path / "model")
    fill_cache(cache, REPOSITORIES["keep"], tmp_path / "model")
    section = sw.datasets.simulate_sections(1, 20, n_genes=40, n_reference_cells=20, random_state=0).sections["P1"]
    labels = ["fat cell", "tumour", "many t cells"]
    model = sw.models.image_text_model("keep", weights=tmp_path / "model", tile_um=60)
    assert model.config.modality("image").features.tile_um == (60.0,)
    assert model.modalities == ("image", "text")
    assert model.scale == pytest.approx(float(network.logit_scale.exp()), rel=1e-5)
    scores = sw.tl.zero_shot_annotate(section, labels, model=model, inplace=False)
    assert scores is not None
    z = model.project("image", _features(section, model))
    t = sw.models.open_encoder("keep", "text").encode(labels)
    expected = z @ (t / np.linalg.norm(t, axis=1, keepdims=True)).T
    np.testing.assert_allclose(scores.to_numpy(), expected, atol=1e-5)
    with pytest.raises(ValueError, match="[Ll]abels"):
        sw.tl.zero_shot_annotate(section, model=model)


def _features(section: Any, model: Any) -> np.ndarray:
    sw.pp.embed_images(section, encoder=model.encoders["image"], tile_um=60, tile_px=PX, key_added="X_own")
    return section["table"].obsm["X_own"]


def test_the_name_alone_is_enough(tmp_path: Path, cache: Path) -> None:
    make("plip", tmp_path / "model")
    fill_cache(cache, REPOSITORIES["plip"], tmp_path / "model")
    section = sw.datasets.simulate_sections(1, 20, n_genes=40, n_reference_cells=20, random_state=0).sections["P1"]
    sw.tl.zero_shot_annotate(section, ["fat cell", "tumour"], model="plip")
    table = section["table"]
    assert table.obsm["sw_label_scores"].shape == (20, 2)
    assert table.obs["sw_label"].notna().all()
    assert table.uns["spatialwhisperer"]


@pytest.mark.slow
def test_towers_of_two_models_are_refused(tmp_path: Path) -> None:
    make("plip", tmp_path / "model")
    with pytest.raises(ValueError, match="does not fit KEEP: check"):
        sw.models.image_text_model("keep", weights=tmp_path / "model")
    with pytest.raises(ValueError, match="no published model of images and texts 'plipp'; there are .*plip"):
        sw.models.image_text_model("plipp")
    with pytest.raises(FileNotFoundError, match="none are cached, and the settings say offline"):
        sw.models.image_text_model("quiltnet-b32")


@pytest.mark.parametrize("name", ["conch", "musk"])
def test_a_model_whose_text_encoder_is_missing_says_why(name: str) -> None:
    reason = f"The text encoder of '{name}' is not supported: .* authors' own package, .*There are .*keep"
    with pytest.raises(ValueError, match=reason):
        sw.models.image_text_model(name)
    with pytest.raises(ValueError, match=reason):
        sw.models.load(name)
    section = sw.datasets.simulate_sections(1, 20, n_genes=40, n_reference_cells=20, random_state=0).sections["P1"]
    with pytest.raises(ValueError, match=reason):
        sw.tl.zero_shot_annotate(section, ["fat", "tumour"], model=name)
    assert name in sw.models.list_encoders("image").index
    assert name not in sw.models.list_encoders("text").index
