"""Tiles per second of one epoch of training batches: our loader with threads, and torch's DataLoader with processes.

usage: python benchmarks/training_tiles.py [--size 8000] [--chunk 512] [--tiles 1000] [--tile-px 224] [--batch-size 64]
       [--cache-mib 512]

Makes a synthetic image in zarr in a temporary folder. Every epoch reads, augments and collates the same tiles in the same order; the model
is left out. Each loader makes its first epoch, in which processes start and blocks are decoded, and then the loaders run in turn, several
rounds, of which the best counts. The other part compares the augmentation alone with torchvision's transforms (v2), where torchvision is installed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import torch
import zarr
from torch.utils.data import DataLoader

from spatialwhisperer._access.images import Level, RasterImage
from spatialwhisperer._access.sections.scale import Scale
from spatialwhisperer._access.sections.section import Section
from spatialwhisperer._access.tiles import lazy
from spatialwhisperer._access.tiles.lazy import LazyTiles
from spatialwhisperer._access.tiles.reader import TileReader
from spatialwhisperer.encoders.base import Encoder
from spatialwhisperer.models.configuration.augmentation import Augmentation
from spatialwhisperer.training.augment import TileAugmenter
from spatialwhisperer.training.batches import ItemBatches, Items, ShuffledBatches
from spatialwhisperer.training.loader import BatchLoader

if TYPE_CHECKING:
    from collections.abc import Callable

COLOURS = Augmentation(stain_scale=0, stain_shift=0)
"""What torchvision can do too."""


class Tower(Encoder):
    def encode(self, inputs: Any, **options: Any) -> np.ndarray:
        raise NotImplementedError


def write_image(folder: Path, size: int, chunk: int) -> Path:
    """Smooth colours with grain: compresses about as badly as H&E does."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(90, 240, (3, size // 50 + 1, size // 50 + 1)).astype(np.uint8)
    pixels = coarse.repeat(50, axis=1).repeat(50, axis=2)[:, :size, :size]
    stored = zarr.create_array(str(folder / "image.zarr"), shape=pixels.shape, chunks=(3, chunk, chunk), dtype=np.uint8)
    stored[:] = pixels + rng.integers(0, 15, pixels.shape, dtype=np.uint8)
    return folder / "image.zarr"


def batches_of(path: Path, n: int, tile_px: int, size: int) -> ItemBatches:
    pixels = da.from_zarr(str(path))
    xy = np.random.default_rng(1).uniform(tile_px, size - tile_px, (n, 2))
    raster = RasterImage("i", (Level(pixels, 1.0, 1.0),), (size, size))
    section = Section("s", np.arange(n), xy, raster, Scale(1.0, "benchmark"))
    tiles = LazyTiles([TileReader(section, tile_um=tile_px, tile_px=tile_px)], np.zeros(n, int), np.arange(n))
    items = Items({"image": tiles}, {"image": np.arange(n)}, np.arange(n), np.zeros(n))
    return ItemBatches(items, {"image": Tower()}, augment={"image": TileAugmenter(Augmentation(), 0)})


def epoch(loader: Any) -> int:
    n = 0
    for batch in loader:
        n += len(batch["image"]["x"])
    return n


def best_rates(run: dict[str, Callable[[], int]], rounds: int = 3) -> dict[str, tuple[float, float]]:
    """Tiles per second of wall time and of the CPU time of this process, of the best of some rounds."""
    rates = dict.fromkeys(run, (0.0, 0.0))
    for _ in range(rounds):
        for name, one in run.items():
            before, start = os.times(), time.perf_counter()
            n = one()
            wall, after = time.perf_counter() - start, os.times()
            cpu = sum(after[:2]) - sum(before[:2])
            rates[name] = (max(rates[name][0], n / wall), max(rates[name][1], n / max(cpu, 0.01)))
    return rates


def show(title: str, rates: dict[str, tuple[float, float]]) -> None:
    print(title)
    for name, (wall, cpu) in rates.items():
        print(f"  {name:<34} {wall:8.0f} tiles/s {cpu:8.0f} per CPU second of this process")


def compare_loaders(options: argparse.Namespace) -> None:
    lazy.CACHE_BYTES = options.cache_mib * 2**20
    with tempfile.TemporaryDirectory() as temporary:
        path = write_image(Path(temporary), options.size, options.chunk)
        sampler = ShuffledBatches(options.tiles, options.batch_size, seed=0)

        def new() -> ItemBatches:
            return batches_of(path, options.tiles, options.tile_px, options.size)

        # processes that are forked hang where this one has read from zarr
        processes: dict[str, Any] = {"num_workers": 2, "multiprocessing_context": "spawn", "persistent_workers": True}
        loaders = {
            "this package, no thread": BatchLoader(new(), sampler),
            "this package, 1 thread": BatchLoader(new(), sampler, workers=1),
            "this package, 2 threads": BatchLoader(new(), sampler, workers=2),
            "torch's DataLoader, num_workers=0": DataLoader(new(), sampler=sampler, batch_size=None),
            "torch's DataLoader, num_workers=2": DataLoader(new(), sampler=sampler, batch_size=None, **processes),
        }
        run = {name: partial(epoch, loader) for name, loader in loaders.items()}
        what = f"{options.tiles} tiles of {options.tile_px} px, chunks of {options.chunk} px"
        show(f"first epoch of {what}", best_rates(run, rounds=1))
        show("later epochs", best_rates(run))


def compare_augmentation(options: argparse.Namespace) -> None:
    tiles = np.random.default_rng(0).integers(0, 255, (200, 3, options.tile_px, options.tile_px), dtype=np.uint8)
    numbers = np.arange(len(tiles))

    def ours(how: Augmentation) -> Callable[[], int]:
        return lambda: len(TileAugmenter(how, 0)(tiles, 0, numbers))

    run = {"this package, the same changes": ours(COLOURS), "this package, with stains too": ours(Augmentation())}
    try:
        from torchvision.transforms import v2
    except ImportError:
        print("torchvision is not installed")
    else:
        steps = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), v2.ColorJitter(0.1, 0.1, 0.1)]

        def theirs() -> int:
            change = v2.Compose(steps)
            for tile in torch.from_numpy(tiles):
                torch.rot90(change(tile), int(torch.randint(4, ())), (1, 2)).contiguous()
            return len(tiles)

        run["torchvision v2, one after the other"] = theirs
    torch.set_num_threads(1)
    for one in run.values():
        one()
    show("augmentation alone, one thread", best_rates(run, rounds=5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {"size": 8000, "chunk": 512, "tiles": 1000, "tile-px": 224, "batch-size": 64, "cache-mib": 512}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    compare_augmentation(options)
    compare_loaders(options)


if __name__ == "__main__":
    main()
