"""The picture of the guard: how far rows and sections of each set lie from the training tissue, and where the limits are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from spatialwhisperer.models.reference import Reference

ROWS, SECTIONS = "#0072b2", "#d55e00"


@dataclass(frozen=True)
class Judged:
    """How one section compares with a reference.

    Attributes
    ----------
    rows, section
        Distances of its rows, shape (n,), and of the section; infinite where no row is on tissue.
    alone, abstain
        Fraction of the rows that are out of range by themselves, and that get no label.
    """

    rows: np.ndarray
    section: float
    alone: float
    abstain: float


def draw(distances: Mapping[str, list[Judged]], reference: Reference, path: Path) -> None:
    """Distances by set: rows from their 5 to their 95 % quantile with the median, sections as dots."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(distances)
    figure = Figure(figsize=(8, 0.34 * len(names) + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    for line, name in enumerate(names):
        rows = np.concatenate([part.rows for part in distances[name]])
        low, middle, high = np.nanquantile(rows, (0.05, 0.5, 0.95))
        ax.plot([low, high], [line - 0.12] * 2, color=ROWS, lw=4, alpha=0.4, solid_capstyle="butt")
        ax.plot(middle, line - 0.12, "|", color=ROWS, ms=9, mew=2)
        sections = [part.section for part in distances[name] if np.isfinite(part.section)]
        ax.scatter(sections, [line + 0.16] * len(sections), s=14, color=SECTIONS, lw=0, zorder=3)
    for limit, colour, what in (
        (reference.row_limit(), ROWS, "limit of rows"),
        (reference.image_limit(), SECTIONS, "limit of sections"),
    ):
        if limit is None:
            raise ValueError(f"The reference holds no {what}.")
        ax.axvline(limit, color=colour, lw=1, ls="--", label=what)
    ax.set_xscale("log")
    ax.set_xlim(0.5, 9)
    ticks = (0.5, 1, 2, 4, 8)
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set_xlabel("distance from the nearest training section, standard deviations")
    ax.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
