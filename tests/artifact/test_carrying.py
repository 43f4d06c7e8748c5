"""What lies beside an artifact stays when it is replaced, or is named before anything is written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spatialwhisperer._artifact import carrying
from spatialwhisperer._artifact.artifact import Artifact

OLD = Artifact("thing", {"n": 1}, {"a": np.zeros(2)}, {"inner": Artifact("part", {})}, {"vocab.txt": b"a"})
NEW = Artifact("thing", {"n": 2}, {"b": np.ones(3)})
OTHERS = {
    ".git/objects/ab/cd": b"blob",
    ".gitattributes": b"*.safetensors filter=lfs",
    "notes.txt": b"words",
    "figures/a.png": b"picture",
    "eval/x.json": b"{}",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = OLD.write(tmp_path / "thing", notes={"README.md": "a card"})
    for name, content in OTHERS.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    (place / ".git/objects/ab/cd").chmod(0o444)
    return place


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("links", [True, False])
def test_other_files_stay_where_an_artifact_is_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuses(*_: Any, **__: Any) -> None:
        raise OSError("no links here")

    if not links:
        monkeypatch.setattr(os, "link", refuses)
    (folder / "short").symlink_to("figures")
    NEW.write(folder, notes={"README.md": "another card"})
    found = content(folder)
    assert found.keys() == {*OTHERS, "config.json", "model.safetensors", "README.md"}
    assert {name: found[name] for name in OTHERS} == OTHERS
    assert found["README.md"] == b"another card"
    assert os.readlink(folder / "short") == "figures"
    assert (folder / ".git/objects/ab/cd").stat().st_mode & 0o777 == 0o444
    assert Artifact.read(folder, "thing").config == {"n": 2}
    assert [p.name for p in folder.parent.iterdir()] == ["thing"]
    # a card that none takes the place of stays too
    OLD.write(folder)
    assert (folder / "README.md").read_text() == "another card"


@pytest.mark.parametrize("name", ["more.json", "model/config.json", "weights.pt", "runs/x.npy", "added/a.png"])
def test_what_is_in_the_way_is_named_and_nothing_is_written(folder: Path, name: str) -> None:
    if name == "model/config.json":
        Artifact("thing", {}).write(folder / "model")
    else:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"{}")
    before = content(folder)
    new = Artifact("thing", {}, parts={"added": Artifact("part", {})})
    with pytest.raises(FileExistsError, match=f"thing holds {Path(name).parts[0]}, which does not belong.*Move it"):
        new.write(folder)
    assert content(folder) == before
    assert [p.name for p in folder.parent.iterdir()] == ["thing"]


def test_parts_of_an_artifact_that_is_put_there_meanwhile_are_not_taken_for_other_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = carrying._others
    calls: list[int] = []

    def late(*arguments: Any) -> list[str]:
        found = others(*arguments)
        if not calls:
            calls.append(1)
            third = Artifact("thing", {"n": 3}, parts={"notes.txt": Artifact("part", {})}).write(tmp_path / "third")
            shutil.rmtree(folder)
            shutil.move(third, folder)
        return found

    monkeypatch.setattr(carrying, "_others", late)
    NEW.write(folder)
    assert Artifact.read(folder, "thing").config == {"n": 2}
    assert content(folder).keys() == {"config.json", "model.safetensors"}
