from __future__ import annotations

import json
import os
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import spatialwhisperer as sw
from spatialwhisperer.models import Whisperer, store
from spatialwhisperer.models.checksums import checksums, model_files
from spatialwhisperer.models.ontology import Ontology, Term
from spatialwhisperer.models.reference import Reference
from spatialwhisperer.models.vocabulary import Vocabulary

PLAIN = {".json", ".safetensors", ".txt", ".md"}


@pytest.fixture
def folder(model: Whisperer, tmp_path: Path) -> Path:
    """A copy of the trained model's folder."""
    return Path(shutil.copytree(model.folder, tmp_path / "model"))


def small() -> Whisperer:
    torch.manual_seed(0)
    heads = {"gene": {"kind": "linear_norm", "in_dim": 8}, "text": {"kind": "bn_shortcut", "in_dim": 6}}
    return Whisperer({"projection_dim": 4, "heads": heads, "note": "größer µm"})


def rich() -> Whisperer:
    """A model with everything that one of random weights can have."""
    model = small()
    model.vocabulary = Vocabulary(
        {"fat": {"prompts": ["fat tissue"], "cl": "CL:0000136"}},
        ["fat tissue", "fat cell"],
        np.random.default_rng(0).normal(size=(2, 6)),
        Ontology([Term("CL:0000136", "fat cell", ("adipocyte",))]),
    )
    model.reference = Reference({"mpp": [0.5, 3.2]}, {"mean_gene": np.arange(4, dtype=np.float32)})
    return model


def sign(folder: Path) -> None:
    """Put the checksums of what is there into the configuration, as a forger would."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["files"] = checksums(model_files(folder, "config.json", store.PARTS))
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


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


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize(
    ("umask", "file", "directory"), [(0o022, 0o644, 0o755), (0o002, 0o664, 0o775), (0o077, 0o600, 0o700)]
)
def test_others_may_read_what_the_umask_allows(
    model: Whisperer, tmp_path: Path, umask: int, file: int, directory: int
) -> None:
    before = os.umask(umask)
    try:
        folders = [Whisperer.load(model.folder).save(tmp_path / "saved"), tmp_path / "hub", tmp_path / "genes"]
        model.save_pretrained(folders[1])
        model.gene_encoder.save(folders[2])
    finally:
        os.umask(before)
    for folder in folders:
        for path in [folder, *folder.rglob("*")]:
            assert path.stat().st_mode & 0o777 == (directory if path.is_dir() else file), path
    assert (folders[0] / "model.safetensors").is_file()


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


def test_hub_style_saving_needs_a_new_folder(tmp_path: Path) -> None:
    first = rich()
    first.save_pretrained(tmp_path / "hub")
    before = {p: p.read_bytes() for p in (tmp_path / "hub").rglob("*") if p.is_file()}
    assert {p.name for p in before} >= {"README.md"}
    with pytest.raises(FileExistsError, match=r"holds config\.json, model\.safetensors, vocabulary, reference already"):
        small().save_pretrained(tmp_path / "hub")
    assert before == {p: p.read_bytes() for p in (tmp_path / "hub").rglob("*") if p.is_file()}
    small().save(tmp_path / "hub")
    assert Whisperer.load(tmp_path / "hub").vocabulary is None


def test_what_is_pushed_can_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi

    model = rich()

    def upload(_: Any, *, folder_path: Path, **__: Any) -> str:
        shutil.copytree(folder_path, tmp_path / "hub")
        return "done"

    monkeypatch.setattr(HfApi, "create_repo", lambda _, repo_id, **__: type("Repo", (), {"repo_id": repo_id}))
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    assert model.push_to_hub("owner/name") == "done"
    # the cache of the hub holds links to files that lie elsewhere
    snapshot = tmp_path / "snapshot"
    for path in [p for p in (tmp_path / "hub").rglob("*") if p.is_file()]:
        link = snapshot / path.relative_to(tmp_path / "hub")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    opened = Whisperer.load(snapshot)
    assert same_state(model, opened)
    assert opened.labels == ["fat"]


def test_vocabulary_and_reference_come_back(tmp_path: Path) -> None:
    model = rich()
    opened = Whisperer.load(model.save(tmp_path / "m"))
    assert same_state(model, opened)
    assert opened.config == model.config
    assert opened.labels == ["fat"]
    assert opened.prompts("Fat") == ["fat tissue"]
    assert opened.vocabulary.ontology.find("adipocytes") == "CL:0000136"
    assert np.array_equal(opened.vocabulary.features, model.vocabulary.features)
    assert opened.reference.config == model.reference.config
    assert np.array_equal(opened.reference.arrays["mean_gene"], np.arange(4))
    again = opened.save(tmp_path / "again")
    for path in (tmp_path / "m").rglob("*.*"):
        assert path.read_bytes() == (again / path.relative_to(tmp_path / "m")).read_bytes()


def test_every_file_has_a_checksum_that_others_can_compute(model: Whisperer, tmp_path: Path) -> None:
    import hashlib

    for folder in (model.folder, rich().save(tmp_path / "m")):
        files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
        config = json.loads(files.pop("config.json").read_text(encoding="utf-8"))
        assert config["files"] == {n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in files.items()}
        assert "model.safetensors" in files


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
    for folder in (model.folder, rich().save(tmp_path / "rich")):
        for name in json.loads((folder / "config.json").read_text(encoding="utf-8"))["files"]:
            assert any(fnmatch(name, pattern) for pattern in asked["allow_patterns"]), name
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


@pytest.fixture
def nothing_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """No part of a model may be made from a folder that is refused."""

    def never(*_: Any, **__: Any) -> None:
        pytest.fail("something was built from a folder that must be refused")

    monkeypatch.setattr(Whisperer, "__init__", never)
    monkeypatch.setattr(Vocabulary, "read", never)
    monkeypatch.setattr(Reference, "read", never)
    monkeypatch.setattr("spatialwhisperer.encoders.gene.all.load_gene_encoder", never)
    monkeypatch.setattr("spatialwhisperer.encoders.towers.rebuild_towers", never)


FILES = [
    "model.safetensors",
    "gene_encoder/config.json",
    "gene_encoder/model.safetensors",
    "vocabulary/config.json",
    "vocabulary/model.safetensors",
    "reference/config.json",
    "reference/model.safetensors",
]


@pytest.fixture(scope="module")
def whole(model: Whisperer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model's files and those of a rich one. Read only."""
    folder = Path(shutil.copytree(model.folder, tmp_path_factory.mktemp("whole") / "m"))
    for part in ("vocabulary", "reference"):
        shutil.rmtree(folder / part, ignore_errors=True)
    rich().vocabulary.write(folder / "vocabulary")
    rich().reference.write(folder / "reference")
    sign(folder)
    assert Whisperer.load(folder).labels == ["fat"]
    return folder


@pytest.mark.usefixtures("nothing_built")
@pytest.mark.parametrize("name", FILES)
def test_files_that_were_cut_off_or_changed(whole: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "m"))
    content = (whole / name).read_bytes()
    for broken in (content[:-8], b"", content + b" ", content[:-1] + bytes([content[-1] ^ 1])):
        (folder / name).write_bytes(broken)
        message = rf"{name} is not the file that was written .*cut off or changed \({len(broken)} bytes.*save it again"
        with pytest.raises(ValueError, match=message):
            Whisperer.load(folder)
        with pytest.raises(ValueError, match=message):
            Whisperer.from_pretrained(folder)


@pytest.mark.usefixtures("nothing_built")
@pytest.mark.parametrize("name", FILES[1:])
def test_files_that_were_lost(whole: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "m"))
    (folder / name).unlink()
    with pytest.raises(ValueError, match=rf"m lacks {name}, which its configuration lists.*Copy or download"):
        Whisperer.load(folder)
    shutil.rmtree((folder / name).parent)
    with pytest.raises(ValueError, match="lacks .*, which its configuration lists"):
        Whisperer.load(folder)


@pytest.mark.usefixtures("nothing_built")
@pytest.mark.parametrize(
    "name",
    ["more.safetensors", "expression/config.json", "notes/a.JSON", "text_tower/vocab.txt", "gene_encoder/run.py"],
)
def test_files_that_were_added(whole: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "m"))
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("{}")
    with pytest.raises(ValueError, match=rf"holds {name}, which its configuration does not list\. Remove"):
        Whisperer.load(folder)


def test_files_beside_a_model(whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "m"))
    (folder / ".cache").mkdir()
    for name in ("README.md", "LICENSE", ".gitattributes", ".cache/lock.json"):
        (folder / name).write_text("words")
    assert Whisperer.load(folder).labels == ["fat"]


@pytest.mark.usefixtures("nothing_built")
@pytest.mark.parametrize("files", [None, {}, ["model.safetensors"], "all"])
def test_a_configuration_without_checksums(folder: Path, files: Any) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(
        json.dumps({k: v for k, v in config.items() if k != "files"} | {"files": files})
    )
    with pytest.raises(ValueError, match=r"lists no checksums of its files.*save it again with model\.save"):
        Whisperer.load(folder)


def test_broken_weights_with_a_right_checksum(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"broken")
    sign(folder)
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        Whisperer.load(folder)


def test_weights_of_another_model(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if k != "log_scale"}, folder / "model.safetensors")
    sign(folder)
    with pytest.raises(ValueError, match=r"does not fit config\.json: check log_scale"):
        Whisperer.load(folder)
    save_file(tensors | {"log_scale": torch.zeros(2)}, folder / "model.safetensors")
    sign(folder)
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
