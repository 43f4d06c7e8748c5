"""At no moment there is no folder, whenever the process dies, and what it leaves is found and removed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from spatialwhisperer._artifact import Artifact
from spatialwhisperer._storage import folders
from spatialwhisperer._storage.folders import beside, present, put, sweep

WRITER = """
import os, random, signal, sys, time
from pathlib import Path
import numpy as np
from spatialwhisperer._artifact import Artifact
from spatialwhisperer._storage import folders

place, how, seed = Path(sys.argv[1]) / "m", sys.argv[2], int(sys.argv[3])
# a process that dies loses nothing that was written; only a machine does
os.fsync = lambda _: None
if "moves" in sys.argv:
    folders._renameat2 = lambda: None

def version(n):
    inner = Artifact("part", {"n": n}, {"b": np.full(50, n)}, files={"run.txt": b"%d" % n})
    return Artifact("thing", {"n": n}, {"a": np.full(100, n, np.float32)}, {"inner": inner})

def whole(read, *numbers):
    n = read.config["n"]
    inside = read.parts["inner"]
    return n in numbers and inside.config["n"] == n and (read.tensors["a"] == n).all() and inside.files["run.txt"] == b"%d" % n

def die_at(step):
    seen = [0]
    def count(event, args):
        if event in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.listdir", "os.scandir", "shutil.rmtree"):
            seen[0] += 1
            if seen[0] == step:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)

# both are imported by their first use
Artifact.read(version(0).write(place), "thing")
rng = random.Random(seed)
killed = 0
for n in range(1, 10_000):
    child = os.fork()
    if child == 0:
        if how == "steps":
            die_at(n)
        version(n).write(place)
        if how == "steps":
            os._exit(0)
        while True:
            version(n).write(place)
    if how == "times":
        time.sleep(rng.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    read = Artifact.read(place, "thing")
    known = (n - 1, n) if how == "steps" else range(n + 1)
    if not whole(read, *known):
        sys.exit(f"step {n}: a mix, or another one: {read.config}")
    if how == "steps" and not os.WIFSIGNALED(status):
        break
    killed += 1
    version(n).write(place)
    left = [p.name for p in place.parent.iterdir()]
    if left != ["m"]:
        sys.exit(f"step {n}: left {left}")
    if how == "times" and killed == 80:
        break
print(killed)
"""

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, and exchanges folders in one step")


def run_writer(tmp_path: Path, *arguments: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path), *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@linux
@pytest.mark.parametrize("way", ["exchanges", "moves"])
def test_a_process_that_is_killed_at_any_step_leaves_the_old_one_or_the_new_one(tmp_path: Path, way: str) -> None:
    assert run_writer(tmp_path, "steps", "0", way) > 30


@linux
@pytest.mark.slow
@pytest.mark.parametrize("way", ["exchanges", "moves"])
def test_a_process_that_is_killed_at_any_time_leaves_the_old_one_or_a_new_one(tmp_path: Path, way: str) -> None:
    assert run_writer(tmp_path, "times", "1", way) == 80


@linux
@pytest.mark.parametrize("way", ["exchanges", "moves"])
def test_a_reader_never_sees_a_mix_while_another_process_writes(tmp_path: Path, way: str) -> None:
    import numpy as np

    def version(n: int) -> Artifact:
        inner = Artifact("part", {"n": n}, {"b": np.full(5000, n)})
        return Artifact("thing", {"n": n}, {"a": np.full(5000, n, np.float32)}, {"inner": inner})

    place = version(0).write(tmp_path / "m")
    script = (
        "import sys\nimport numpy as np\nfrom spatialwhisperer._artifact import Artifact\n"
        "from spatialwhisperer._storage import folders\n"
        + ("folders._renameat2 = lambda: None\n" if way == "moves" else "")
        + "for n in range(1, 10**6):\n"
        "    inner = Artifact('part', {'n': n}, {'b': np.full(5000, n)})\n"
        "    Artifact('thing', {'n': n}, {'a': np.full(5000, n, np.float32)}, {'inner': inner}).write(sys.argv[1])\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", script, str(place)])
    seen: set[int] = set()
    refused, end = 0, time.monotonic() + 1.2
    try:
        while time.monotonic() < end or (len(seen) < 3 and time.monotonic() < end + 20):
            try:
                read = Artifact.read(place, "thing")
            except ValueError as error:
                if "is replaced again and again while it is read" not in str(error):
                    raise
                refused += 1
                continue
            n = read.config["n"]
            inner = read.parts["inner"]
            assert inner.config["n"] == n
            assert (read.tensors["a"] == n).all()
            assert (inner.tensors["b"] == n).all()
            seen.add(n)
    finally:
        writer.kill()
        writer.wait()
    assert len(seen) >= 3
    assert refused < len(seen)


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
