from __future__ import annotations

import numpy as np
import pytest

from spatialwhisperer.datasets._nuclei.tiles import count_tiles, find_nuclei
from spatialwhisperer.datasets.lizard import lizard
from spatialwhisperer.datasets.pannuke import pannuke


@pytest.mark.parametrize("always", [False, True])
def test_tiles_equal_a_naive_loop(always, masks, naive_tiles) -> None:
    for seed in range(5):
        instances, classes = masks((200, 260), 80, 6, seed)
        code = np.vectorize(lambda i, c=classes: c.get(i, 0))(instances)
        tiles = count_tiles(find_nuclei(instances, code), 6, tile_px=56, always_drop=always)
        got = {tuple(c): n for c, n in zip(tiles.cells.tolist(), tiles.counts, strict=True)}
        expected = naive_tiles(instances, lambda _, y, x, m=code: m[y, x], 6, 56, always=always)
        assert got.keys() == expected.keys()
        assert all((got[k] == expected[k]).all() for k in got)


def test_no_nuclei() -> None:
    nuclei = find_nuclei(np.zeros((4, 4), int), np.zeros((4, 4), int))
    assert not len(nuclei)
    assert not len(count_tiles(nuclei, 3, tile_px=2, always_drop=True).cells)


@pytest.mark.parametrize("reader", [lizard, pannuke])
def test_canvases_of_the_published_benchmark(tmp_path, reader, naive_tiles, assert_same, write_hdf) -> None:
    instances, code, _ = write_hdf(tmp_path / "batch_00000.hdf", coarse=False)
    images = reader(data_dir=tmp_path, tile_px=30)
    table = images["batch_00000"]["table"]
    n = len(images.classes)
    assert_same(table, naive_tiles(instances, lambda _, y, x: code[y, x], n, 30, always=False))
