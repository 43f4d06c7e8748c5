"""A slide is told from another one of its name, and a copy of it is not."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from spatialwhisperer.cli.slides import content
from spatialwhisperer.cli.slides.content import content_digest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read of large files, a thousandth as large."""
    monkeypatch.setattr(content, "_BLOCK", 2**10)


def written(path: Path, kilobytes: int, seed: int = 0) -> Path:
    path.write_bytes(np.random.default_rng(seed).bytes(1024 * kilobytes))
    return path


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("kilobytes", [1, 64, 300])
def test_a_file_is_known_by_its_content(kilobytes: int, tmp_path: Path) -> None:
    path = written(tmp_path / "a.tif", kilobytes)
    first = content_digest(path)
    copied = tmp_path / "b.tif"
    shutil.copyfile(path, copied)
    os.utime(copied, (1, 1))
    assert content_digest(copied) == first
    assert content_digest(written(path, kilobytes, seed=1)) != first
    written(path, kilobytes)
    for place in (0, 1024 * kilobytes - 1):
        with path.open("r+b") as stream:
            stream.seek(place)
            byte = stream.read(1)[0]
            stream.seek(place)
            stream.write(bytes([byte ^ 1]))
        assert content_digest(path) != first
        written(path, kilobytes)
    path.write_bytes(path.read_bytes() + b"1")
    assert content_digest(path) != first
    assert content_digest(tmp_path / "none.tif") is None


@pytest.mark.usefixtures("small_blocks")
def test_a_store_is_known_by_its_files(tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    (store / "images").mkdir(parents=True)
    (store / "zarr.json").write_text('{"node_type": "group"}')
    chunks = [written(store / "images" / str(i), 40, seed=i) for i in range(5)]
    first = content_digest(store)
    copy = shutil.copytree(store, tmp_path / "b.zarr")
    for file in copy.rglob("*"):
        os.utime(file, (1, 1))
    (copy / ".DS_Store").write_bytes(b"1")
    assert content_digest(copy) == first
    (copy / "zarr.json").write_text('{"node_type": "Group"}')
    assert content_digest(copy) != first
    for chunk in chunks:
        before = chunk.read_bytes()
        written(chunk, 40, seed=9)
        assert content_digest(store) != first
        chunk.write_bytes(before)
    assert content_digest(store) == first
    chunks[1].rename(store / "images" / "7")
    assert content_digest(store) != first


@pytest.mark.usefixtures("small_blocks")
def test_little_is_read_of_a_large_slide(tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    store.mkdir()
    sizes = {written(store / f"{i}", 1 + i % 7): 1024 * (1 + i % 7) for i in range(300)}
    parts = list(content._parts(sorted(sizes, key=lambda file: (sizes[file], file)), sizes))
    assert sum(length for _, _, length in parts) <= 2 * 64 * 1024
    assert len({file for file, _, _ in parts}) > 64
