"""Tiles per second of random changes for training: ours, and torchvision's transforms tile by tile.

usage: python benchmarks/augmentation.py [--tiles 128] [--tile-px 224] [--repeats 5]

All mirror a tile, turn it by a right angle and change brightness, contrast, saturation and hue, uint8 to uint8. "torchvision v2" works on
tensors and "torchvision PIL" on images, one tile at a time as in a data set, which gives each tile its own numbers. Their hue takes a
detour over HSV, which ours does not. Ours with stains also changes the concentrations of both stains, which torchvision cannot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from _measure import OURS, arguments, compare, processor
from PIL import Image
from torchvision.transforms import v2

from spatialwhisperer.models.configuration.augmentation import Augmentation
from spatialwhisperer.training.augment import TileAugmenter

if TYPE_CHECKING:
    from collections.abc import Callable

COLOURS: dict[str, float] = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05}


def turns(tile: Any) -> Any:
    k = int(torch.randint(4, ()))
    return tile.rotate(90 * k) if isinstance(tile, Image.Image) else torch.rot90(tile, k, (-2, -1))


def main() -> None:
    args = arguments(__doc__, tiles=128, tile_px=224, repeats=5)
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 255, (args.tiles, 3, args.tile_px, args.tile_px), dtype=np.uint8)
    numbers = np.arange(args.tiles)
    shared: dict[str, Any] = {**COLOURS, "colour_probability": 1.0}
    ours = TileAugmenter(Augmentation(stain_scale=0.0, stain_shift=0.0, **shared), 0)
    stained = TileAugmenter(Augmentation(**shared), 0)
    theirs = v2.Compose(
        [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), v2.Lambda(turns), v2.ColorJitter(**COLOURS)]
    )
    tensors = torch.from_numpy(tiles)
    images = [Image.fromarray(tile) for tile in tiles.transpose(0, 2, 3, 1)]
    methods: dict[str, Callable[[], Any]] = {
        OURS: lambda: ours(tiles, 0, numbers),
        "torchvision v2": lambda: [theirs(tile) for tile in tensors],
        "torchvision PIL": lambda: [np.asarray(theirs(image)) for image in images],
        "ours with stains": lambda: stained(tiles, 0, numbers),
    }
    for method in methods.values():
        method()
    print(processor())
    path = f"augmentation, {args.tiles} tiles x {args.tile_px} px"
    compare(path, methods, items=args.tiles, unit="tiles", repeats=args.repeats, rows_file=args.rows_file)


if __name__ == "__main__":
    main()
