"""Readers of a folder that writers replace: what is read is whole."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._artifact.artifact import Artifact
from tests.torture.frame import Campaign, Trial

if TYPE_CHECKING:
    from collections.abc import Iterator

WRITER = """
import os, sys
import numpy as np
from spatialwhisperer._artifact.artifact import Artifact
from spatialwhisperer._storage import folders
os.fsync = lambda _: None
if sys.argv[2] == "moves":
    folders._renameat2 = lambda: None
for n in range(int(sys.argv[3]), 10**9, 2):
    inner = Artifact("part", {"n": n}, {"b": np.full(5000, n)})
    Artifact("thing", {"n": n}, {"a": np.full(5000, n, np.float32)}, {"inner": inner}).write(sys.argv[1])
"""
PAUSE = 0.002
WAYS = ("exchange", "moves")


def one_writer(rng: np.random.Generator, n: int) -> Iterator[Trial]:
    """Reads beside one writer, half of them in each way of replacing."""
    yield from _read(rng, n, writers=1)


def two_writers(rng: np.random.Generator, n: int) -> Iterator[Trial]:
    """Reads beside two writers."""
    yield from _read(rng, n, writers=2)


def _read(rng: np.random.Generator, n: int, *, writers: int) -> Iterator[Trial]:
    for way, reads in zip(WAYS, (n - n // 2, n // 2), strict=True):
        yield from _beside(way, reads, writers, rng)


def _beside(way: str, reads: int, writers: int, rng: np.random.Generator) -> Iterator[Trial]:
    with tempfile.TemporaryDirectory() as temporary:
        inner = Artifact("part", {"n": 0}, {"b": np.full(5000, 0)})
        place = Artifact("thing", {"n": 0}, {"a": np.zeros(5000, np.float32)}, {"inner": inner}).write(
            Path(temporary) / "m"
        )
        running = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(place), way, str(1 + i)], stderr=subprocess.PIPE, text=True
            )
            for i in range(writers)
        ]
        try:
            _until_all_write(place, writers)
            seen: set[int] = set()
            for i in range(reads):
                # a reader that waits a little sees more of the moments of a writer
                time.sleep(float(rng.uniform(0, PAUSE)))
                trial, version = _one_read(place)
                seen.add(version)
                if trial.failure or i < reads - 1:
                    yield Trial(trial.outcome, trial.failure and f"{way}, read {i}: {trial.failure}")
                    continue
                yield Trial(trial.outcome, _wrong_at_the_end(running, reads, seen))
        finally:
            for writer in running:
                writer.kill()
                writer.communicate()


def _wrong_at_the_end(running: list[subprocess.Popen[str]], reads: int, seen: set[int]) -> str:
    for writer in running:
        if writer.poll() is not None:
            return f"a writer ended: {writer.communicate()[1][-500:]}"
    return "" if reads < 10 or len(seen) > 3 else f"only {len(seen)} versions were read"


def _until_all_write(place: Path, writers: int) -> None:
    """Wait until odd and even versions, which the two writers count, were seen."""
    end = time.monotonic() + 60
    seen: set[int] = set()
    while len(seen) < writers and time.monotonic() < end:
        _, version = _one_read(place)
        seen |= {version % 2} if version > 0 else set()


def _one_read(place: Path) -> tuple[Trial, int]:
    """How a read ended, and the version that was read, -1 where none was."""
    try:
        read = Artifact.read(place, "thing")
    except ValueError as error:
        if "is replaced again and again while it is read" in str(error):
            return Trial("own error: read it later"), -1
        return Trial("error", f"ValueError: {error}"), -1
    except Exception as error:  # noqa: BLE001 - whatever it is, it is an outcome
        return Trial("error", f"{type(error).__name__}: {error}"), -1
    n, inner = read.config["n"], read.parts["inner"]
    whole = inner.config["n"] == n and (read.tensors["a"] == n).all() and (inner.tensors["b"] == n).all()
    return Trial("whole", "" if whole else f"parts of two versions, {n} and {inner.config['n']}"), int(n)


ONE_WRITER = Campaign("reader while a writer replaces the folder", one_writer, bounded=200, long=4000, posix=True)
TWO_WRITERS = Campaign("two writers and a reader", two_writers, bounded=100, long=2000, posix=True)
