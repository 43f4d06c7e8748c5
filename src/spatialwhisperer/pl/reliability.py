"""Confidence of the labels against their accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import listing
from spatialwhisperer.pl._drawing import canvas
from spatialwhisperer.statistics.calibration import N_BINS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

BLUE, RED = "#3b6fb6", "#c8453b"
_COLUMNS = ("low", "high", "confidence", "accuracy", "n")


@shared
@checked
def reliability(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData] | pd.DataFrame,
    truth: str | pd.DataFrame | Sequence[str | pd.DataFrame] | None = None,
    *,
    key: str = _keys.LABEL,
    mapping: Mapping[Any, str | Sequence[str]] | None = None,
    n_bins: int = N_BINS,
    table_key: str | None = None,
    axes: Axes | Sequence[Axes] | None = None,
) -> list[Axes]:
    """Draw a reliability diagram: accuracy by confidence, and the number of rows by confidence.

    A bar that ends below the diagonal belongs to rows whose confidence is higher than their accuracy. The red part of a bin is the
    distance between its accuracy and its mean confidence; its mean over the rows is the expected calibration error.

    Parameters
    ----------
    data
        Annotated by :func:`spatialwhisperer.tl.zero_shot_annotate`, one object or several; or the result of
        :func:`spatialwhisperer.tl.evaluate_calibration`.
    truth, key, mapping, n_bins
        As in :func:`spatialwhisperer.tl.evaluate_calibration`; not with its result.
    %(table_key)s
    axes
        Two axes to draw into.

    Returns
    -------
    The axes: the diagram, and below it the number of rows by confidence.

    Raises
    ------
    TypeError
        If data are given without ``truth``.
    ValueError
        If a DataFrame is not such a result, or there are fewer than two axes.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> section = sw.datasets.simulate_sections(1, 60, n_genes=50, n_reference_cells=50, random_state=0).sections["P1"]
    >>> sw.tl.zero_shot_annotate(section, ["adipocyte", "T cell", "fibroblast"], unknown="label")
    >>> axes = sw.pl.reliability(section, "cell_type")
    """
    bins = _bins(data, truth, key=key, mapping=mapping, n_bins=n_bins, table_key=table_key)
    top, below = _axes(axes)
    some = bins[bins["n"] > 0]
    width = some["high"] - some["low"]
    middle = (some["low"] + some["high"]) / 2
    top.bar(middle, some["accuracy"], width=0.96 * width, color=BLUE, alpha=0.85, label="accuracy")
    gap = some["confidence"] - some["accuracy"]
    top.bar(
        middle,
        gap,
        width=0.96 * width,
        bottom=some["accuracy"],
        facecolor=RED,
        alpha=0.3,
        edgecolor=RED,
        label="gap to confidence",
    )
    top.plot([0, 1], [0, 1], color="#444444", lw=1, ls="--", zorder=3)
    weights = some["n"] / some["n"].sum()
    error, accuracy, confidence = (
        float((weights * x).sum()) for x in (gap.abs(), some["accuracy"], some["confidence"])
    )
    top.set_title(f"ECE {error:.3f}", fontsize=10, loc="left")
    top.set_ylabel("fraction of correct rows")
    top.set_ylim(0, 1)
    top.tick_params(labelbottom=False)
    below.bar(middle, some["n"], width=0.96 * width, color="#9a9a9a")
    below.axvline(accuracy, color=BLUE, lw=1.5, label=f"accuracy {accuracy:.2f}")
    below.axvline(confidence, color=RED, lw=1.5, ls="--", label=f"mean confidence {confidence:.2f}")
    below.set_ylabel(f"rows (n = {int(some['n'].sum()):,})")
    below.set_xlabel("confidence of the label")
    for ax in (top, below):
        ax.set_xlim(0, 1)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=8, loc="best")
    return [top, below]


def _bins(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData] | pd.DataFrame,
    truth: str | pd.DataFrame | Sequence[str | pd.DataFrame] | None,
    **options: Any,
) -> pd.DataFrame:
    if isinstance(data, pd.DataFrame):
        missing = [c for c in _COLUMNS if c not in data]
        if missing or not data["n"].sum():
            raise ValueError(
                f"This DataFrame is not a result of sw.tl.evaluate_calibration (columns found: {listing(data)}; "
                f"needed: {listing(_COLUMNS)}, with rows in some bin)."
            )
        return data
    if truth is None:
        raise TypeError("truth is needed: the column of .obs with known labels. Or pass sw.tl.evaluate_calibration(…).")
    from spatialwhisperer.tl.evaluation.calibration import evaluate_calibration

    return evaluate_calibration(data, truth, **options)


def _axes(axes: Any) -> list[Axes]:
    if axes is not None:
        return canvas.given_axes(axes, 2)
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(
        2, 1, figsize=(4.4, 5.2), sharex=True, height_ratios=(3, 1.3), layout="constrained", squeeze=True
    )
    return list(axes)
