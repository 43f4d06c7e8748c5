"""How well scores rank the rows of each class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer import _keys
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import listing
from spatialwhisperer.pl._drawing import canvas

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from spatialwhisperer.tl.evaluation.annotation import Pair

_INCHES = 4.2
"""Height of the figure, and width of what stands beside the legend."""

_LEGEND = "AUROC"
"""Title of the legend."""


@shared
@checked
def roc(
    data: AnnData | SpatialData,
    truth: str | pd.DataFrame,
    *,
    key: str = _keys.LABEL,
    mapping: Mapping[Any, str | Sequence[str]] | None = None,
    threshold: float = 0.0,
    min_rows: int = 1,
    group_key: str | None = None,
    palette: Mapping[str, str] | None = None,
    table_key: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the receiver operating characteristic of each class, with its AUROC.

    By the convention of :func:`spatialwhisperer.tl.evaluate_annotation`: the curve of the class score against presence is taken
    within each group (section), and the curves of a class are averaged over groups at each false positive rate, so that the area
    below is the mean AUROC that the legend states.

    Parameters
    ----------
    data, truth, key, mapping, threshold, min_rows, group_key
        As in :func:`spatialwhisperer.tl.evaluate_annotation`.
    palette
        Colour of each true class; ``None`` takes ``.uns['<truth>_colors']``, or new colours where there are none.
    %(table_key)s
    ax
        Axes to draw into.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        If the annotation or the truth is not there, or ``palette`` lacks a class.
    ValueError
        If no true class is among the labels, or none has rows with and without it.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> section = sw.datasets.simulate_sections(1, 60, n_genes=50, n_reference_cells=50, random_state=0).sections["P1"]
    >>> sw.tl.zero_shot_annotate(section, ["adipocyte", "T cell", "fibroblast"], unknown="label")
    >>> ax = sw.pl.roc(section, "cell_type")
    """
    from spatialwhisperer.tl.evaluation.annotation import compare

    slide = Slide.open(data, table_key=table_key)
    compared = compare(slide, truth, key=key, mapping=mapping, threshold=threshold, group_key=group_key)
    pairs = [p for p in compared.pairs if p.defined(min_rows)]
    classes = [c for c in compared.sets if any(p.name == c for p in pairs)]
    if not classes:
        raise ValueError(
            f"None of the classes ({listing(compared.sets)}) has {max(1, min_rows)} rows with it and as many without it in any group."
        )
    # a truth that is no column has no colours of its own, and its classes those of the labels
    column = truth if isinstance(truth, str) and truth in slide.table.obs else key
    colours = canvas.label_colours(slide.table, column, classes, palette)
    own = {name: [p for p in pairs if p.name == name] for name in classes}
    curves = {name: _mean_curve(its) for name, its in own.items()}
    words = {name: f"{name}  {area:.2f}{_count(own[name])}" for name, (_, _, area) in curves.items()}
    if ax is None:
        import matplotlib.pyplot as plt

        room = canvas.legend_inches([*words.values(), _LEGEND], _INCHES)
        _, ax = plt.subplots(figsize=(_INCHES + room, _INCHES), layout="constrained")
    lines = [ax.plot(x, y, color=colours[name], lw=1.6, label=words[name])[0] for name, (x, y, _) in curves.items()]
    ax.plot([0, 1], [0, 1], color="#888888", lw=1, ls="--", zorder=0)
    ax.set_xlim(-0.01, 1.01)
    ax.set_ylim(-0.01, 1.01)
    ax.set_aspect("equal", anchor="W")
    ax.set_xlabel("false positive rate")
    ax.set_ylabel("true positive rate")
    ax.set_title(f"macro AUROC {np.mean([area for _, _, area in curves.values()]):.2f}", fontsize=10, loc="left")
    ax.spines[["top", "right"]].set_visible(False)
    canvas.legend(ax, lines, title=_LEGEND)
    return ax


def _mean_curve(pairs: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray, float]:
    """Curve of one group as it is; of several the mean at each false positive rate, and the mean of their areas."""
    from sklearn.metrics import auc, roc_curve

    curves = [roc_curve(p.present, p.scores, drop_intermediate=False)[:2] for p in pairs]
    area = float(np.mean([auc(x, y) for x, y in curves]))
    if len(curves) == 1:
        return (*curves[0], area)
    # curves climb straight up: both ends of a step are kept by a grid that has two points at each rate
    rates = np.unique(np.concatenate([x for x, _ in curves]))
    grid = np.repeat(rates, 2)
    ends = [np.ravel(np.column_stack(_at(x, y, rates))) for x, y in curves]
    return grid, np.mean(ends, axis=0), area


def _at(x: np.ndarray, y: np.ndarray, rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest true positive rate of a curve at each false positive rate."""
    between = np.interp(rates, x, y)
    here = np.isin(rates, x)
    first, last = np.searchsorted(x, rates), np.searchsorted(x, rates, side="right") - 1
    low = np.where(here, y[np.clip(first, 0, len(y) - 1)], between)
    return low, np.where(here, y[np.clip(last, 0, len(y) - 1)], between)


def _count(pairs: Sequence[Any]) -> str:
    present, n = sum(int(p.present.sum()) for p in pairs), sum(len(p.present) for p in pairs)
    groups = f", {len(pairs)} groups" if len(pairs) > 1 else ""
    return f"  ({present} of {n}{groups})"
