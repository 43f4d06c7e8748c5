"""Tiles that are read when they are indexed."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from spatialwhisperer._access.images import Level, RasterImage
from spatialwhisperer._access.sections.scale import Scale
from spatialwhisperer._access.sections.section import Section
from spatialwhisperer._access.tiles import lazy
from spatialwhisperer._access.tiles.lazy import LazyTiles
from spatialwhisperer._access.tiles.reader import TileReader

PX, SIZE = 40, 700


class Counting:
    """A chunked image that keeps the shape of each block that is read, and the threads that read."""

    def __init__(self, pixels: np.ndarray, chunk: int) -> None:
        self.pixels, self.shape, self.dtype = pixels, pixels.shape, pixels.dtype
        edge = [(chunk,) * (n // chunk) + ((n % chunk,) if n % chunk else ()) for n in pixels.shape[1:]]
        self.chunks = ((3,), *edge)
        self.blocks: list[tuple[int, ...]] = []
        self.threads: set[int] = set()

    def __getitem__(self, at: Any) -> np.ndarray:
        block = self.pixels[at]
        self.blocks.append(block.shape)
        self.threads.add(threading.get_ident())
        return block.copy()


def image(seed: int = 0, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (3, size, size), dtype=np.uint8)


def reader(pixels: Any, n: int = 30, seed: int = 0, um: float = PX, px: int = PX) -> TileReader:
    height, width = pixels.shape[1:]
    xy = np.random.default_rng(seed).uniform(-PX, max(width, height) + PX, (n, 2))
    raster = RasterImage("i", (Level(pixels, 1.0, 1.0),), (width, height))
    return TileReader(Section("s", np.arange(n), xy, raster, Scale(1.0, "test")), tile_um=um, tile_px=px)


def tiles_of(*readers: TileReader) -> LazyTiles:
    sizes = [len(r) for r in readers]
    return LazyTiles(readers, np.repeat(np.arange(len(sizes)), sizes), np.concatenate([np.arange(n) for n in sizes]))


def whole(one: TileReader) -> np.ndarray:
    out = np.zeros((len(one), 3, one.tile_px, one.tile_px), np.uint8)
    for at, tiles in one.read():
        out[at] = tiles
    return out


@pytest.mark.parametrize("kind", ["array", "dask", "chunks"])
@pytest.mark.parametrize(("um", "px"), [(PX, PX), (61, PX), (900, PX)])
def test_tiles_are_those_of_a_scan_in_any_order(kind: str, um: float, px: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import dask.array as da

    monkeypatch.setattr(lazy, "_BLOCK_PX", 100)
    pixels: Any = image()
    pixels = {"array": pixels, "dask": da.from_array(pixels, chunks=(3, 90, 130)), "chunks": Counting(pixels, 90)}[kind]
    one = reader(pixels, um=um, px=px)
    expected = whole(one)
    got = tiles_of(one)
    assert (len(got), got.shape, got.dtype) == (30, expected.shape, np.uint8)
    order = np.random.default_rng(1).integers(0, 30, 50)
    assert np.array_equal(got[order], expected[order])
    assert np.array_equal(got[3:9], expected[3:9])
    assert got[:0].shape == (0, 3, px, px)
    assert np.array_equal(got.picked(order)[np.array([4, 1])], expected[order[[4, 1]]])


def test_sections_are_joined_in_order() -> None:
    one, other = reader(image(0)), reader(image(1), n=9, seed=1)
    joined = LazyTiles.joined([tiles_of(one), tiles_of(other, one)])
    expected = np.concatenate([whole(one), whole(other), whole(one)])
    order = np.random.default_rng(0).permutation(len(expected))
    assert len(joined) == 69
    assert np.array_equal(joined[order], expected[order])


def test_blocks_that_are_read_are_bounded_and_decoded_once_while_they_are_kept() -> None:
    counting = Counting(image(size=2100), 300)
    tiles = tiles_of(reader(counting, n=60))
    for start in range(0, 60, 7):
        tiles[start : start + 7]
    assert max(np.prod(shape) for shape in counting.blocks) <= 3 * 600 * 600
    assert len(counting.blocks) <= 16
    before = len(counting.blocks)
    tiles[np.arange(60)[::-1]]
    assert len(counting.blocks) == before


def test_no_more_than_the_limit_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "CACHE_BYTES", 200_000)
    monkeypatch.setattr(lazy, "_BLOCK_PX", 100)
    one = reader(Counting(image(), 100))
    tiles = tiles_of(one)
    assert np.array_equal(tiles[:], whole(one))
    cache = tiles._sources[0].cache
    assert 0 < cache.held <= 200_000
    assert cache.held == sum(block.result().nbytes for block in cache._blocks.values())


def test_threads_share_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "_BLOCK_PX", 100)
    counting = Counting(image(), 100)
    one = reader(counting)
    expected, tiles = whole(one), tiles_of(one)
    counting.blocks.clear()
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda i: tiles[np.roll(np.arange(30), i)], range(24)))
    assert all(np.array_equal(part, np.roll(expected, i, axis=0)) for i, part in enumerate(parts))
    assert len(counting.blocks) <= 49


def test_an_error_in_a_block_reaches_every_thread_and_is_not_kept() -> None:
    class Broken(Counting):
        broken = True

        def __getitem__(self, at: Any) -> np.ndarray:
            if self.broken:
                raise OSError("the disk is gone")
            return super().__getitem__(at)

    pixels = Broken(image(), 100)
    tiles = tiles_of(reader(pixels))
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(lambda: tiles[:]) for _ in range(4)]:
            with pytest.raises(ValueError, match="the disk is gone"):
                done.result()
    pixels.broken = False
    assert len(tiles[:]) == 30


def test_the_calling_thread_decodes() -> None:
    """Threads of dask would be gone in a process that was forked."""
    import dask.array as da

    used: set[int] = set()

    def touch(block: np.ndarray) -> np.ndarray:
        used.add(threading.get_ident())
        return block

    pixels = da.from_array(image(), chunks=(3, 90, 90)).map_blocks(touch, meta=np.empty((0, 0, 0), np.uint8))
    tiles = tiles_of(reader(pixels))
    used.clear()
    tiles[:]
    assert used == {threading.get_ident()}


def test_the_digest_is_that_of_the_tiles_in_their_order() -> None:
    import dask.array as da

    pixels = image()
    one = tiles_of(reader(pixels), reader(image(1), seed=1))
    chunked = tiles_of(reader(da.from_array(pixels, chunks=(3, 90, 90))), reader(image(1), seed=1))
    assert one.digest() == chunked.digest()
    order = np.arange(60)[::-1]
    assert one.picked(order).digest() == chunked.picked(order).digest() != one.digest()
    assert (
        one.picked(np.array([3, 3])).digest()
        == one.picked(np.array([3, 3])).digest()
        != one.picked(np.array([3])).digest()
    )
    changed, first = pixels.copy(), int(np.flatnonzero(one.readers[0].inside == 1)[0])
    changed[1, one.readers[0].top[first] + PX // 2, one.readers[0].left[first] + PX // 2] ^= 64
    assert tiles_of(reader(changed), reader(image(1), seed=1)).digest() != one.digest()


def test_the_digest_reads_block_by_block() -> None:
    counting = Counting(image(size=2100), 300)
    tiles_of(reader(counting, n=60)).digest()
    assert max(np.prod(shape) for shape in counting.blocks) <= 3 * 2100 * 2100
    assert len(counting.blocks) <= 4


def test_another_process_gets_tiles_without_the_blocks() -> None:
    tiles = tiles_of(reader(Counting(image(), 100)))
    expected = tiles[:]
    copy = pickle.loads(pickle.dumps(tiles))
    assert copy._sources[0].cache.held == 0
    assert np.array_equal(copy[:], expected)
