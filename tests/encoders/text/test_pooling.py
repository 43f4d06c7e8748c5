"""How tokens become one vector, which entry says so, and that padding does not matter."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("transformers")

import spatialwhisperer as sw
from spatialwhisperer.encoders.resolve import text_encoder
from tests.encoders.hub_mirror import fill_cache, use_cache

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = ["fat", "invasive carcinoma of the breast with many spindle cells", "fat tissue"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({w for text in TEXTS for w in text.split()})]


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A BERT of two layers with random weights."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast  # type: ignore[attr-defined]

    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    size: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, **size))
        torch.nn.init.normal_(network.pooler.dense.bias)  # type: ignore[union-attr]
        network.save_pretrained(folder)
    return folder


def by_hand(folder: Path, pooling: str) -> np.ndarray:
    """One text at a time, without padding; the pooler is written anew."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    network: Any = AutoModel.from_pretrained(folder).eval()
    rows = []
    for text in TEXTS:
        with torch.inference_mode():
            hidden = network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].double().numpy()
        dense = network.pooler.dense
        weight, bias = (p.detach().double().numpy() for p in (dense.weight, dense.bias))
        ways = {"mean": hidden.mean(0), "cls": hidden[0], "pooler": np.tanh(weight @ hidden[0] + bias)}
        rows.append(ways[pooling])
    return np.array(rows)


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_each_way_of_pooling_is_what_it_says_whatever_the_padding(bert: Path, pooling: Any) -> None:
    encoder = text_encoder(bert, pooling=pooling, normalize=False)
    expected = by_hand(bert, pooling)
    whole = encoder.encode(TEXTS, device="cpu", batch_size=8)
    np.testing.assert_allclose(whole, expected, atol=1e-6)
    alone = np.concatenate([encoder.encode([text], device="cpu") for text in TEXTS])
    np.testing.assert_allclose(whole, alone, atol=1e-6)
    trained = encoder.module().eval()(encoder.collate(TEXTS)).detach().numpy()
    np.testing.assert_allclose(trained, expected, atol=1e-6)


# --------------------------------------------------------------------------------------------- registered entries


@pytest.mark.parametrize(("name", "pooling"), [("biobert", "pooler"), ("pubmedbert", "cls"), ("minilm", "mean")])
def test_an_entry_states_its_pooling(name: str, pooling: str) -> None:
    assert sw.models.get_spec(name, "text").pooling == pooling
    assert sw.models.list_encoders("text").loc[name, "pooling"] == pooling


def test_biobert_gives_its_pooler_output_from_a_checkpoint_of_torch(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file

    expected = {pooling: by_hand(bert, pooling) for pooling in ("pooler", "mean")}
    torch.save(load_file(bert / "model.safetensors"), bert / "pytorch_model.bin")
    (bert / "model.safetensors").unlink()
    use_cache(monkeypatch, tmp_path / "cache")
    fill_cache(tmp_path / "cache", "dmis-lab/biobert-v1.1", bert)
    with sw.settings.override(offline=True):
        encoder: Any = text_encoder("biobert")
        mean = text_encoder("biobert", pooling="mean", normalize=False)
    np.testing.assert_allclose(encoder.encode(TEXTS, device="cpu"), expected["pooler"], atol=1e-6)
    np.testing.assert_allclose(mean.encode(TEXTS, device="cpu"), expected["mean"], atol=1e-6)
    # the name alone says how it is pooled; another way is another encoder
    assert encoder.identity.by_name
    assert not mean.identity.by_name


def test_pubmedbert_gives_its_first_token_at_unit_length(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_cache(monkeypatch, tmp_path / "cache")
    fill_cache(tmp_path / "cache", "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract-fulltext", bert)
    with sw.settings.override(offline=True):
        rows = text_encoder("pubmedbert").encode(TEXTS, device="cpu")
    expected = by_hand(bert, "cls")
    np.testing.assert_allclose(rows, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)


def test_a_pooler_that_no_weights_fill_is_refused(bert: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(bert / "model.safetensors")
    kept = {k: v for k, v in state.items() if not k.startswith("pooler")}
    save_file(kept, bert / "model.safetensors", metadata={"format": "pt"})
    text_encoder(bert, pooling="cls")
    with pytest.raises(
        ValueError, match="Missing: pooler.dense.bias.*They hold no pooler; take pooling='mean' or 'cls'"
    ):
        text_encoder(bert, pooling="pooler")
    some = {k: v for k, v in kept.items() if "layer.1" not in k}
    save_file(some, bert / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="do not fit the network. Missing: .*layer.1"):
        text_encoder(bert)
    (bert / "model.safetensors").write_bytes((bert / "model.safetensors").read_bytes()[:-50])
    with pytest.raises(ValueError, match="not a model that transformers can read"):
        text_encoder(bert)


def test_an_encoder_that_is_open_has_its_pooling(bert: Path) -> None:
    with pytest.raises(ValueError, match="pooling is for encoders that are named; 'bert' is opened already"):
        text_encoder(text_encoder(bert), pooling="cls")


# --------------------------------------------------------------------------------------------- sentence-transformers


@pytest.mark.parametrize("mode", ["cls", "mean"])
@pytest.mark.parametrize("unit", [False, True])
def test_a_folder_of_sentence_transformers_gives_what_that_library_gives(
    bert: Path, tmp_path: Path, mode: str, unit: bool
) -> None:
    st = pytest.importorskip("sentence_transformers")
    models: Any = pytest.importorskip("sentence_transformers.models")
    layers = [models.Transformer(str(bert), max_seq_length=6), models.Pooling(16, pooling_mode=mode)]
    if unit:
        layers.append(models.Normalize())
    theirs = st.SentenceTransformer(modules=layers, device="cpu")
    theirs.save(str(tmp_path / "sentences"))
    ours: Any = text_encoder(tmp_path / "sentences")
    assert (ours.pooling, ours.normalize) == (mode, unit)
    np.testing.assert_allclose(ours.encode(TEXTS, device="cpu"), theirs.encode(TEXTS), atol=1e-5)
    stated: Any = text_encoder(tmp_path / "sentences", pooling="pooler", normalize=False)
    assert stated.pooling == "pooler"


def sentence_folder(bert: Path, *kinds: tuple[str, str], **pooling: Any) -> Path:
    modules = [
        {"idx": i, "path": place, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, place) in enumerate(kinds)
    ]
    (bert / "modules.json").write_text(json.dumps(modules))
    (bert / "1_Pooling").mkdir(exist_ok=True)
    (bert / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return bert


def test_the_older_format_is_read(bert: Path) -> None:
    layers = [("Transformer", ""), ("Pooling", "1_Pooling")]
    folder = sentence_folder(bert, *layers, pooling_mode_cls_token=True, pooling_mode_mean_tokens=False)
    (bert / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 7}))
    encoder: Any = text_encoder(folder)
    assert (encoder.pooling, encoder.normalize, encoder.max_length) == ("cls", False, 7)


def test_a_pooling_that_is_given_stands_for_the_one_of_the_folder(bert: Path) -> None:
    plain: Any = text_encoder(bert)
    layers = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    folder = sentence_folder(bert, *layers, pooling_mode_max_tokens=True)
    (bert / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 7}))
    given: Any = text_encoder(folder, pooling="mean")
    # everything else is still what the folder states
    assert (given.pooling, given.normalize, given.max_length) == ("mean", True, 7)
    short = ["a b"]
    np.testing.assert_allclose(given.encode(short, device="cpu"), plain.encode(short, device="cpu"), atol=1e-6)
    (bert / "1_Pooling" / "config.json").unlink()
    assert text_encoder(folder, pooling="cls").pooling == "cls"  # type: ignore[attr-defined]


def test_what_is_not_supported_is_named(bert: Path) -> None:
    layers = [("Transformer", ""), ("Pooling", "1_Pooling")]
    with pytest.raises(ValueError, match=r"pools tokens by max_tokens; only 'mean' and 'cls' .* Pass pooling="):
        text_encoder(sentence_folder(bert, *layers, pooling_mode_max_tokens=True))
    with pytest.raises(ValueError, match="has a layer 'Dense' behind its pooling"):
        text_encoder(sentence_folder(bert, *layers, ("Dense", "2_Dense"), pooling_mode="mean"))
    with pytest.raises(ValueError, match="names a network outside of its folder"):
        text_encoder(sentence_folder(bert, ("Transformer", "../other"), ("Pooling", "1_Pooling"), pooling_mode="mean"))
