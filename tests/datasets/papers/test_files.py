from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from spatialwhisperer.datasets.papers.files import PublishedFiles, unpacked
from tests.datasets.papers import files

if TYPE_CHECKING:
    from pathlib import Path


def test_the_unpacked_file_counts_and_two_are_an_error(tmp_path: Path) -> None:
    found = PublishedFiles.of(tmp_path, "the page")
    assert found.find(["a_*.txt"]) is None
    for name in ("a_1.txt", "b/a_1.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    files.pack(tmp_path / "b" / "a_1.txt")
    assert found.find(["c.txt", "a_*.txt"]) == tmp_path / "a_1.txt"
    (tmp_path / "a_2.txt").write_text("x")
    with pytest.raises(ValueError, match="2 files a_"):
        found.find(["a_*.txt"])


def test_an_image_is_unpacked_once_and_again_when_it_changed(tmp_path: Path) -> None:
    source = tmp_path / "image.tif"
    source.write_bytes(b"first")
    assert unpacked(source, tmp_path / "cache") == source
    files.pack(source)
    packed = tmp_path / "image.tif.gz"
    target = unpacked(packed, tmp_path / "cache")
    assert target.read_bytes() == b"first"
    stamp = target.stat().st_mtime_ns
    assert unpacked(packed, tmp_path / "cache").stat().st_mtime_ns == stamp
    # another file of the same name, which is older than what was unpacked
    (tmp_path / "image.tif").write_bytes(b"second")
    files.pack(tmp_path / "image.tif")
    os.utime(packed, (1e9, 1e9))
    assert unpacked(packed, tmp_path / "cache").read_bytes() == b"second"
    packed.write_bytes(b"no gzip")
    with pytest.raises(ValueError, match="cannot be opened"):
        unpacked(packed, tmp_path / "cache")
    assert {p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()} == {"image.tif"}
