"""Losses of a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from spatialwhisperer.models import Whisperer


def training(model: Whisperer, *, axes: list[Axes] | None = None) -> list[Axes]:
    """Draw the losses of a training run, one panel per phase.

    Parameters
    ----------
    model
        A model fresh from :func:`spatialwhisperer.tl.train`.
    axes
        Axes to draw into, one per phase with more than one epoch.

    Returns
    -------
    The axes.

    Raises
    ------
    ValueError
        If the model has no history (an opened model has none).

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections, reference = sw.datasets.simulate_sections(1, 60, n_genes=50, n_reference_cells=100, random_state=0)
    >>> model = sw.tl.train([sections["P1"], reference], max_epochs=20, tile_px=64)
    >>> axes = sw.pl.training(model)
    """
    history = model.history
    # a closed-form link has one row and no curve
    phases = [] if history.empty else [name for name, part in history.groupby("phase", sort=False) if len(part) > 1]
    if not phases:
        raise ValueError("This model has no training history; only a model returned by sw.tl.train has one.")
    if axes is None:
        import matplotlib.pyplot as plt

        _, grid = plt.subplots(1, len(phases), figsize=(5 * len(phases), 3.5), squeeze=False, layout="constrained")
        axes = list(grid.ravel())
    for ax, phase in zip(axes, phases, strict=True):
        part = history[history["phase"] == phase]
        for column in [c for c in part if "loss" in c and part[c].notna().any()]:
            held_out = column.startswith("val_")
            ax.plot(
                part["step"],
                part[column],
                label=column,
                ls="--" if held_out else "-",
                lw=2 if column.endswith("loss") else 1,
            )
        ax.set_xlabel("step")
        ax.set_ylabel("InfoNCE")
        ax.set_title(phase)
        ax.legend(frameon=False, fontsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    return axes
