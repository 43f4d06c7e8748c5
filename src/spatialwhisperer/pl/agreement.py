"""Labels of the image beside those of the genes, and where they are in doubt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.contract import number_column
from spatialwhisperer._access.names import check_names
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.values import check_text
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import listing
from spatialwhisperer.pl._drawing import canvas
from spatialwhisperer.pl._drawing.marks import draw_marks
from spatialwhisperer.pl._drawing.panels import draw_background, panel_of
from spatialwhisperer.tl.evaluation.errors import best_wording_sd

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from spatialwhisperer._access.slide_options import SlideOptions
    from spatialwhisperer.pl._drawing.panels import Panel


@shared
@checked
def agreement(
    data: AnnData | SpatialData,
    *,
    key: str = _keys.LABEL,
    section: str | None = None,
    cmap: str = "viridis",
    alpha: float = 0.85,
    diameter_um: float | None = None,
    **slide: Unpack[SlideOptions],
) -> list[Axes]:
    """Draw the labels of the image and of the genes, how far they agree, and how much the label depends on its words.

    Parameters
    ----------
    data
        Annotated by :func:`spatialwhisperer.tl.zero_shot_annotate`, and compared by :func:`spatialwhisperer.tl.agreement`.
    key
        Column of ``.obs`` written by the annotation.
    %(section)s
    cmap, alpha
        Colour map of the agreement and of the standard deviation, and opacity.
    %(diameter_um)s
    %(slide)s

    Returns
    -------
    The axes: labels of the annotation, labels of the genes, agreement, and where labels have several sentences the standard deviation of
    the score of the label over its sentences.

    Raises
    ------
    KeyError
        If there is no annotation or no agreement, or there is no such section or no image.
    ValueError
        If there are no rows, or ``diameter_um`` is given and the scale is not known.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> genes = sw.models.default_model().encoders["gene"].genes
    >>> section = sw.datasets.simulate_sections(
    ...     1, 60, n_genes=len(genes), n_reference_cells=50, random_state=0
    ... ).sections["P1"]
    >>> section["table"].var_names = genes
    >>> sw.tl.zero_shot_annotate(section, ["T cell", "fibroblast", "fat cell"], unknown="label")
    >>> sw.tl.agreement(section)
    >>> axes = sw.pl.agreement(section)
    >>> [ax.get_title() for ax in axes]
    ['P1_spots: sw_label', 'P1_spots: sw_label_gene', 'agreement', 'wording sd']
    """
    check_text("key", key)
    opened = Slide.open(data, drawing=True, **slide)
    check_names([opened])
    table = opened.table
    named, genes = _keys.agreement(key), _keys.gene_label(key)
    if lacking := [name for name in (key, named, genes) if name not in table.obs]:
        raise KeyError(
            f"{listing(lacking)} not in .obs (found: {listing(table.obs)}). Run sw.tl.zero_shot_annotate(data, …) and "
            "sw.tl.agreement(data, …) first."
        )
    labels = {name: pd.Series(table.obs[name]).astype("category") for name in (key, genes)}
    values = {"agreement": number_column(pd.Series(table.obs[named]), f".obs[{named!r}]")}
    if (wording := best_wording_sd(table, key)) is not None:
        values["wording sd"] = wording
    panel = panel_of(opened, section=section, diameter_um=diameter_um)
    every = list(dict.fromkeys(str(c) for column in labels.values() for c in column.cat.categories))
    colours = canvas.label_colours(table, key, every)
    n = len(labels) + len(values)
    axes = canvas.make_axes(None, n, n, tallest=panel.tallness, legends=[[*colours, "no label"], [*colours]])
    for ax, (name, column) in zip(axes, labels.items(), strict=False):
        _draw_labels(ax, panel, column, colours, alpha)
        ax.set_title(f"{panel.section.name}: {name}", fontsize=10)
    for ax, (name, numbers) in zip(axes[len(labels) :], values.items(), strict=True):
        _draw_numbers(ax, panel, numbers, cmap, alpha)
        ax.set_title(name, fontsize=10)
    return axes


def _draw_labels(ax: Axes, panel: Panel, column: pd.Series, colours: dict[str, str], alpha: float) -> None:
    draw_background(ax, panel)
    rows = panel.section.rows
    codes = column.cat.codes.to_numpy()[rows]
    shown = np.array([*(colours[str(c)] for c in column.cat.categories), canvas.GREY])
    draw_marks(ax, panel, np.arange(len(rows)), shown[codes], alpha)
    used = {str(c): colours[str(c)] for c in column.cat.categories}
    canvas.legend(ax, canvas.patches({**used, "no label": canvas.GREY} if (codes < 0).any() else used))


def _draw_numbers(ax: Axes, panel: Panel, numbers: np.ndarray, cmap: str, alpha: float) -> None:
    import matplotlib as mpl

    draw_background(ax, panel)
    inside = numbers[panel.section.rows]
    rows = np.flatnonzero(np.isfinite(inside))
    if not len(rows):
        return
    norm = canvas.value_range(inside[rows])
    draw_marks(ax, panel, rows, mpl.colormaps[cmap](norm(inside[rows])), alpha)
    canvas.colour_bar(ax, norm, cmap, inside[rows], alpha)
