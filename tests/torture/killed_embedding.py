"""`embed_images` is killed, and the next call finds its finished batches: one at most is computed twice."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

import spatialwhisperer as sw
from spatialwhisperer.encoders.image.stain_texture import StainTextureEncoder
from tests.torture.frame import Campaign, Trial

if TYPE_CHECKING:
    from collections.abc import Iterator

KILLED = """
import os, signal, sys, threading
from pathlib import Path
import spatialwhisperer as sw
from spatialwhisperer.encoders.image.stain_texture import StainTextureEncoder
from tests.torture import killed_embedding

place, event, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
section = killed_embedding.section()
encode, handle, seen = StainTextureEncoder.encode, os.open(place / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), [0]

def logged(self, *args, **kwargs):
    features = encode(self, *args, **kwargs)
    # one byte in one call: whole whenever the process dies
    os.write(handle, b".")
    return features

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def count_events(name, args):
    if name in EVENTS and str(place / "features") in str(args[:1]):
        seen[0] += 1
        if seen[0] == event:
            die()

EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.listdir", "os.scandir", "tempfile.mkstemp"}
StainTextureEncoder.encode = logged
if event:
    sys.addaudithook(count_events)
else:
    timer = threading.Timer(seconds, die)
    timer.daemon = True
    timer.start()
killed_embedding.embed(section, place)
"""
BATCHES = 10


def section() -> Any:
    """Forty spots on noise."""
    import anndata as ad

    draw = np.random.default_rng(1)
    adata = ad.AnnData(np.zeros((40, 0), np.float32))
    adata.obsm["spatial"] = draw.uniform(20, 380, (40, 2))
    pixels = draw.integers(0, 255, (400, 400, 3), dtype=np.uint8)
    adata.uns["spatial"] = {"slide": {"images": {"fullres": pixels}, "scalefactors": {}}}
    return adata


def embed(adata: Any, place: Path) -> np.ndarray:
    """Embed in ten batches, which are kept in a folder."""
    how: dict[str, Any] = {"tile_um": (20, 40), "tile_px": 32, "mpp": 0.5, "batch_size": 8, "inplace": False}
    # batches are found again at the same precision, and the process that is killed has settings of its own
    with sw.settings.override(cache_dir=place, verbose=False, precision="float32"):
        return np.asarray(sw.pp.embed_images(adata, encoder="stain_texture", **how))


def counted(adata: Any, place: Path) -> tuple[np.ndarray, int]:
    """Embed, and count the batches that were computed."""
    encode, computed = StainTextureEncoder.encode, [0]

    def count(*args: Any, **kwargs: Any) -> np.ndarray:
        computed[0] += 1
        return encode(*args, **kwargs)

    with mock.patch.object(StainTextureEncoder, "encode", count):
        return embed(adata, place), computed[0]


def trials(rng: np.random.Generator, n: int) -> Iterator[Trial]:
    """Three in four at an event of the file system, one at a random time."""
    adata = section()
    with tempfile.TemporaryDirectory() as place:
        fresh, _ = counted(adata, Path(place))
    for i in range(n):
        event = 0 if i % 4 == 3 else int(rng.integers(1, 60))
        with tempfile.TemporaryDirectory() as place:
            yield _trial(adata, fresh, Path(place), event, float(rng.uniform(0, 0.3)))


def _trial(adata: Any, fresh: np.ndarray, place: Path, event: int, seconds: float) -> Trial:
    command = [sys.executable, "-c", KILLED, str(place), str(event), str(seconds)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120)
    what = f"killed at event {event}" if event else f"killed after {seconds:.2f} s"
    if done.returncode not in (0, -9):
        return Trial("no end", f"{what}: {done.stderr[-300:]}")
    before = (place / "log").stat().st_size if (place / "log").exists() else 0
    # a call that had all batches removes them as it ends
    ended = done.returncode == 0 or (before == BATCHES and len(list(place.glob("features/*/*.npz"))) < BATCHES)
    again, after = counted(adata, place)
    twice = max(0, before + after - BATCHES)
    left = [p.name for p in (place / "features").rglob("*") if p.is_file()]
    wrong = ""
    if not np.array_equal(again, fresh):
        wrong = "another result"
    elif twice > 1 and not ended:
        wrong = f"{before} batches were finished, and {after} of {BATCHES} were computed again"
    elif len(left) > 1 or any(not name.endswith(".part") for name in left):
        # the part of a file may be that of another process that is running, and goes after an hour
        wrong = f"left {left}"
    said = (
        "it had ended" if ended else "no batch was finished" if not before else f"found again, {twice} computed twice"
    )
    return Trial(said, wrong and f"{what}: {wrong}")


CAMPAIGN = Campaign("embed_images killed, found again", trials, bounded=2, long=60, posix=True)
