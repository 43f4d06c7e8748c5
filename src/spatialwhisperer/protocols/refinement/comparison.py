"""What the contrastive refinement of the preset "whisperer" gains over its closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialwhisperer.protocols.output import markdown, write_text
from spatialwhisperer.protocols.refinement.real import run_sections
from spatialwhisperer.protocols.refinement.simulated import run_worlds

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

SIZES = (300, 1000, 5000, 20000)
COLOURS = {"non-linear": "C0", "linear": "C1"}


def run(
    data: Path,
    out: Path,
    *,
    n_seeds: int = 3,
    sizes: tuple[int, ...] = SIZES,
    parts: tuple[str, ...] = ("sections", "worlds"),
    smoke: bool = False,
) -> None:
    """Run on sections and in worlds, and write ``refinement_sections.csv``, ``refinement_worlds.csv``, a table and a picture.

    Parameters
    ----------
    data
        Folder of the data.
    out
        Folder of the results.
    n_seeds
        Worlds of each kind and size.
    sizes
        Numbers of image–gene pairs in the worlds.
    parts
        "sections", "worlds", or both.
    smoke
        Take one split, and one small world of each kind.
    """
    text = []
    if "sections" in parts:
        table = run_sections(data, smoke=smoke)
        write_text(out / "refinement_sections.csv", table.to_csv(index=False))
        text.append(sections_report(table))
    if "worlds" in parts:
        seeds = list(range(1 if smoke else n_seeds))
        worlds = run_worlds([300] if smoke else list(sizes), list(COLOURS), seeds, out / "refinement_worlds")
        write_text(out / "refinement_worlds.csv", worlds.to_csv(index=False))
        text.append(worlds_report(worlds))
        draw(worlds).savefig(out / "refinement.png", dpi=110)
    write_text(out / "refinement.md", "\n\n".join(text) + "\n")
    print("\n\n".join(text))


def sections_report(table: pd.DataFrame) -> str:
    """Table of the splits with the mean as its last row."""
    gain = table["refined"] - table["closed_form"]
    shown = pd.DataFrame(
        {
            "test": table["test"],
            "closed form": table["closed_form"].map("{:.3f}".format),
            "refined": table["refined"].map("{:.3f}".format),
            "gain": gain.map("{:+.4f}".format),
            "steps": table["steps"].astype(str),
            "inner gain": [_signed(x) for x in table["inner_chosen"] - table["inner_first"]],
        }
    )
    shown.index = pd.Index(table["split"], name="split")
    mean = {
        "test": "mean",
        "closed form": f"{table['closed_form'].mean():.3f}",
        "refined": f"{table['refined'].mean():.3f}",
    }
    mean |= {"gain": f"{gain.mean():+.4f}", "steps": "", "inner gain": ""}
    return markdown(pd.concat([shown, pd.DataFrame([mean], index=["all"])]).rename_axis("split"))


def _signed(gain: float) -> str:
    return f"{gain:+.4f}" if np.isfinite(gain) else "–"


def worlds_report(table: pd.DataFrame) -> str:
    """Mean over seeds by world and number of pairs."""
    table = table.assign(gain=table["refined"] - table["closed_form"])
    rows = []
    for (world, n), part in table.groupby(["world", "pairs"], sort=False):
        rows.append(
            {
                "world": world,
                "pairs": f"{n:,}",
                "head": part["head"].iloc[0],
                "closed form": f"{part['closed_form'].mean():.3f}",
                "refined": f"{part['refined'].mean():.3f}",
                "gain": f"{part['gain'].mean():+.4f}",
                "lowest and highest gain": f"{part['gain'].min():+.4f}, {part['gain'].max():+.4f}",
                "kept": f"{int(part['kept'].sum())} of {len(part)}",
            }
        )
    return markdown(pd.DataFrame(rows).set_index("world"))


def draw(table: pd.DataFrame) -> Figure:
    """Gain over the closed form by the number of pairs: one point for each world, and a line through the means."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    axes.axhline(0, color="0.6", lw=1)
    for world, colour in COLOURS.items():
        part = table[table["world"] == world]
        gain = part["refined"] - part["closed_form"]
        axes.scatter(part["pairs"], gain, s=14, alpha=0.5, color=colour)
        means = gain.groupby(part["pairs"]).mean()
        axes.plot(means.index, means, color=colour, marker="o", label=f"{world} world")
    axes.set_xscale("log")
    sizes = sorted(set(table["pairs"]))
    axes.set_xticks(sizes, [f"{n:,}" for n in sizes])
    axes.minorticks_off()
    axes.set_xlabel("image–gene pairs of eight patients")
    axes.set_ylabel("gain in macro AUROC, new patients")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
