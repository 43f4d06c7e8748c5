from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spatialwhisperer._access.images import Level, RasterImage
from spatialwhisperer._access.sections.scale import Scale
from spatialwhisperer._access.sections.section import Section
from spatialwhisperer._access.tiles.reader import TileReader, block_edges


def section(xy: np.ndarray, raster: RasterImage | None, mpp: float | None = 1.0) -> Section:
    scale = None if mpp is None else Scale(mpp, "test")
    return Section("s", np.arange(len(xy)), xy, raster, scale)


def mean_over_cells(image: np.ndarray, x: float, y: float, size: float, n: int) -> np.ndarray:
    """Averages over n x n cells of a square around a place: integrals of a picture of flat pixels, which is white outside."""
    around = 8
    left, top = (int(at - size / 2) - around for at in (x, y))
    edge = int(size) + 2 * around + 1
    wide = np.full((3, edge, edge), 255.0)
    _, height, width = image.shape
    x0, x1, y0, y1 = max(left, 0), min(left + edge, width), max(top, 0), min(top + edge, height)
    if x1 > x0 and y1 > y0:
        wide[:, y0 - top : y1 - top, x0 - left : x1 - left] = image[:, y0:y1, x0:x1]

    def integrals(values: np.ndarray, centre: float) -> np.ndarray:
        sums = np.concatenate([np.zeros((*values.shape[:-1], 1)), values.cumsum(axis=-1)], axis=-1)
        edges = centre - size / 2 + size / n * np.arange(n + 1)
        low = np.floor(edges).astype(int)
        at = sums[..., low] + (edges - low) * values[..., low]
        return np.diff(at, axis=-1) * n / size

    return integrals(integrals(wide, x - left).swapaxes(1, 2), y - top).swapaxes(1, 2)


@pytest.mark.parametrize("chunk", [None, 100, 700, 2100])
def test_reader_cuts_any_tile_from_any_chunks(chunk: int | None) -> None:
    import dask.array as da

    rng = np.random.default_rng(0)
    for width, height, p, size in (
        (50, 3000, 30, 30),
        (4500, 700, 112, 224.3),
        (2500, 1300, 301, 300.7),
        (90, 80, 60, 200),
    ):
        image = rng.integers(0, 255, (3, height, width), dtype=np.uint8)
        reach = 1.2 * size
        xy = rng.uniform(-reach, max(width, height) + reach, (30, 2)).clip(-reach, [width + reach, height + reach])
        pixels = image if chunk is None else da.from_array(image, chunks=(3, chunk, chunk))
        raster = RasterImage("i", (Level(pixels, 1.0, 1.0),), (width, height))
        reader = TileReader(section(xy, raster), tile_um=size, tile_px=p)
        seen = np.zeros(30, int)
        for positions, got in reader.read():
            seen[positions] += 1
            for k, tile in zip(positions, got, strict=True):
                expected = mean_over_cells(image, float(xy[k, 0]), float(xy[k, 1]), size, p)
                assert np.abs(tile - expected).max() < 0.51, (width, height, k)
                first, last = xy[k] - size / 2, xy[k] + size / 2
                shown = (np.minimum(last, [width, height]) - np.maximum(first, 0)).clip(0)
                assert reader.inside[k] == pytest.approx(shown.prod() / size**2, abs=1e-5)
        assert (seen == 1).all()


def test_tiles_on_the_grid_of_the_pixels_are_the_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 255, (3, 200, 300), dtype=np.uint8)
    xy = np.array([[20.0, 20.0], [101.0, 93.0], [280.5, 180.5]])
    for p in (16, 17):
        reader = TileReader(section(xy, RasterImage("i", (Level(image, 1.0, 1.0),), (300, 200))), tile_um=p, tile_px=p)
        got = dict(pair for positions, tiles in reader.read() for pair in zip(positions.tolist(), tiles, strict=True))
        for k, (x, y) in enumerate(xy):
            left, top = x - p / 2, y - p / 2
            if left == int(left):
                assert np.array_equal(got[k], image[:, int(top) : int(top) + p, int(left) : int(left) + p])


@pytest.mark.parametrize("chunks", [(3, 512, 512), (3, 4096, 4096), (3, (300, 2900, 1800), (2000, 3000))])
def test_reader_decodes_each_chunk_once(chunks: Any) -> None:
    import dask.array as da

    counts: dict[Any, int] = {}

    def touch(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        place = tuple(block_info[0]["chunk-location"])
        counts[place] = counts.get(place, 0) + 1
        return block

    image = da.zeros((3, 5000, 5000), chunks=chunks, dtype=np.uint8)
    pixels = image.map_blocks(touch, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
    counts.clear()
    xy = np.random.default_rng(0).uniform(0, 5000, (800, 2))
    raster = RasterImage("i", (Level(pixels, 1.0, 1.0),), (5000, 5000))
    for _ in TileReader(section(xy, raster), tile_um=224, tile_px=224).read():
        pass
    assert set(counts.values()) == {1}
    assert len(counts) == pixels.npartitions


class Recorded:
    """An image that is all white and lies on no disk; it notes how much of it is read at a time."""

    dtype = np.dtype(np.uint8)

    def __init__(self, shape: tuple[int, ...], chunk: int | None) -> None:
        self.shape, self.reads = shape, [(0, 0)]
        if chunk is not None:
            self.chunks = tuple((chunk,) * (n // chunk) + ((n % chunk,) if n % chunk else ()) for n in shape)

    def __getitem__(self, box: tuple[slice, ...]) -> np.ndarray:
        _, y, x = box
        self.reads.append((y.stop - y.start, x.stop - x.start))
        return np.full((3, *self.reads[-1]), 255, np.uint8)


@pytest.mark.parametrize(("chunk", "largest"), [(None, 2048), (512, 2048), (1500, 3000), (20_000, 2048)])
def test_reader_never_reads_more_than_a_block(chunk: int | None, largest: int) -> None:
    """A slide of 15,000 pixels: whole chunks of it, at least 2,048 pixels, or parts of a chunk that is larger than 8,192."""
    pixels = Recorded((3, 15_000, 15_000), chunk)
    raster = RasterImage("i", (Level(pixels, 1.0, 1.0),), (15_000, 15_000))
    grid = np.stack(np.meshgrid(*[np.arange(100, 15_000, 700.0)] * 2), axis=-1).reshape(-1, 2)
    seen = sum(len(positions) for positions, _ in TileReader(section(grid, raster), tile_um=224, tile_px=56).read())
    assert seen == len(grid)
    assert np.max(pixels.reads) <= largest
    # and no fewer blocks than the image needs: the bound is met because of the blocks, not because little was read
    assert len(pixels.reads) - 1 == (-(-15_000 // largest)) ** 2


def test_reader_reads_the_tiles_that_are_asked_for() -> None:
    image = np.random.default_rng(0).integers(0, 255, (3, 90, 80), dtype=np.uint8)
    xy = np.array([[20.0, 20], [40, 50], [-500, 10], [60, 60]])
    reader = TileReader(section(xy, RasterImage("i", (Level(image, 1.0, 1.0),), (80, 90))), tile_um=20, tile_px=20)
    assert len(reader) == 4
    assert reader.inside.tolist() == [1, 1, 0, 1]
    got = {
        int(k): tile
        for positions, tiles in reader.read(np.array([3, 1, 2]))
        for k, tile in zip(positions, tiles, strict=True)
    }
    assert sorted(got) == [1, 2, 3]
    assert np.array_equal(got[1], image[:, 40:60, 30:50])
    # what lies outside is white
    assert (got[2] == 255).all()
    assert list(reader.read(np.empty(0, np.int64))) == []


def test_reader_needs_an_image_and_a_scale() -> None:
    xy = np.zeros((1, 2))
    raster = RasterImage("i", (Level(np.zeros((3, 9, 9), np.uint8), 1.0, 1.0),), (9, 9))
    for wrong in (section(xy, None), section(xy, raster, None)):
        with pytest.raises(ValueError, match="Section 's' needs an image and its microns per pixel"):
            TileReader(wrong, tile_um=3, tile_px=3)
    assert TileReader(section(xy, raster, None), tile_um=3, tile_px=3, mpp=0.5).cells.size == (6, 6)


def test_blocks_are_whole_chunks_and_hold_a_tile() -> None:
    assert block_edges(5000, None, 224).tolist() == [0, 2048, 4096, 5000]
    assert block_edges(5000, (512,) * 9 + (392,), 224).tolist() == [0, 2048, 4096, 5000]
    assert block_edges(100, (100,), 224).tolist() == [0, 100]
    assert np.diff(block_edges(20_000, (500,) * 40, 3000))[:-1].min() >= 3000
