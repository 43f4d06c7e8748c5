"""Tiles per second of image encoders on a CPU: ours as the processor offers it, ours in float32, and the network in plain float32.

usage: python benchmarks/image_encoders.py [--names resnet50 vit_small_patch16_224 densenet121] [--tiles 16] [--repeats 3] [--compiled 0]

Networks have random weights: the time does not depend on them. "plain float32" is the network on tiles that are normalised before, without
anything else. ``--compiled 1`` adds ours with ``settings.compile``, which takes minutes for each network. Where OpenVINO is installed (the extra
`openvino`), ours with ``settings.backend = "openvino"`` is there too. Prints the smallest cosine of the
features of a tile to those in float32, which is to be 0.999 or more.
"""

from __future__ import annotations

import time
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from _measure import OURS, arguments, compare, processor

import spatialwhisperer as sw
from spatialwhisperer.encoders.image.timm import TimmEncoder

if TYPE_CHECKING:
    from collections.abc import Callable

EDGE_PX, LEAST_COSINE = 224, 0.999


def pictures(n: int) -> np.ndarray:
    """Waves with grain: features of noise alone are nearly the same for all tiles."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:EDGE_PX, :EDGE_PX]
    waves = np.stack([127 + 100 * np.sin(x / rng.uniform(5, 40) + y / rng.uniform(5, 40)) for _ in range(3 * n)])
    tiles = waves.reshape(n, 3, EDGE_PX, EDGE_PX) + rng.normal(0, 10, (n, 3, EDGE_PX, EDGE_PX))
    return tiles.clip(0, 255).astype(np.uint8)


def main() -> None:
    args = arguments(
        __doc__, names=["resnet50", "vit_small_patch16_224", "densenet121"], tiles=16, repeats=3, compiled=0
    )
    tiles = pictures(args.tiles)
    print(processor())
    for name in args.names:
        torch.manual_seed(0)
        encoder = TimmEncoder(name, pretrained=False)
        normalised = torch.from_numpy(tiles).float() / 255 * 2 - 1

        def ours(encoder: TimmEncoder = encoder, **settings: Any) -> np.ndarray:
            with sw.settings.override(batch_size=args.tiles, **settings):
                return encoder.encode(tiles, mpp=0.5, device="cpu")

        def plain(encoder: TimmEncoder = encoder, x: torch.Tensor = normalised) -> torch.Tensor:
            with torch.inference_mode():
                return encoder.network(x)

        path = f"image encoder {name}, {args.tiles} tiles x {EDGE_PX} px"
        auto = partial(ours, precision="auto")
        found = _compared(
            path, auto, {"plain float32": plain, "ours in float32": partial(ours, precision="float32")}, args
        )
        exact = found["ours in float32"]
        _check(name, found[OURS], exact)
        others: dict[str, dict[str, Any]] = {"compiled": {"compile": True}} if args.compiled else {}
        if find_spec("openvino"):
            others["OpenVINO"] = {"backend": "openvino"}
        for how, options in others.items():
            peers: dict[str, Callable[[], Any]] = {"plain float32": plain, "ours by default": auto}
            found = _compared(f"{path}, {how}", partial(auto, **options), peers, args)
            _check(f"{name}, {how}", found[OURS], exact)


def _compared(path: str, ours: Callable[[], Any], peers: dict[str, Callable[[], Any]], args: Any) -> dict[str, Any]:
    methods = {OURS: ours, **peers}
    for method in methods.values():
        start = time.perf_counter()
        method()
        print(f"  first call {time.perf_counter() - start:.0f} s", end="")
    return compare(path, methods, items=args.tiles, unit="tiles", repeats=args.repeats, rows_file=args.rows_file)


def _check(name: str, fast: np.ndarray, exact: np.ndarray) -> None:
    cosine = (fast * exact).sum(axis=1) / np.linalg.norm(fast, axis=1) / np.linalg.norm(exact, axis=1)
    print(f"  smallest cosine to float32: {cosine.min():.5f}")
    if cosine.min() < LEAST_COSINE:
        raise SystemExit(f"{name}: the cosine to float32 is below {LEAST_COSINE}.")


if __name__ == "__main__":
    main()
