"""At no moment there is no folder, whenever the process dies, and what it leaves is found and removed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from spatialwhisperer._artifact.artifact import Artifact
from spatialwhisperer._storage import folders
from spatialwhisperer._storage.folders import beside, present, put, sweep


def made(folder: Path, content: str) -> Path:
    (folder / "config.json").write_text(content)
    return folder


def test_a_folder_is_exchanged_with_the_one_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "m"
    for n, moves in enumerate((False, False, True, True)):
        if moves:
            monkeypatch.setattr(folders, "_renameat2", lambda: None)
        temporary = made(beside(place), str(n))
        put(temporary, place)
        assert (place / "config.json").read_text() == str(n)
        shutil.rmtree(temporary, ignore_errors=True)
        assert os.listdir(tmp_path) == ["m"]


def test_a_file_system_that_exchanges_nothing_moves_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_renameat2", lambda: lambda *_: -1)
    place = tmp_path / "m"
    for content in "ab":
        put(made(beside(place), content), place)
    assert (place / "config.json").read_text() == "b"
    assert os.listdir(tmp_path) == ["m"]


def test_another_process_that_puts_its_own_there_at_the_same_moment_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, replace, others = tmp_path / "m", os.replace, iter(["first", "second", "third"])

    def replace_after_another(source: Any, target: Any) -> None:
        if Path(target) == place and not str(source).endswith("-old"):
            content = next(others, None)
            if content is not None:
                place.mkdir()
                made(place, content)
        replace(source, target)

    monkeypatch.setattr(folders, "_renameat2", lambda: None)
    monkeypatch.setattr(os, "replace", replace_after_another)
    put(made(beside(place), "mine"), place)
    assert (place / "config.json").read_text() == "mine"
    assert os.listdir(tmp_path) == ["m"]


def test_a_folder_between_two_replacements_is_looked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "m"
    old = made(beside(place), "old")
    old = old.rename(old.with_name(old.name + "-old"))
    seen = iter([[], [old]])
    monkeypatch.setattr(folders, "_leftovers", lambda _: next(seen))
    assert present(place, "config.json") == old


def dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process of every leftover be gone."""
    monkeypatch.setattr(folders, "_alive", lambda _: False)


def test_what_was_moved_away_is_found_where_nothing_took_its_place(tmp_path: Path) -> None:
    place = tmp_path / "m"
    assert present(place, "config.json") is None
    old = made(beside(place), "old")
    older = old.rename(old.with_name(old.name + "-old"))
    empty = beside(place)
    empty.rename(empty.with_name(empty.name + "-old"))
    made(beside(place), "half written")
    assert present(place, "config.json") == older
    place.mkdir()
    assert present(place, "config.json") == place
    assert present(Path("/"), "config.json") == Path("/")


def test_leftovers_of_processes_that_are_gone_are_removed_and_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, other = tmp_path / "m", tmp_path / "m-2"
    mine, theirs = beside(place), beside(other)
    elsewhere = tmp_path / ".m-0123456789ab-1-abcdefgh"
    alike = [tmp_path / name for name in (".m-notes", ".m-deadbeef", ".m-0123456789ab-1-abcdefgh-older")]
    for folder in (elsewhere, *alike):
        folder.mkdir()
    sweep(place)
    assert mine.is_dir()
    dead(monkeypatch)
    sweep(place)
    assert not mine.exists()
    assert all(p.is_dir() for p in (theirs, elsewhere, *alike))
    # of another machine, whose processes cannot be asked for
    os.utime(elsewhere, (0, 0))
    for folder in alike:
        os.utime(folder, (0, 0))
    sweep(place)
    assert not elsewhere.exists()
    assert all(p.is_dir() for p in (theirs, *alike))


def test_a_link_with_the_name_of_a_leftover_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead(monkeypatch)
    mine = beside(tmp_path / "m")
    (tmp_path / "kept").mkdir()
    mine.rmdir()
    mine.symlink_to(tmp_path / "kept")
    sweep(tmp_path / "m")
    assert mine.is_symlink()


def test_long_names_have_room_for_what_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / ("n" * 250)
    left = beside(place)
    put(beside(place), place)
    dead(monkeypatch)
    sweep(place)
    assert not left.exists()
    assert os.listdir(tmp_path) == [place.name]


def test_everything_is_written_through_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def fsync(handle: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to see which file is synced")
    monkeypatch.setattr(os, "fsync", fsync)
    part: Any = Artifact("part", {}, files={"run.txt": b"words"})
    Artifact("thing", {}, parts={"inner": part}).write(tmp_path / "m")
    assert {"config.json", "inner", "run.txt", tmp_path.name} <= set(synced)
    assert synced[-1] == tmp_path.name
