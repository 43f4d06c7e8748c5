"""A folder is written whole or not at all, and read only where it is what was written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spatialwhisperer._artifact.artifact import Artifact
from spatialwhisperer._artifact.layout import digest, kind_of, names_in
from spatialwhisperer._storage import folders

CONFIG = {"name": "größer µm", "n": 3, "values": [1, 2.5, -1e-3], "none": None, "on": True, "inner": {"a": "b"}}


def small() -> Artifact:
    inner = Artifact("part", {"text": "inside"}, {"b": np.arange(3, dtype=np.float16)}, files={"run.txt": b"words"})
    tensors: dict[str, Any] = {
        "z": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "a": np.array([True, False]),
        "n": np.int64(7),
    }
    return Artifact(
        "thing", CONFIG, tensors, {"inner": inner, "plain": Artifact("part", {})}, {"vocab.txt": b"a\nb\r\n"}
    )


def same(a: Artifact, b: Artifact) -> bool:
    def equal(x: Any, y: Any) -> bool:
        return np.asarray(x).dtype == y.dtype and np.array_equal(x, y)

    return (
        (a.kind, dict(a.config), dict(a.files)) == (b.kind, dict(b.config), dict(b.files))
        and a.tensors.keys() == b.tensors.keys()
        and all(equal(a.tensors[k], b.tensors[k]) for k in a.tensors)
        and a.parts.keys() == b.parts.keys()
        and all(same(a.parts[k], b.parts[k]) for k in a.parts)
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small().write(tmp_path / "thing")


def forge(folder: Path, **changes: Any) -> None:
    """Change a configuration and give it the digest that fits, as somebody would who knows the format."""
    stated = json.loads((folder / "config.json").read_text(encoding="utf-8")) | changes
    stated["digest"] = digest(stated)
    (folder / "config.json").write_text(json.dumps(stated), encoding="utf-8")


# ------------------------------------------------------------------------------------------------- round trips


def test_it_comes_back_as_it_was(folder: Path) -> None:
    assert same(Artifact.read(folder, "thing"), small())
    assert same(Artifact.read(str(folder), "thing"), small())
    again = Artifact.read(folder, "thing").write(folder.parent / "again")
    names = {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()}
    assert names == {p.relative_to(again) for p in again.rglob("*") if p.is_file()}
    assert all((folder / name).read_bytes() == (again / name).read_bytes() for name in names)


def test_values_that_json_does_not_have_become_plain_ones(tmp_path: Path) -> None:
    config: Any = {1: np.int64(2), "xs": (np.float32(0.5), {"b"}), 10: {2: np.arange(2)}}
    read = Artifact.read(Artifact("thing", config).write(tmp_path / "m"), "thing")
    assert read.config == {"1": 2, "xs": [0.5, ["b"]], "10": {"2": [0, 1]}}


def test_every_file_has_a_checksum_that_others_can_compute(folder: Path) -> None:
    import hashlib

    for inside in (folder, folder / "inner"):
        stated = json.loads((inside / "config.json").read_text(encoding="utf-8"))
        assert stated["format"] == "spatialwhisperer"
        assert stated["format_version"] == 1
        assert stated["written_by"]
        for name, sha in stated["files"].items():
            assert hashlib.sha256((inside / name).read_bytes()).hexdigest() == sha
        for name, sha in stated["parts"].items():
            assert json.loads((inside / name / "config.json").read_text(encoding="utf-8"))["digest"] == sha


def test_links_of_the_cache_of_a_hub_are_followed(folder: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "0123", tmp_path / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    for i, path in enumerate(p for p in sorted(folder.rglob("*")) if p.is_file()):
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, blobs / str(i))
        link.symlink_to(os.path.relpath(blobs / str(i), link.parent))
    assert same(Artifact.read(snapshot, "thing"), small())
    (tmp_path / "short").symlink_to(snapshot)
    assert same(Artifact.read(tmp_path / "short", "thing"), small())


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "inner", "inner/config.json", "inner/run.txt"])
def test_links_out_of_the_folder_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    os.replace(folder / name, tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=rf"{name} is a link that leads out of its folder, to .*elsewhere.*cp -rL"):
        Artifact.read(folder, "thing")
    # inside it, a link does no harm
    os.replace(tmp_path / "elsewhere", folder / ".elsewhere")
    (folder / name).unlink()
    (folder / name).symlink_to(os.path.relpath(folder / ".elsewhere", (folder / name).parent))
    assert same(Artifact.read(folder, "thing"), small())


def test_what_is_there_is_told(folder: Path, tmp_path: Path) -> None:
    assert kind_of(folder) == "thing"
    assert kind_of(folder / "inner") == "part"
    assert kind_of(tmp_path) is None
    for content in ("{", "[]", "3", '{"format": "other", "kind": "thing"}', "[" * 100_000):
        (tmp_path / "config.json").write_text(content)
        assert kind_of(tmp_path) is None
    assert names_in(folder, ("inner", "outer")) == ["config.json", "model.safetensors", "inner"]


# ------------------------------------------------------------------------------------------------- writing


def test_an_artifact_of_the_same_kind_is_replaced(folder: Path) -> None:
    Artifact("thing", {"new": 1}).write(folder)
    assert Artifact.read(folder, "thing").config == {"new": 1}
    assert [p.name for p in folder.iterdir()] == ["config.json"]
    assert [p.name for p in folder.parent.iterdir()] == ["thing"]


def test_anything_else_is_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("meow")
    (tmp_path / "file").write_text("words")
    for place in (tmp_path / "photos", tmp_path / "file", folder):
        with pytest.raises(FileExistsError, match=r"is not a folder of this kind \(other\); choose another name"):
            Artifact("other", {}).write(place)
    assert (tmp_path / "photos" / "cat.jpg").read_text() == "meow"
    assert same(Artifact.read(folder, "thing"), small())
    (tmp_path / "empty").mkdir()
    assert same(Artifact.read(small().write(tmp_path / "empty"), "thing"), small())


def test_folders_above_it_are_made(tmp_path: Path) -> None:
    assert Artifact("thing", {}).write(tmp_path / "a" / "b" / "c") == tmp_path / "a" / "b" / "c"
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["c"]


@pytest.mark.parametrize("where", ["writing", "moving", "exchanging"])
def test_an_interrupted_write_leaves_what_was_there(folder: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    import safetensors.numpy

    replace = os.replace

    def stop(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    def stop_second(source: Any, target: Any) -> None:
        if Path(target).name == "thing" and not str(source).endswith("-old"):
            stop()
        replace(source, target)

    if where == "writing":
        monkeypatch.setattr(safetensors.numpy, "save_file", stop)
    elif where == "moving":
        monkeypatch.setattr(folders, "_renameat2", lambda: None)
        monkeypatch.setattr(os, "replace", stop_second)
    else:
        monkeypatch.setattr(folders, "_exchanged", stop)
    with pytest.raises(OSError, match="disk full"):
        Artifact("thing", {"new": 1}, {"a": np.zeros(2)}).write(folder)
    monkeypatch.undo()
    assert same(Artifact.read(folder, "thing"), small())
    assert [p.name for p in folder.parent.iterdir()] == ["thing"]


def test_values_that_are_no_numbers_are_refused_before_anything_is_there(tmp_path: Path) -> None:
    for config in ({"x": float("nan")}, {"x": float("inf")}):
        with pytest.raises(ValueError, match="not JSON compliant"):
            Artifact("thing", config).write(tmp_path / "m")
    with pytest.raises(TypeError, match="not JSON serializable"):
        Artifact("thing", {"x": object()}).write(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize(
    ("umask", "file", "directory"), [(0o022, 0o644, 0o755), (0o002, 0o664, 0o775), (0o077, 0o600, 0o700)]
)
def test_others_may_read_what_the_umask_allows(tmp_path: Path, umask: int, file: int, directory: int) -> None:
    before = os.umask(umask)
    try:
        (tmp_path / "theirs").mkdir(mode=0o700)
        small().write_into(tmp_path / "theirs")
        folder = small().write(tmp_path / "m")
    finally:
        os.umask(before)
    for path in [folder, *folder.rglob("*"), *(tmp_path / "theirs").rglob("*")]:
        assert path.stat().st_mode & 0o777 == (directory if path.is_dir() else file), path
    # a folder that was there keeps its own
    assert (tmp_path / "theirs").stat().st_mode & 0o777 == 0o700
    # and so does one that is replaced
    folder.chmod(0o700)
    assert small().write(folder).stat().st_mode & 0o777 == 0o700
    assert (folder / "config.json").stat().st_mode & 0o777 == 0o600
    assert same(Artifact.read(tmp_path / "theirs", "thing"), small())


# ------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("flip", [lambda b: b ^ 1, lambda b: b ^ 128, lambda _: 0x20, lambda _: 0x30, lambda _: 0x22])
def test_a_changed_byte_of_a_configuration_is_refused_or_means_the_same(tmp_path: Path, flip: Any) -> None:
    folder = Artifact("thing", CONFIG).write(tmp_path / "m")
    path = folder / "config.json"
    content = path.read_bytes()
    accepted = 0
    for position, byte in enumerate(content):
        changed = content[:position] + bytes([flip(byte)]) + content[position + 1 :]
        path.write_bytes(changed)
        try:
            read = Artifact.read(folder, "thing")
        except ValueError:
            continue
        accepted += 1
        assert same(read, Artifact("thing", CONFIG)), (position, changed[position - 20 : position + 20])
    # line breaks may become blanks
    assert accepted < len(content) / 4


FILES = ["model.safetensors", "vocab.txt", "inner/config.json", "inner/model.safetensors", "inner/run.txt"]


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_cut_off_or_changed_is_refused(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    last = content.rstrip()[:-1]
    for broken in (content[:-8], b"", last + bytes([content.rstrip()[-1] ^ 1])):
        (folder / name).write_bytes(broken)
        if name.endswith(".json"):
            message = rf"{name} is not readable JSON .*Copy or download"
        else:
            message = rf"{name} is not the file that was written .*cut off or changed \({len(broken)} bytes.*save"
        with pytest.raises(ValueError, match=message):
            Artifact.read(folder, "thing")


def test_a_changed_part_is_refused_though_it_is_whole_in_itself(folder: Path) -> None:
    forge(folder / "inner", config={"text": "other"})
    assert Artifact.read(folder / "inner", "part").config == {"text": "other"}
    with pytest.raises(ValueError, match="inner is not the folder that was written with .*thing"):
        Artifact.read(folder, "thing")
    stated = json.loads((folder / "inner" / "config.json").read_text(encoding="utf-8"))
    (folder / "inner" / "config.json").write_text(json.dumps(stated | {"config": {}}))
    with pytest.raises(ValueError, match="its digest does not fit its content"):
        Artifact.read(folder, "thing")


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_lost_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    inside, short = (folder / "inner", name.removeprefix("inner/")) if "/" in name else (folder, name)
    # the configuration of a part is missed by the whole
    lacking = rf"thing lacks {name}" if short == "config.json" else rf"{inside.name} lacks {short}"
    with pytest.raises(ValueError, match=rf"{lacking}, which its configuration lists.*Copy or download"):
        Artifact.read(folder, "thing")
    if "/" in name:
        shutil.rmtree(folder / "inner")
        with pytest.raises(ValueError, match="lacks inner/config.json, which its configuration lists"):
            Artifact.read(folder, "thing")


@pytest.mark.parametrize("name", ["more.safetensors", "other.JSON", "thing/config.json", "inner/run.py", "plain/x/a"])
def test_a_file_that_was_added_is_named(folder: Path, name: str) -> None:
    if name == "thing/config.json":
        Artifact("thing", {}).write(folder / "thing")
    else:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    parts = Path(name).parts
    added = parts[1] if parts[0] in ("inner", "plain") else parts[0]
    with pytest.raises(ValueError, match=rf"holds {added}, which its configuration does not list\. Remove"):
        Artifact.read(folder, "thing")


def test_files_that_are_never_read_may_lie_beside_it(folder: Path) -> None:
    names = ("README.md", "LICENSE", ".gitattributes", ".cache/lock.json", "figures/a.png", "inner/.DS_Store")
    for name in (*names, "eval/config.json", "text/vocab.txt", "deep/er/still.safetensors"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    assert same(Artifact.read(folder, "thing"), small())


@pytest.mark.parametrize("name", ["extra.pt", "pytorch_model.bin", "inner/x.PKL", "a/b/c.npy", ".hidden/x.joblib"])
def test_pickles_are_refused(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"\x80\x04N.")
    with pytest.raises(ValueError, match=rf"can run code when opened \({Path(name).name}\)"):
        Artifact.read(folder, "thing")


@pytest.mark.parametrize("key", ["files", "parts"])
@pytest.mark.parametrize("name", ["../outside.json", "/etc/passwd", "inner/run.txt", "", ".", "..", ".hidden", "a\\b"])
def test_names_that_lead_out_of_the_folder_are_refused(folder: Path, key: str, name: str) -> None:
    (folder.parent / "outside.json").write_text("{}")
    forge(folder, **{key: {name: "0" * 64}})
    with pytest.raises(ValueError, match="names a file outside its folder or a hidden one"):
        Artifact.read(folder, "thing")


@pytest.mark.parametrize("changes", [{"files": ["vocab.txt"]}, {"parts": "inner"}, {"files": None}, {"config": [1]}])
def test_lists_that_are_none_are_refused(folder: Path, changes: dict[str, Any]) -> None:
    forge(folder, **changes)
    with pytest.raises(ValueError, match="does not list its files and parts by name"):
        Artifact.read(folder, "thing")


@pytest.mark.parametrize("changes", [{"files": {"inner": "0"}}, {"files": {"config.json": "0"}}])
def test_a_name_that_stands_for_two_things_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    forge(folder, **changes)
    with pytest.raises(ValueError, match="lists a name twice"):
        Artifact.read(folder, "thing")


@pytest.mark.parametrize("changes", [{"files": {}}, {"parts": {}}])
def test_a_list_without_what_is_there_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    forge(folder, **changes)
    with pytest.raises(ValueError, match="which its configuration does not list"):
        Artifact.read(folder, "thing")


def test_broken_tensors_with_a_right_checksum_are_refused(folder: Path) -> None:
    import hashlib

    (folder / "model.safetensors").write_bytes(b"broken")
    stated = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    forge(folder, files=stated["files"] | {"model.safetensors": hashlib.sha256(b"broken").hexdigest()})
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        Artifact.read(folder, "thing")


def test_another_kind_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="thing holds a thing, not a model"):
        Artifact.read(folder, "model")


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_version_of_the_format_says_which_is_read(folder: Path, version: Any) -> None:
    forge(folder, format_version=version)
    message = rf"has format version {version!r} and this version of the package reads 1\. Save it again"
    with pytest.raises(ValueError, match=message):
        Artifact.read(folder, "thing")


def test_keys_that_are_not_of_the_format_are_refused(folder: Path) -> None:
    forge(folder, more=1)
    with pytest.raises(ValueError, match="is not the file that was written: it has the unknown more"):
        Artifact.read(folder, "thing")
    stated = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del stated["parts"]
    (folder / "config.json").write_text(json.dumps(stated), encoding="utf-8")
    with pytest.raises(ValueError, match="it lacks parts and has the unknown more. Copy or download the folder again"):
        Artifact.read(folder, "thing")


@pytest.mark.parametrize("content", ['{"model_type": "bert"}', "[]", "3", "null", '"spatialwhisperer"'])
def test_a_configuration_of_somebody_else_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(ValueError, match="was not written by spatialwhisperer"):
        Artifact.read(folder, "thing")


NO_JSON = [
    b"{",
    b"",
    b"\xff\xfe\xfd",
    b'{"a": NaN}',
    b'{"a": 1e999}',
    b"[" * 100_000,
    b"[" * 65 + b"]" * 65,
    b"9" * 9999,
    b"[}",
]


@pytest.mark.parametrize("content", NO_JSON)
def test_a_configuration_that_is_not_json_is_refused(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json is not readable JSON"):
        Artifact.read(folder, "thing")


def test_a_place_without_one_says_what_is_there(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere holds no thing: config\.json is needed \(found: no such"):
        Artifact.read(tmp_path / "nowhere", "thing")
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"found: inner, model\.safetensors, plain, vocab\.txt"):
        Artifact.read(folder, "thing")
