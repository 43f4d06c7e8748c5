from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import spatialwhisperer as sw
from spatialwhisperer.models import Whisperer, store

PLAIN = {".json", ".safetensors", ".txt", ".md"}


@pytest.fixture
def folder(model: Whisperer, tmp_path: Path) -> Path:
    """A copy of the trained model's folder."""
    return Path(shutil.copytree(model.folder, tmp_path / "model"))


def small() -> Whisperer:
    torch.manual_seed(0)
    heads = {"gene": {"kind": "linear_norm", "in_dim": 8}, "text": {"kind": "bn_shortcut", "in_dim": 6}}
    return Whisperer({"projection_dim": 4, "heads": heads, "note": "größer µm"})


def same_state(a: Whisperer, b: Whisperer) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


# ------------------------------------------------------------------------------------------------- round trips


def test_a_model_comes_back_bit_for_bit(model: Whisperer, folder: Path, section: Any) -> None:
    opened = Whisperer.load(folder)
    assert same_state(model, opened)
    assert opened.config == model.config
    assert opened.labels == model.labels
    assert opened.folder == folder
    assert not opened.training
    assert opened.history.empty
    for modality in ("image", "gene"):
        z = sw.tl.embed(section, model=model, modality=modality, inplace=False)
        assert np.array_equal(sw.tl.embed(section, model=opened, modality=modality, inplace=False), z)
    again = opened.save(folder.parent / "again")
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert names == sorted(str(p.relative_to(again)) for p in again.rglob("*") if p.is_file())
    assert all((folder / n).read_bytes() == (again / n).read_bytes() for n in names)


def test_nothing_in_a_model_folder_can_run_code(model: Whisperer) -> None:
    suffixes = {p.suffix for p in model.folder.rglob("*") if p.is_file()}
    assert suffixes <= PLAIN
    config = json.loads((model.folder / "config.json").read_text(encoding="utf-8"))
    assert config["format"] == "spatialwhisperer"
    assert config["version"]


def test_hub_style_saving_and_opening(model: Whisperer, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "hub")
    for opened in (Whisperer.from_pretrained(tmp_path / "hub"), Whisperer.from_pretrained(str(tmp_path / "hub"))):
        assert same_state(model, opened)
        assert opened.config == model.config
        assert opened.gene_encoder.genes == model.gene_encoder.genes


def test_only_files_of_a_model_are_fetched(model: Whisperer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    with sw.settings.override(offline=True), pytest.raises(FileNotFoundError, match="the hub did not give a model"):
        Whisperer.load("owner/no-such-model", cache_dir=tmp_path)
    asked: dict[str, Any] = {}

    def download(repo: str, **options: Any) -> str:
        asked.update(options, repo=repo)
        return str(model.folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert same_state(Whisperer.load("owner/name", revision="abc"), model)
    assert asked["repo"] == "owner/name"
    assert asked["revision"] == "abc"
    assert not [p for p in asked["allow_patterns"] if p.endswith((".bin", ".pt", ".py", "*"))]
    monkeypatch.chdir(tmp_path)
    with sw.settings.override(offline=True):
        Whisperer.load("owner/name")
    assert asked["local_files_only"] is True


def test_saving_over_a_model_replaces_it(tmp_path: Path) -> None:
    first, second = small(), small()
    second.log_scale.data += 1
    first.save(tmp_path / "m")
    second.save(tmp_path / "m")
    assert same_state(Whisperer.load(tmp_path / "m"), second)
    assert Whisperer.load(tmp_path / "m").config["note"] == "größer µm"
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("words")
    with pytest.raises(FileExistsError, match="not a model folder"):
        small().save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    (tmp_path / "empty").mkdir()
    small().save(tmp_path / "empty")


@pytest.mark.parametrize("where", ["writing", "moving"])
def test_an_interrupted_save_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    import safetensors.torch

    old = small()
    old.save(tmp_path / "m")
    new = small()
    new.log_scale.data += 1

    def stop(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    replace = store.os.replace

    def stop_second(source: Any, target: Any) -> None:
        if Path(target).name == "m" and not str(source).endswith("-old"):
            raise OSError("disk full")
        replace(source, target)

    if where == "writing":
        monkeypatch.setattr(safetensors.torch, "save_file", stop)
    else:
        monkeypatch.setattr(store.os, "replace", stop_second)
    with pytest.raises(OSError, match="disk full"):
        new.save(tmp_path / "m")
    monkeypatch.undo()
    assert same_state(Whisperer.load(tmp_path / "m"), old)
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


# ------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", ["extra.pt", "pytorch_model.bin", "gene_encoder/x.PKL", "a/b/c.npy"])
def test_pickles_are_refused(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"\x80\x04N.")
    with pytest.raises(ValueError, match="can run code when opened"):
        Whisperer.load(folder)


def test_truncated_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        Whisperer.load(folder)


def test_weights_of_another_model(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if k != "log_scale"}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"does not fit config\.json: check log_scale"):
        Whisperer.load(folder)
    save_file(tensors | {"log_scale": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match="check log_scale"):
        Whisperer.load(folder)


def test_a_configuration_that_is_not_ours(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="was not written by spatialwhisperer"):
        Whisperer.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not readable JSON"):
        Whisperer.load(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match="holds no model"):
        Whisperer.load(folder)


def test_no_such_folder(tmp_path: Path) -> None:
    for source in (tmp_path / "nothing", "nothing", "./a/b"):
        with pytest.raises(FileNotFoundError, match="There is no folder"):
            Whisperer.load(source)
