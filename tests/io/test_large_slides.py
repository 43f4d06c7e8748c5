"""Slides that do not fit into memory."""

from __future__ import annotations

import pickle
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

import spatialwhisperer as sw
from tests.io.conftest import mpp_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pyramid of 100,000 x 100,000 pixels whose tiles are left out, but for two of each level."""
    path = tmp_path_factory.mktemp("huge") / "huge.tif"

    def tiles(size: int) -> Any:
        n = -(-size // 1024)
        for i in range(n * n):
            there = i in (0, (n // 2) * n + n // 2)
            yield np.full((1024, 1024, 3), 200, np.uint8) if there else None

    options: dict[str, Any] = {"tile": (1024, 1024), "photometric": "rgb", "dtype": "uint8", "compression": "zlib"}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        sizes = [100_000 // 4**k for k in range(4)]
        resolution: dict[str, Any] = {"resolution": (40_000, 40_000), "resolutionunit": 3}  # per cm
        file.write(tiles(sizes[0]), shape=(sizes[0], sizes[0], 3), subifds=3, **options, **resolution)
        for size in sizes[1:]:
            file.write(tiles(size), shape=(size, size, 3), subfiletype=1, **options)
    return path


def test_a_large_pyramid_opens_at_once_and_is_never_read_whole(huge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spatialwhisperer.io._formats.tiff import TiffPixels

    reads: list[int] = []
    read = TiffPixels.read

    def counting(self: TiffPixels, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        reads.append((bottom - top) * (right - left))
        return read(self, top, bottom, left, right)

    monkeypatch.setattr(TiffPixels, "read", counting)
    start = time.process_time()
    sdata = sw.io.read_slide(huge)
    assert time.process_time() - start < 1
    assert not reads
    tree: Any = sdata["huge"]
    assert [tree[level]["image"].shape[1] for level in tree] == [100_000, 25_000, 6_250, 1_562]
    assert mpp_of(sdata) == pytest.approx(0.25)
    level = tree["scale0"]["image"]
    block = level.data[:, 50_200:50_300, 50_200:50_400].compute()
    assert block.shape == (3, 100, 200)
    assert (block == 200).all()
    assert sum(reads) == 100 * 200
    grid = sw.pp.tiles(sdata, tile_um=256, at="grid", tissue=np.ones((1000, 1000), bool), inplace=False)
    assert grid is not None
    assert grid.n_obs == 97**2
    assert sum(reads) == 100 * 200


def test_levels_can_be_sent_to_another_process(slide_file: Path) -> None:
    element: Any = sw.io.read_slide(slide_file)["slide"]
    copy = pickle.loads(pickle.dumps(element.data))
    np.testing.assert_array_equal(copy[:, 10:20, 30:50].compute(), element.data[:, 10:20, 30:50].compute())
