"""Tiles per second: our reader, spatialdata's ImageTilesDataset, and one slice of the zarr array per tile.

usage: python benchmarks/tiles.py [--size 6000] [--chunk 512] [--tiles 1000] [--tile-px 224] [--peer-tiles 200]
       python benchmarks/tiles.py --chunk 4096 --peer-tiles 40

Makes a synthetic slide in a temporary folder. The peers are slow, so they read the first --peer-tiles tiles only.
"""

from __future__ import annotations

import tempfile
import warnings
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import spatialdata as sd
import zarr
from _measure import OURS, arguments, compare, processor
from scipy.sparse import csr_matrix
from spatialdata.models import Image2DModel, ShapesModel, TableModel
from spatialdata.transformations import Identity

from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.tiles.reader import TileReader

if TYPE_CHECKING:
    from collections.abc import Callable


def picture(size: int) -> np.ndarray:
    """Smooth colours with grain: compresses about as badly as H&E does."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(90, 240, (3, size // 50 + 1, size // 50 + 1)).astype(np.uint8)
    smooth = coarse.repeat(50, axis=1).repeat(50, axis=2)[:, :size, :size]
    return smooth + rng.integers(0, 15, (3, size, size), dtype=np.uint8)


def write_slide(folder: Path, size: int, chunk: int, n: int, tile_px: int) -> Path:
    rng = np.random.default_rng(1)
    xy = rng.uniform(tile_px, size - tile_px, (n, 2))
    index = np.array([f"spot{i}" for i in range(n)])
    pixels = da.from_array(picture(size), chunks=(3, chunk, chunk))
    maps = {"global": Identity()}
    obs = pd.DataFrame({"region": pd.Categorical(["spots"] * n), "instance_id": index}, index=index)
    table = ad.AnnData(csr_matrix((n, 2), dtype=np.float32), obs=obs)
    slide = sd.SpatialData(
        images={"he": Image2DModel.parse(pixels, dims=("c", "y", "x"), transformations=dict(maps))},
        shapes={"spots": ShapesModel.parse(xy, geometry=0, radius=27.0, index=index, transformations=dict(maps))},
        tables={"table": TableModel.parse(table, region="spots", region_key="region", instance_key="instance_id")},
    )
    path = folder / "slide.zarr"
    slide.write(path)
    return path


def ours(path: Path, tile_px: int, n: int | None = None) -> Callable[[], int]:
    slide = sd.read_zarr(path)
    slide.tables["table"] = slide.tables["table"][:n].copy()
    (section,) = Slide.open(slide, mpp=1.0).scaled()

    def read() -> int:
        reader = TileReader(section, tile_um=tile_px, tile_px=tile_px)
        return sum(len(positions) for positions, _ in reader.read())

    return read


def decode(path: Path) -> Callable[[], int]:
    """Every chunk once and nothing else: the limit for any reader."""
    slide = sd.read_zarr(path)
    pixels, n = slide.images["he"].data, len(slide.shapes["spots"])

    def read() -> int:
        for row in range(pixels.numblocks[1]):
            pixels.blocks[:, row].compute(scheduler="threads")
        return n

    return read


def slices(path: Path, tile_px: int, n: int) -> Callable[[], int]:
    _, array = next(iter(zarr.open_group(path / "images" / "he", mode="r").arrays()))
    circles = sd.read_zarr(path).shapes["spots"].geometry.iloc[:n]
    corners = np.column_stack([circles.x, circles.y]).astype(int) - tile_px // 2

    def read() -> int:
        for x, y in corners.tolist():
            array[:, y : y + tile_px, x : x + tile_px]
        return len(corners)

    return read


def image_tiles_dataset(path: Path, tile_px: int, n: int) -> Callable[[], int]:
    from spatialdata.dataloader import ImageTilesDataset

    slide = sd.read_zarr(path)
    # it wants a table of exactly its shapes
    slide.shapes["spots"] = slide.shapes["spots"].iloc[:n]
    slide.tables["table"] = slide.tables["table"][:n].copy()
    dataset = ImageTilesDataset(
        slide,
        regions_to_images={"spots": "he"},
        regions_to_coordinate_systems={"spots": "global"},
        tile_dim_in_units=tile_px,
        table_name="table",
        transform=lambda tile: tile.images["he"].data.compute(),
    )

    def read() -> int:
        for k in range(len(dataset)):
            dataset[k]
        return len(dataset)

    return read


def main() -> None:
    args = arguments(__doc__, size=6000, chunk=512, tiles=1000, tile_px=224, peer_tiles=200, repeats=5)
    warnings.simplefilter("ignore")
    print(processor())
    print(f"spatialdata {sd.__version__}, zarr {zarr.__version__}")
    few = min(args.tiles, args.peer_tiles)
    with tempfile.TemporaryDirectory() as folder:
        with get_context("spawn").Pool(1) as pool:
            path = pool.apply(write_slide, (Path(folder), args.size, args.chunk, args.tiles, args.tile_px))
        readers = {
            OURS: ours(path, args.tile_px),
            "each chunk decoded once, no tiles": decode(path),
            "zarr slice per tile": slices(path, args.tile_px, few),
            "ImageTilesDataset": image_tiles_dataset(path, args.tile_px, few),
        }
        readers[OURS]()
        compare(
            f"tiles, {args.tiles} x {args.tile_px} px from {args.size} x {args.size}, chunks of {args.chunk}",
            readers,
            items=dict(zip(readers, (args.tiles, args.tiles, few, few), strict=True)),
            unit="tiles",
            repeats=args.repeats,
            rows_file=args.rows_file,
        )


if __name__ == "__main__":
    main()
