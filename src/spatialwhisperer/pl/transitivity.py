"""The transitivity report as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._checks.checked import checked
from spatialwhisperer._messages import listing
from spatialwhisperer.pl._drawing.canvas import GREY

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from matplotlib.axes import Axes

_SCALED = {
    "transitive_consistency": ("transitive consistency", 0.5),
    "coverage": ("coverage", None),
    "label_kappa": ("same best label (kappa)", 0.0),
    "image_gene_rank": ("image finds its expression", 0.5),
    "gene_text_rank": ("expression finds its caption", 0.5),
    "bridge_auroc": ("classifier separates it from training", 0.5),
    "bridge_mixing": ("mixed with training rows", 1.0),
    "image_coverage": ("tiles like training tiles", None),
    "largest_hub": ("rows of the largest hub", None),
}
"""Quantities between 0 and 1, how the picture calls them, and what chance (for mixing: no difference) gives."""

_HEADLINES = 2
_BLUE, _GREEN, _DARK = "#4c72b0", "#55a868", "#333333"
_MOST_LABELS = 30


@checked
def transitivity(report: pd.DataFrame) -> list[Axes]:
    """Draw what :func:`spatialwhisperer.tl.transitivity` found.

    Parameters
    ----------
    report
        What it returned, with its ``.attrs``.

    Returns
    -------
    The axes of the panels that the report allows: quantities between 0 and 1 with their intervals (the headlines in colour; a
    tick is what chance gives); agreement of image and expression by label; distance of the expression to the nearest training
    row, beside that of training rows to other patients; distances between the labels.

    Raises
    ------
    KeyError
        If the frame is no report, or has lost its ``.attrs``.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> genes = sw.models.default_model().encoders["gene"].genes
    >>> section = sw.datasets.simulate_sections(
    ...     1, 60, n_genes=len(genes), n_reference_cells=50, random_state=0
    ... ).sections["P1"]
    >>> section["table"].var_names = genes
    >>> report = sw.tl.transitivity(section)
    >>> len(sw.pl.transitivity(report))
    4
    """
    if "transitive_consistency" not in report.index or "classes" not in report.attrs:
        raise KeyError(
            f"This is no transitivity report with its .attrs (rows: {listing(report.index, 4)}). Pass what sw.tl.transitivity "
            "returned."
        )
    import matplotlib.pyplot as plt
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    details = report.attrs
    drawn: list[tuple[Callable[[Axes, Any], None], Any]] = [(_quantities, report)]
    if np.isfinite(details.get("class_auroc", [])).any():
        drawn.append((_classes, details))
    if "bridge" in details:
        drawn.append((_bridge, details["bridge"]))
    drawn.append((_prompts, details))
    columns = 2
    lines = -(-len(drawn) // columns)
    n_labels = min(len(details["classes"]), _MOST_LABELS)
    height = max(3.6, 0.24 * n_labels + 1.4)
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    _, grid = plt.subplots(lines, columns, figsize=(12.5, height * lines), squeeze=False, layout=layout)
    axes = list(grid.ravel())
    for ax, (draw, what) in zip(axes, drawn, strict=False):
        draw(ax, what)
    for ax in axes[len(drawn) :]:
        ax.remove()
    return axes[: len(drawn)]


def _quantities(ax: Axes, report: pd.DataFrame) -> None:
    shown = [name for name in _SCALED if name in report.index]
    at = np.arange(len(shown))[::-1]
    for y, name in zip(at, shown, strict=True):
        label, chance = _SCALED[name]
        row = report.loc[name]
        headline = list(_SCALED).index(name) < _HEADLINES
        colour = _BLUE if headline else _DARK
        ax.axhline(y, color="#eeeeee", lw=0.8, zorder=0)
        if chance is not None:
            ax.plot([chance] * 2, [y - 0.3, y + 0.3], color=GREY, lw=1.5, zorder=1)
        if not np.isfinite(row["value"]):
            ax.text(0.02, y, "untestable on these data", va="center", fontsize=8, color="#a33", style="italic")
            continue
        if np.isfinite(row["low"]):
            ax.plot(
                [row["low"], row["high"]],
                [y, y],
                color=colour,
                lw=5 if headline else 2.5,
                alpha=0.35,
                solid_capstyle="butt",
            )
        ax.plot(row["value"], y, "o", color=colour, ms=8 if headline else 5)
        ax.text(1.16, y, f"{row['value']:.2f}", va="center", ha="right", fontsize=8, color=colour)
    ax.set_yticks(at, [_SCALED[name][0] for name in shown], fontsize=8.5)
    for tick, name in zip(ax.get_yticklabels(), shown, strict=True):
        if list(_SCALED).index(name) < _HEADLINES:
            tick.set_fontweight("bold")
    low = min([0.0, *report.loc[shown, "low"].dropna(), *report.loc[shown, "value"].dropna()])
    ax.set_xlim(low - 0.03, 1.18)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1])
    ax.set_ylim(-0.7, len(shown) - 0.3)
    ax.tick_params(axis="x", labelsize=8)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("value with 95 % interval; grey tick: chance, or no difference", fontsize=8)
    ax.set_title("Can labels be transferred here?", fontsize=10, loc="left")
    ax.spines[["top", "right", "left"]].set_visible(False)


def _classes(ax: Axes, details: dict[str, Any]) -> None:
    value, low, high = (np.array(details[k], dtype=float) for k in ("class_auroc", "class_low", "class_high"))
    known = np.flatnonzero(np.isfinite(value))
    order = known[np.argsort(value[known], kind="stable")]
    n_known = len(order)
    order = order[-_MOST_LABELS:]
    at = np.arange(len(order))
    colours = [_GREEN if low[i] > 0.5 else GREY for i in order]
    ax.barh(at, value[order] - 0.5, left=0.5, height=0.62, color=colours)
    for y, i in zip(at, order, strict=True):
        if np.isfinite(low[i]):
            ax.plot([low[i], high[i]], [y, y], color=_DARK, lw=1)
    names = [f"{details['classes'][i]} ({details['class_rows'][i]})" for i in order]
    ax.set_yticks(at, names, fontsize=8)
    ax.axvline(0.5, color=_DARK, lw=0.8)
    ax.set_xlim(max(0.0, min(0.3, float(np.nanmin([*low[order], *value[order]])) - 0.02)), 1.02)
    ax.set_ylim(-0.7, len(order) - 0.3)
    ax.tick_params(labelsize=8)
    left = len(value) - n_known
    more = f"; {left} labels with too few rows" if left else ""
    ax.set_xlabel(f"AUROC (rows with the label by expression in brackets{more})", fontsize=8)
    ax.set_title("Does the image agree with the expression? By label", fontsize=10, loc="left")
    ax.spines[["top", "right"]].set_visible(False)


def _bridge(ax: Axes, bridge: dict[str, list[float]]) -> None:
    data, training = np.array(bridge["data"]), np.array(bridge["training"])
    edges = np.linspace(0, max(data.max(), training.max()) * 1.02 + 1e-6, 41)
    for values, colour, label in (
        (training, GREY, "training rows, to other patients"),
        (data, _BLUE, "these rows, to any training row"),
    ):
        weights = np.full(len(values), 100 / len(values))
        ax.hist(values, edges.tolist(), weights=weights, color=colour, alpha=0.55, label=label)
        ax.axvline(np.median(values), ymax=0.8, color=colour, lw=1.5)
    ax.set_ylim(0, 1.25 * ax.get_ylim()[1])  # room for the legend
    ax.set_xlabel("1 - cosine to the nearest training row with a caption", fontsize=8)
    ax.set_ylabel("% of rows", fontsize=8)
    ax.tick_params(labelsize=8)
    ax.legend(frameon=False, fontsize=8)
    ax.set_title("Does the expression overlap with the training?", fontsize=10, loc="left")
    ax.spines[["top", "right"]].set_visible(False)


def _prompts(ax: Axes, details: dict[str, Any]) -> None:
    distance = np.array(details["prompt_distance"])[:_MOST_LABELS, :_MOST_LABELS]
    names = details["classes"][:_MOST_LABELS]
    masked = np.where(np.eye(len(names), dtype=bool), np.nan, distance)
    picture = ax.imshow(masked, cmap="viridis", vmin=0, vmax=max(float(np.nanmax(masked)), 1e-6))
    if len(names) <= 14:
        middle = np.nanmax(masked) * 0.6
        for i, j in zip(*np.where(np.isfinite(masked)), strict=True):
            colour = "white" if masked[i, j] < middle else _DARK
            ax.text(j, i, f"{masked[i, j]:.1f}", ha="center", va="center", fontsize=6.5, color=colour)
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=7.5)
    ax.set_yticks(range(len(names)), names, fontsize=7.5)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    bar = ax.figure.colorbar(picture, ax=ax, shrink=0.8, pad=0.02)
    bar.ax.tick_params(labelsize=7.5)
    bar.outline.set_visible(False)
    more = f" (first {_MOST_LABELS} of {len(details['classes'])})" if len(details["classes"]) > _MOST_LABELS else ""
    ax.set_title(f"How far apart are the labels?{more}", fontsize=10, loc="left")
