"""Seconds for a picture of very many cells: `sw.pl.annotation`, and matplotlib's scatter of the same marks.

usage: python benchmarks/pictures.py [--cells 1000000] [--rounds 3] [--out FILE.png]

Makes cells at random places of a small picture, with one of five labels and a confidence. Both are run in turn, several
rounds, and the best round counts. A round makes the figure and writes a PNG.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd

import spatialwhisperer as sw

if TYPE_CHECKING:
    from collections.abc import Callable

EDGE_PX = 2000


def cells(n: int) -> ad.AnnData:
    """Cells with labels and confidences on a slide of one colour with grain."""
    rng = np.random.default_rng(0)
    names = [f"type {i}" for i in range(5)]
    obs = pd.DataFrame(
        {
            "sw_label": pd.Categorical(rng.choice(names, n), names),
            "sw_label_confidence": rng.random(n).astype(np.float32),
        },
        index=[f"cell{i}" for i in range(n)],
    )
    table = ad.AnnData(obs=obs)
    table.obsm["spatial"] = rng.uniform(0, EDGE_PX, (n, 2))
    pixels = rng.integers(180, 230, (EDGE_PX, EDGE_PX, 3), dtype=np.uint8)
    table.uns["spatial"] = {"slide": {"images": {"fullres": pixels}, "scalefactors": {"microns_per_pixel": 0.5}}}
    return table


def ours(table: ad.AnnData, file: Path) -> None:
    sw.pl.annotation(table)[0].figure.savefig(file)


def scatter(table: ad.AnnData, file: Path) -> None:
    """The same two panels with one scatter of all cells."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.3))
    for ax in axes:
        ax.imshow(table.uns["spatial"]["slide"]["images"]["fullres"])
    palette = mpl.colors.to_rgba_array([f"C{i}" for i in range(5)])
    colours = palette[table.obs["sw_label"].cat.codes]
    colours[:, 3] = table.obs["sw_label_confidence"]
    axes[1].scatter(*table.obsm["spatial"].T, s=1, c=colours, linewidths=0)
    figure.savefig(file)


def seconds(draw: Callable[[ad.AnnData, Path], None], table: ad.AnnData, file: Path) -> float:
    import matplotlib.pyplot as plt

    start = time.perf_counter()
    draw(table, file)
    plt.close("all")
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="keep our picture")
    asked = parser.parse_args()
    mpl.use("agg")
    sw.settings.verbose = False
    table = cells(asked.cells)
    best = dict.fromkeys(("sw.pl.annotation", "matplotlib scatter"), np.inf)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(asked.rounds):
            for name, draw in zip(best, (ours, scatter), strict=True):
                file = asked.out if asked.out and draw is ours else Path(folder) / "picture.png"
                best[name] = min(best[name], seconds(draw, table, file))
    for name, value in best.items():
        print(f"{name:20} {value:6.2f} s")
    print(f"ratio {best['matplotlib scatter'] / best['sw.pl.annotation']:.2f}")


if __name__ == "__main__":
    main()
