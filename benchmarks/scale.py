"""How time and memory of the hot paths grow: log-log pictures with the exponents that fit them.

usage: python benchmarks/scale.py --out FOLDER [--seconds 60] [--paths scores loss retrieval tiles] [--repeats 3]        (make bench-scale)

- scores: scores, probabilities and best labels of 10⁴ to 10⁶ cells by 100 terms
- loss: a step of InfoNCE with 512 to 32,768 pairs, forwards and backwards
- retrieval: means over 50 neighbours for 200 queries in a bank of 10⁴ to 10⁶
- tiles: 10³ to 10⁵ tiles of 64 px from an image of 4,096 px in chunks of 512

A path gets --seconds: it ends before a size that would take longer, or more than half of the free memory. Each size runs --repeats times,
or until a tenth of the seconds is used; processor seconds are those of the quickest. Exponents are fitted by least squares to the larger half of the sizes, three at least,
because small sizes take what every call takes. Memory is what a call takes at most beyond what was held before, its result included.
Writes scale.png and scale.csv into the folder and prints a table.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import losses
import matplotlib as mpl
import matplotlib.ticker
import numpy as np
import pandas as pd
import retrieval
import scores
import tiles
import torch
from _measure import lines_of, measured, processor
from torch.nn import functional

from spatialwhisperer.networks.losses import contrastive
from spatialwhisperer.tl._annotation.scoring import best_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Call = Callable[[], Any]

DIM, TERMS, QUERIES, GENES, K = 128, 100, 200, 100, 50
EDGE_PX, CHUNK_PX, TILE_PX = 4096, 512, 64
FEWEST_MIB = 5.0
"""Below this, the memory of a call says nothing: the system hands it out in pages and pools."""


@dataclass(frozen=True)
class Growing:
    """A hot path, the sizes that it is run at, and what makes a call of a size."""

    unit: str
    sizes: tuple[int, ...]
    call: Callable[[int], Call]


def steps(least: int, most: int, factor: float) -> tuple[int, ...]:
    """Sizes from the least to the largest, each about so many times the one before."""
    n = round(np.log(most / least) / np.log(factor))
    return tuple(int(round(least * (most / least) ** (i / n))) for i in range(n + 1))


def unit_rows(n: int, dim: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, dim), dtype=np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


def scoring(n: int) -> Call:
    z, text = unit_rows(n, DIM, 0), unit_rows(TERMS, DIM, 1)
    return lambda: scores.ours(z, text, best_labels)


def loss_step(n: int) -> Call:
    torch.manual_seed(0)
    image, gene = (functional.normalize(torch.randn(n, 4 * DIM), dim=1) for _ in range(2))
    return losses.step(contrastive, image, gene)


def searching(n: int) -> Call:
    queries, keys = unit_rows(QUERIES, DIM, 0), unit_rows(n, DIM, 1)
    values = np.random.default_rng(2).random((n, GENES), dtype=np.float32)
    return lambda: retrieval.ours(queries, keys, values, K)


def reading(folder: Path, most: int) -> Callable[[int], Call]:
    @cache
    def slide() -> Path:
        # in a process of its own, whose memory is not counted
        with get_context("spawn").Pool(1) as pool:
            return pool.apply(tiles.write_slide, (folder, EDGE_PX, CHUNK_PX, most, TILE_PX))

    return lambda n: tiles.ours(slide(), TILE_PX, n)


def paths(folder: Path) -> dict[str, Growing]:
    return {
        "scores": Growing("cells", steps(10**4, 10**6, 10**0.5), scoring),
        "loss": Growing("pairs", steps(512, 32_768, 2), loss_step),
        "retrieval": Growing("keys", steps(10**4, 10**6, 10**0.5), searching),
        "tiles": Growing("tiles", steps(10**3, 10**5, 10**0.5), reading(folder, 10**5)),
    }


def grown(path: Growing, seconds: float, repeats: int) -> Iterator[dict[str, float]]:
    """Seconds and MiB of the calls of growing sizes, until the time or the memory does not last for the next one."""
    # what is compiled, imported or written once is not measured
    path.call(path.sizes[0])()
    start = time.perf_counter()
    before: list[tuple[float, float]] = []
    for size in path.sizes:
        began = time.perf_counter()
        call = path.call(size)
        runs = [measured(call)[1]]
        while len(runs) < repeats and time.perf_counter() - began < seconds / 10:
            runs.append(measured(call)[1])
        del call
        row = {
            "size": size,
            "cpu_s": min(run.cpu for run in runs),
            "wall_s": min(run.wall for run in runs),
            "mib": max(run.mib for run in runs),
        }
        print(f"  {row}", flush=True)
        yield row
        before = [*before[-1:], (time.perf_counter() - began, row["mib"])]
        took, held = (b * min(max(1.0, b / max(a, 0.01)), 10.0) for a, b in zip(before[0], before[-1], strict=True))
        if time.perf_counter() - start + took > seconds or held > free_mib() / 2:
            return


def free_mib() -> float:
    found = [line for line in lines_of("/proc/meminfo") if line.startswith("MemAvailable")]
    return int(found[0].split()[1]) / 1024 if found else float("inf")


def fit(rows: pd.DataFrame, what: str) -> tuple[float, float]:
    """Slope and offset of the logarithms over the larger half of the sizes; NaN where there are fewer than three, or hardly any memory."""
    half = rows.nlargest(max(3, (len(rows) + 1) // 2), "size")
    if len(half) < 3 or what == "mib" and half["mib"].max() < FEWEST_MIB:
        return float("nan"), float("nan")
    slope, offset = np.polyfit(np.log(half["size"]), np.log(half[what].clip(lower=1e-9)), 1)
    return float(slope), float(offset)


def draw(table: pd.DataFrame, units: dict[str, str], file: Path) -> None:
    import matplotlib.pyplot as plt

    size = (3.4 * len(units), 6)
    figure, axes = plt.subplots(2, len(units), figsize=size, squeeze=False, sharex="col", layout="constrained")
    for column, (name, unit) in enumerate(units.items()):
        rows = table[table["path"] == name]
        for ax, what, label in zip(axes[:, column], ("cpu_s", "mib"), ("processor seconds", "MiB"), strict=True):
            panel(ax, rows, what)
            ax.set_title(f"{name}, {label}", fontsize=10)
            ax.set_xlabel(unit)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def panel(ax: Any, rows: pd.DataFrame, what: str) -> None:
    values = rows[what].clip(lower=0.1 if what == "mib" else 1e-9)
    ax.loglog(rows["size"], values, "o", color="C0")
    slope, offset = fit(rows, what)
    if np.isfinite(slope):
        ax.loglog(
            rows["size"], np.exp(offset) * rows["size"] ** slope, "--", color="0.5", label=f"exponent {slope:.2f}"
        )
        ax.legend(fontsize=9, loc="upper left")
    # whole decades, so that a slope looks alike in all panels and labels have room
    for limits, found in ((ax.set_xlim, rows["size"]), (ax.set_ylim, values)):
        limits(10 ** np.floor(np.log10(found.min())) * 0.7, 10 ** np.ceil(np.log10(found.max())) * 1.4)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_formatter(mpl.ticker.NullFormatter())
    ax.grid(alpha=0.3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(paths(Path()))
    parser.add_argument("--out", type=Path, required=True, help="folder of the picture and the table")
    parser.add_argument("--seconds", type=float, default=60, help="for each path")
    parser.add_argument("--paths", nargs="+", choices=names, default=names)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    mpl.use("agg")
    warnings.simplefilter("ignore")
    print(processor())
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        chosen = {name: path for name, path in paths(Path(folder)).items() if name in args.paths}
        rows = []
        for name, path in chosen.items():
            print(name)
            rows += [{"path": name, **row} for row in grown(path, args.seconds, args.repeats)]
    table = pd.DataFrame(rows)
    table.to_csv(args.out / "scale.csv", index=False)
    draw(table, {name: path.unit for name, path in chosen.items()}, args.out / "scale.png")
    print("\n| path | sizes | processor seconds | exponent | MiB | exponent of MiB |\n" + "|" + " --- |" * 6)
    for name, path in chosen.items():
        mine = table[table["path"] == name]
        first, last = mine.iloc[0], mine.iloc[-1]
        ends = [f"{first[what]:.3g} to {last[what]:.3g}" for what in ("cpu_s", "mib")]
        sizes = f"{first['size']:,.0f} to {last['size']:,.0f} {path.unit}"
        print(f"| {name} | {sizes} | {ends[0]} | {fit(mine, 'cpu_s')[0]:.2f} | {ends[1]} | {fit(mine, 'mib')[0]:.2f} |")


if __name__ == "__main__":
    main()
