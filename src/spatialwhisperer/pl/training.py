"""Losses of a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._checks.checked import checked
from spatialwhisperer.pl._drawing.canvas import given_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes

    from spatialwhisperer.models import Whisperer


REFINEMENT = "refinement"


@checked
def training(model: Whisperer, *, axes: Axes | Sequence[Axes] | None = None) -> list[Axes]:
    """Draw the losses of a training run, the mean of each epoch, one panel per phase.

    Dashed lines are losses of groups that were held out (``validation=`` of :func:`spatialwhisperer.tl.train`). The panel of a
    contrastive refinement shows what decides about it: how far the scores of the images agree with those of the genes in patients that
    were left out, after each number of steps. A model in closed form without a refinement has no steps: one panel shows the mean squared
    error that each of its links leaves, in training and in groups that were held out.

    Parameters
    ----------
    model
        A model fresh from :func:`spatialwhisperer.tl.train`.
    axes
        Axes to draw into, one per phase with steps; one for a model in closed form without a refinement.

    Returns
    -------
    The axes.

    Raises
    ------
    ValueError
        If the model has no history (an opened model has none), or there are too few axes.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections, reference = sw.datasets.simulate_sections(1, 60, n_genes=50, n_reference_cells=100, random_state=0)
    >>> tiles = sw.tl.ImageFeatures(tile_um=80, tile_px=64)
    >>> model = sw.tl.train([sections["P1"], reference], preset="spatialwhisperer", image=tiles, max_epochs=20)
    >>> axes = sw.pl.training(model)
    """
    history = getattr(model, "history", None)
    if history is None:
        raise TypeError(f"model must be a model that sw.tl.train returned, not {type(model).__name__}.")
    if history.empty:
        raise ValueError("This model has no training history; only a model returned by sw.tl.train has one.")
    # of a link in closed form no step is made
    phases = [name for name, part in history.groupby("phase", sort=False) if part["step"].any()]
    panels = _new_axes(len(phases) or 1) if axes is None else given_axes(axes, len(phases) or 1)
    if not phases:
        _draw_errors(panels[0], history)
        return panels
    for ax, phase in zip(panels, phases, strict=True):
        draw = _draw_agreement if phase == REFINEMENT else _draw
        draw(ax, history[history["phase"] == phase])
        ax.set_title(str(phase))
    return panels


def _new_axes(n: int) -> list[Axes]:
    import matplotlib.pyplot as plt

    _, grid = plt.subplots(1, n, figsize=(6 * n, 3.5), squeeze=False, layout="constrained")
    return list(grid.ravel())


def _draw_agreement(ax: Axes, part: pd.DataFrame) -> None:
    ax.plot(part["step"], part["agreement"], marker="o", ms=4, color="C0")
    ax.axhline(part["agreement"].iloc[0], color="0.6", ls=":", lw=1)
    ax.set_xlabel("step")
    ax.set_ylabel("agreement of image and genes\nin left-out patients or sections (AUROC)")
    ax.annotate("closed form", (part["step"].iloc[-1], part["agreement"].iloc[0]), ha="right", va="bottom", fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)


def _draw_errors(ax: Axes, links: pd.DataFrame) -> None:
    errors = {"training": links["loss"]}
    if "val_loss" in links:
        errors["held out"] = links["val_loss"]
    height = 0.5 if len(errors) == 1 else 0.35
    for number, (name, values) in enumerate(errors.items()):
        known = np.flatnonzero(values.notna())
        bars = ax.barh(known + number * height, values.iloc[known], height=height, color=f"C{number}", label=name)
        ax.bar_label(bars, fmt="%.2g", padding=3, fontsize=9)
    ax.set_yticks(np.arange(len(links)) + (len(errors) - 1) * height / 2, links["phase"].astype(str))
    if len(errors) > 1:
        ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.set_xlabel("mean squared error")
    ax.set_title("closed form")
    ax.spines[["top", "right"]].set_visible(False)


def _draw(ax: Axes, part: pd.DataFrame) -> None:
    columns = [c for c in part.columns.astype(str) if "loss" in c and part[c].notna().any()]
    pairs = [c for c in columns if "loss_" in c and not c.startswith("val_")]
    if len(pairs) == 1:
        # the whole loss is that of the only pair
        columns = [c for c in columns if "loss_" in c]
    colours: dict[str, str] = {}
    for column in columns:
        held_out = column.startswith("val_")
        name = column.removeprefix("val_").removeprefix("loss").strip("_").replace("_", "–") or "mean of the pairs"
        colour = colours.setdefault(name, f"C{len(colours)}")
        label = f"{name}, held out" if held_out else name
        style: dict[str, Any] = {"ls": "--" if held_out else "-", "lw": 2 if "–" not in name else 1.2}
        # held-out groups may be measured every few epochs, and NaN between them would leave no line
        drawn = part[part[column].notna()] if held_out else part
        # nor is one point a line
        marker = ("s" if held_out else "o") if len(drawn) == 1 else None
        ax.plot(drawn["step"], drawn[column], color=colour, label=label, marker=marker, **style)
    ax.locator_params(axis="x", integer=True, min_n_ticks=1)
    ax.set_xlabel("step")
    ax.set_ylabel("loss")
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    ax.spines[["top", "right"]].set_visible(False)
