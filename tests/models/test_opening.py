"""Whoever wrote a folder decides neither which code runs, nor what is fetched, nor how much memory is taken."""

from __future__ import annotations

import builtins
import hashlib
import json
import random
import shutil
import socket
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import spatialwhisperer as sw
from spatialwhisperer._artifact.artifact import Artifact
from spatialwhisperer._artifact.layout import digest
from spatialwhisperer.models import Whisperer, store

if TYPE_CHECKING:
    from pathlib import Path

TEXT, IMAGE = "trained text", "trained image"


class ReachedOutError(BaseException):
    """Nothing that catches errors catches this one."""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, and nobody to answer a question."""

    def refuse(*arguments: Any, **_: Any) -> None:
        raise ReachedOutError(str(arguments[:2]))

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(builtins, "input", refuse)


def seal(folder: Path) -> str:
    """Compute all checksums and digests again, those of inner folders first, as the author of a folder can."""
    path = folder / "config.json"
    stated = json.loads(path.read_text(encoding="utf-8"))
    stated["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in stated["files"]}
    stated["parts"] = {name: seal(folder / name) for name in stated["parts"]}
    stated["digest"] = digest(stated)
    path.write_text(json.dumps(stated), encoding="utf-8")
    return str(stated["digest"])


def forged(source: Path, tmp_path: Path, *at: str, value: Any, part: str = "") -> Path:
    """A copy in which one value of a configuration is another, with the checksums that fit."""
    folder = tmp_path / "forged"
    shutil.copytree(source, folder, dirs_exist_ok=True)
    path = folder / part / "config.json"
    stated = json.loads(path.read_text(encoding="utf-8"))
    inner = stated["config"]
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    path.write_text(json.dumps(stated), encoding="utf-8")
    seal(folder)
    return folder


@pytest.mark.parametrize("name", ["embedded", TEXT, IMAGE])
def test_a_sealed_copy_is_the_same_model(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    shutil.copytree(folders[name], tmp_path / "m")
    seal(tmp_path / "m")
    a, b = Whisperer.load(folders[name]), Whisperer.load(tmp_path / "m")
    assert a.config == b.config
    assert all(torch.equal(value, b.state_dict()[key]) for key, value in a.state_dict().items())


# ------------------------------------------------------------------------------------------------- random numbers


@pytest.mark.parametrize("name", ["embedded", TEXT, IMAGE])
def test_opening_draws_no_random_number(folders: dict[str, Path], name: str) -> None:
    def states() -> tuple[Any, ...]:
        return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()  # noqa: NPY002

    before = states()
    Whisperer.load(folders[name])
    assert states() == before


# ------------------------------------------------------------------------------------------------- encoders

EVIL = "from pathlib import Path\nPath(__file__).with_name('ran').write_text('yes')\nclass Evil: pass\n"


def test_code_beside_a_tokenizer_is_not_run_and_nobody_is_asked(folders: dict[str, Path], tmp_path: Path) -> None:
    """Code that is listed, named in the tokenizer, and has the right checksum."""
    folder = tmp_path / "m"
    for listed, elsewhere in ((True, False), (False, False), (False, True)):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(folders[TEXT], folder)
        part = folder / "text_encoder"
        (part / "evil.py").write_text(EVIL)
        path = part / "tokenizer_config.json"
        stated = json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
        path.write_text(json.dumps(stated))
        if listed:
            config = json.loads((part / "config.json").read_text())
            config["files"]["evil.py"] = "0"
            (part / "config.json").write_text(json.dumps(config))
        if elsewhere:
            (part / "evil.py").unlink()
        seal(folder)
        wanted = (
            "not a file of a tokenizer|names files or code"
            if listed
            else "names files or code"
            if elsewhere
            else "does not list"
        )
        with pytest.raises(ValueError, match=wanted):
            Whisperer.load(folder)
        assert not list(tmp_path.rglob("ran"))


@pytest.mark.parametrize("value", ["/etc/passwd", "../vocab.txt"])
def test_a_tokenizer_names_no_file_elsewhere(folders: dict[str, Path], tmp_path: Path, value: str) -> None:
    folder = tmp_path / "m"
    shutil.copytree(folders[TEXT], folder)
    path = folder / "text_encoder" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_file": value}))
    seal(folder)
    with pytest.raises(ValueError, match=r"names files or code elsewhere \(vocab_file\)"):
        Whisperer.load(folder)


KEYS = ["auto_map", "_attn_implementation", "attn_implementation", "quantization_config", "backbone"]


@pytest.mark.parametrize("key", KEYS)
def test_an_architecture_asks_for_no_code_from_elsewhere(folders: dict[str, Path], tmp_path: Path, key: str) -> None:
    for at in (("transformer", key), ("transformer", "text_config")):
        value = "owner/name" if at[1] == key else {key: "owner/name"}
        folder = forged(folders[TEXT], tmp_path, *at, value=value, part="text_encoder")
        with pytest.raises(ValueError, match=f"names '{key}', which is not read of a stored one"):
            Whisperer.load(folder)


@pytest.mark.parametrize("value", ["timm_backbone", "no-such", 3, None])
def test_an_architecture_is_one_of_a_language_model(folders: dict[str, Path], tmp_path: Path, value: Any) -> None:
    folder = forged(folders[TEXT], tmp_path, "transformer", "model_type", value=value, part="text_encoder")
    with pytest.raises(ValueError, match=r"The architecture .* is not one of a language model"):
        Whisperer.load(folder)


@pytest.mark.parametrize("name", ["owner/name", "hf-hub:owner/name", "../elsewhere"])
def test_an_encoder_that_is_no_registered_one_needs_permission(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = forged(folders[IMAGE], tmp_path, "modalities", "image", "features", "encoder", "name", value=name)
    with pytest.raises(ValueError, match=rf"not opened because a model asks .*allow_encoders=\['{name}'\]"):
        Whisperer.load(folder)
    asked = []

    def open_it(encoder: Any, modality: str) -> Any:
        asked.append((encoder, modality))
        raise FileNotFoundError("asked")

    monkeypatch.setattr("spatialwhisperer.models.opening.any_encoder", open_it)
    with pytest.raises(FileNotFoundError, match="asked"):
        Whisperer.load(folder, allow_encoders=[name])
    assert asked == [(name, "image")]
    # other permissions are not this one
    with pytest.raises(ValueError, match="not opened because a model asks"):
        Whisperer.load(folder, allow_encoders=["owner/other"])


def test_gene_sentences_read_a_registered_text_encoder_or_one_that_is_allowed(
    folders: dict[str, Path], tmp_path: Path, tiny_bert: Path
) -> None:
    for name in ("owner/name", str(tiny_bert)):
        folder = forged(folders[IMAGE], tmp_path, "text_encoder", value=name, part="gene_encoder")
        with pytest.raises(ValueError, match=rf"opens '{name}', a folder or a model on the hub, .*allow_encoders="):
            Whisperer.load(folder)
        with pytest.raises(ValueError, match=rf"opens '{name}', a folder or a model on the hub, .*allow_encoders="):
            sw.models.load_gene_encoder(folder / "gene_encoder")
        model = Whisperer.load(folder, allow_encoders=[name])
        gene: Any = model.encoders["gene"]
        assert gene.text_encoder == name
        assert sw.models.load_gene_encoder(folder / "gene_encoder", allow_encoders=[name]).name == "gene_sentence"
    folder = forged(folders[IMAGE], tmp_path, "text_encoder", value=3, part="gene_encoder")
    with pytest.raises(ValueError, match="lacks text_encoder"):
        Whisperer.load(folder)


def test_an_allowed_folder_is_opened_for_a_frozen_encoder(
    folders: dict[str, Path], tmp_path: Path, tiny_bert: Path
) -> None:
    folder = forged(folders[IMAGE], tmp_path, "labels", value=[])
    shutil.rmtree(folder / "text_encoder")
    path = folder / "config.json"
    stated = json.loads(path.read_text())
    del stated["parts"]["text_encoder"]
    stated["config"]["modalities"]["text"]["features"]["encoder"]["name"] = "tiny"
    path.write_text(json.dumps(stated))
    seal(folder)
    assert "text" not in Whisperer.load(folder).encoders
    assert "text" not in Whisperer.load(folder, allow_encoders=[str(tiny_bert)]).encoders
    assert Whisperer.load(folder, encoders={"text": tiny_bert}).encoders["text"].spec.name == "tiny"


@pytest.mark.parametrize("wrong", ["owner/name", 3, None, [3]])
def test_permissions_are_a_list_of_names(folders: dict[str, Path], wrong: Any) -> None:
    with pytest.raises(TypeError, match="allow_encoders must be a list of text or a path, not"):
        Whisperer.load(folders["embedded"], allow_encoders=wrong)
    with pytest.raises(TypeError, match="allow_encoders must be a list of text or a path, not"):
        sw.models.load_gene_encoder(folders["embedded"] / "gene_encoder", allow_encoders=wrong)


# ------------------------------------------------------------------------------------------------- sizes

HEAD = ("modalities", "image", "head", "in_dim")
SIZES: list[tuple[str, str, tuple[str, ...]]] = [
    ("embedded", "", HEAD),
    (TEXT, "", HEAD),
    (TEXT, "", ("modalities", "text", "feature_dim")),
    (TEXT, "", ("projection_dim",)),
    (TEXT, "", ("decoder_dim",)),
    (TEXT, "", ("modalities", "image", "context", "options", "depth")),
    (TEXT, "", ("modalities", "image", "context", "options", "head_dim")),
    ("embedded", "gene_encoder", ("n_layers",)),
    ("embedded", "gene_encoder", ("n_hidden",)),
    (TEXT, "gene_encoder", ("n_blocks",)),
    (TEXT, "gene_encoder", ("dim",)),
    (TEXT, "text_encoder", ("transformer", "vocab_size")),
    (TEXT, "text_encoder", ("transformer", "max_position_embeddings")),
    (TEXT, "text_encoder", ("transformer", "num_labels")),
    (IMAGE, "text_encoder", ("transformer", "num_hidden_layers")),
    (IMAGE, "text_encoder", ("transformer", "hidden_size")),
]


def peak() -> int:
    """Most bytes of memory that this process had so far."""
    resource = pytest.importorskip("resource")
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024


@pytest.mark.parametrize(("name", "part", "at"), SIZES, ids=lambda v: v if isinstance(v, str) else v[-1])
def test_a_size_is_refused_before_anything_of_it_is_made(
    folders: dict[str, Path], tmp_path: Path, name: str, part: str, at: tuple[str, ...]
) -> None:
    for value in (10**9, -1):
        folder = forged(folders[name], tmp_path, *at, value=value, part=part)
        start, before = time.process_time(), peak()
        with pytest.raises(ValueError, match=r"do not fit|does not fit|must be|cannot be opened|allow"):
            Whisperer.load(folder)
        assert time.process_time() - start < 2
        assert peak() - before < 200 * 2**20


@pytest.mark.parametrize("name", ["vit_giant_patch14_224", "uni2-h", "convnext_xxlarge"])
def test_a_large_network_is_refused_while_it_is_built(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    folder = forged(folders[IMAGE], tmp_path, "modalities", "image", "features", "encoder", "name", value=name)
    start = time.process_time()
    with pytest.raises(ValueError, match="asks for larger networks than its"):
        Whisperer.load(folder)
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (("temperature",), 0.0),
        (("temperature",), -1.0),
        (("projection_dim",), 0),
        (("decoder_dim",), 0),
        (("modalities", "image", "head", "dropout"), 1.5),
        (("modalities", "image", "feature_dim"), -3),
        (("modalities", "image", "context", "options", "dropout"), -0.5),
        (("modalities", "image", "context", "options", "dropout"), "x"),
        (("annotation", "temperature"), 0.0),
    ],
)
def test_numbers_out_of_their_range_are_refused(
    folders: dict[str, Path], tmp_path: Path, at: tuple[str, ...], value: Any
) -> None:
    with pytest.raises(ValueError, match=rf"configuration of a model does not fit .*{at[-1]} must be"):
        Whisperer.load(forged(folders[TEXT], tmp_path, *at, value=value))


@pytest.mark.parametrize("how", ["nan", "complex", "bool"])
def test_weights_are_finite_numbers_of_their_type(folders: dict[str, Path], tmp_path: Path, how: str) -> None:
    artifact = Artifact.read(folders["embedded"], "model")
    key = "image_mean"
    value = artifact.tensors[key].copy()
    value = {"nan": np.full_like(value, np.nan), "complex": value.astype(np.complex64), "bool": value > 0}[how]
    changed = Artifact("model", artifact.config, {**artifact.tensors, key: value}, artifact.parts)
    wanted = {"nan": "are not finite: check image_mean", "complex": "type of number", "bool": "check image_mean"}[how]
    with pytest.raises(ValueError, match=wanted):
        Whisperer.load(changed.write(tmp_path / "m"))


def test_an_interrupted_replacement_is_opened(folders: dict[str, Path], tmp_path: Path) -> None:
    left = tmp_path / ".m-0123456789ab-1-abcdefgh-old"
    shutil.copytree(folders[TEXT], left)
    assert store.locate(tmp_path / "m") == tmp_path / "m"
    model = Whisperer.load(tmp_path / "m")
    assert model.labels == ["fat", "gland"]
    model.save(tmp_path / "m")
    assert Whisperer.load(tmp_path / "m").folder == tmp_path / "m"
