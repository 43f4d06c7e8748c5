"""What is no published checkpoint: each has an error of its own, nothing runs, and nothing is left half written."""

from __future__ import annotations

import builtins
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import spatialwhisperer as sw
from tests.models.published.conftest import converted
from tests.models.published.generator import write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytest.importorskip("transformers")

HEAD = "model.discriminator.image_block"


class Calls:
    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("trick", ["system", "eval", "numpy", "state"])
def test_a_malicious_checkpoint_is_refused_and_nothing_runs(
    trick: str, tmp_path: Path, state: Any, vocabulary: Path, cache: Path
) -> None:
    ran = tmp_path / "ran"
    attack: Any = {
        "system": Calls(os.system, f"touch {ran}"),
        "eval": Calls(builtins.eval, f"open({str(ran)!r}, 'w').close()"),
        "numpy": np.array([Calls(os.system, f"touch {ran}")], dtype=object),
        "state": Calls(os.system, f"touch {ran}"),
    }[trick]
    weights = {**state, f"{HEAD}.feature_shortcut.bias": attack} if trick == "state" else state
    others: dict[str, Any] = {} if trick == "state" else {"callbacks": {"x": attack}}
    path = write_checkpoint(tmp_path / "evil.ckpt", weights, **others)
    with pytest.raises(ValueError, match="refused and nothing of it was run"):
        sw.models.load(path, tokenizer=vocabulary)
    assert not ran.exists()
    assert converted(cache) == []


def without(*names: str) -> Callable[[dict], dict]:
    return lambda state: {key: value for key, value in state.items() if not any(name in key for name in names)}


def shaped(name: str, *shape: int) -> Callable[[dict], dict]:
    import torch

    return lambda state: {**state, name: torch.zeros(shape)}


CHANGES: dict[str, tuple[Callable[[dict], Any], str]] = {
    "another model": (
        lambda _: shaped("encoder.weight", 3)({}),
        "another model's checkpoint: it has no discriminator.temp",
    ),
    "two models": (
        lambda s: {**s, **{f"ema.{key}": value for key, value in s.items()}},
        r"holds 2 models, of which model.discriminator.temperature, ema.model.discriminator.temperature are",
    ),
    "a tensor under two names": (
        lambda s: {**s, f"{HEAD}._orig_mod.feature_shortcut.bias": s[f"{HEAD}.feature_shortcut.bias"]},
        r"holds 2 tensors under two names each: .*_orig_mod.feature_shortcut.bias",
    ),
    "no heads": (without("_block"), "lacks the matrix discriminator.transcriptome_block.feature_shortcut.weight"),
    "no image head": (without("image_block"), "lacks the matrix discriminator.image_block"),
    "a key is missing": (
        without("image_block.feature_block_ln.bias"),
        r"Missing: discriminator.image_block.feature_block_ln.bias",
    ),
    "a text key is missing": (without("text_model.pooler.dense.bias"), "Missing: text_model.pooler.dense.bias"),
    "a layer is missing": (without("encoder.layer.0.output"), "Missing: text_model.encoder.layer.0.output"),
    "a whole layer is missing": (without("encoder.layer.0."), "no BERT|lacks layers"),
    "no words": (without("word_embeddings"), "text tower is no BERT"),
    "a wrong shape": (
        shaped(f"{HEAD}.feature_nonlinear.3.weight", 32, 31),
        r"Of another shape: .*\(32, 31\), expected \(32, 32\)",
    ),
    "one head of another width": (shaped(f"{HEAD}.feature_shortcut.weight", 16, 1536), "Of another shape"),
    "a vector for a matrix": (shaped(f"{HEAD}.feature_shortcut.weight", 16), "lacks the matrix"),
    "a text head of another width": (
        shaped("model.discriminator.text_block.feature_shortcut.weight", 32, 64),
        "gives 128 features, and its head takes 64",
    ),
    "attention heads": (
        shaped("model.text_model.embeddings.word_embeddings.weight", 40, 100),
        "no attention heads of 64",
    ),
    "not finite": (
        lambda s: {**s, f"{HEAD}.feature_shortcut.bias": s[f"{HEAD}.feature_shortcut.bias"] * np.nan},
        "not finite",
    ),
    "a variance below zero": (
        lambda s: {**s, f"{HEAD}.feature_nonlinear.1.running_var": s[f"{HEAD}.feature_nonlinear.1.running_var"] - 3},
        r"holds variances below zero \(heads.image.nonlinear.1.running_var, -",
    ),
    "a scale that is infinite": (
        lambda s: {**s, "model.discriminator.temperature": s["model.discriminator.temperature"] * 0 + 200},
        "states a temperature of 200, whose exponential.* is inf",
    ),
    "a scale that is zero": (
        lambda s: {**s, "model.discriminator.temperature": s["model.discriminator.temperature"] * 0 - 200},
        "states a temperature of -200, whose exponential.* is 0",
    ),
    "no tensors": (lambda s: list(s), "holds neither a checkpoint of Lightning .'state_dict'. nor the weights"),
    "a number": (lambda s: {**s, f"{HEAD}.feature_shortcut.bias": 1.0}, "something else than a tensor"),
    "whole numbers": (
        lambda s: {**s, f"{HEAD}.feature_shortcut.bias": s[f"{HEAD}.feature_shortcut.bias"].long()},
        "do not fit its configuration: check heads.image.shortcut.bias",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_does_not_fit_is_named(name: str, tmp_path: Path, state: Any, vocabulary: Path, cache: Path) -> None:
    change, message = CHANGES[name]
    path = write_checkpoint(tmp_path / "other.ckpt", change(dict(state)))
    with pytest.raises(ValueError, match=message):
        sw.models.load(path, tokenizer=vocabulary)
    assert converted(cache) == []


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.9, 0.9999])
def test_a_file_that_is_cut_off_says_so(
    fraction: float, tmp_path: Path, checkpoint: Path, vocabulary: Path, cache: Path
) -> None:
    content = checkpoint.read_bytes()
    path = tmp_path / "cut.ckpt"
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(ValueError, match="cut off"):
        sw.models.load(path, tokenizer=vocabulary)
    assert converted(cache) == []


def test_a_file_of_weights_alone_names_its_folder(tmp_path: Path) -> None:
    path = sw.models.load("her2st-mini").save(tmp_path / "model") / "model.safetensors"
    with pytest.raises(ValueError, match=f"holds weights without a configuration.*load.'{path.parent}'.$"):
        sw.models.load(path)


def test_changed_weights_say_so(tmp_path: Path, checkpoint: Path, state: Any, vocabulary: Path, cache: Path) -> None:
    content = bytearray(checkpoint.read_bytes())
    content[content.index(state[f"{HEAD}.feature_nonlinear.3.weight"].numpy().tobytes()) + 9] ^= 4
    path = tmp_path / "changed.ckpt"
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="cut off or changed"):
        sw.models.load(path, tokenizer=vocabulary)
    assert converted(cache) == []


def test_a_tokenizer_of_another_vocabulary_is_refused(
    tmp_path: Path, checkpoint: Path, vocabulary: Path, cache: Path
) -> None:
    other = tmp_path / "vocab.txt"
    other.write_text("\n".join(vocabulary.read_text().split()[:39]) + "\n")
    with pytest.raises(ValueError, match="tokenizer has 39 tokens, and the text tower 40"):
        sw.models.load(checkpoint, tokenizer=other)
    with pytest.raises(FileNotFoundError, match="holds no tokenizer"):
        sw.models.load(checkpoint, tokenizer=tmp_path / "nothing")
    assert converted(cache) == []


def test_without_a_tokenizer_and_a_network_the_error_says_which_file(
    tmp_path: Path, checkpoint: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with (
        sw.settings.override(offline=True),
        pytest.raises(FileNotFoundError, match=r"offline is set.*tokenizer='…/vocab.txt'"),
    ):
        sw.models.load(checkpoint)
    assert converted(cache) == []


def test_a_write_that_fails_leaves_nothing(
    checkpoint: Path, vocabulary: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        sw.models.load(checkpoint, tokenizer=vocabulary)
    assert converted(cache) == []


def test_features_that_fit_no_head_are_refused(checkpoint: Path, vocabulary: Path, cache: Path) -> None:
    import anndata as ad

    model = sw.models.load(checkpoint, tokenizer=vocabulary, features={"image": "uni"})
    data = ad.AnnData(np.zeros((4, 1), np.float32))
    data.obsm["uni"] = np.zeros((4, 1024), np.float32)
    with pytest.raises(ValueError, match=r"features of shape \(n, 1536\); found \(4, 1024\)"):
        sw.tl.embed(data, model=model, modality="image", device="cpu")
    del data.obsm["uni"]
    with pytest.raises(KeyError, match="'uni' is not in .obsm"):
        sw.tl.embed(data, model=model, modality="image", device="cpu")
    assert len(converted(cache)) == 1
