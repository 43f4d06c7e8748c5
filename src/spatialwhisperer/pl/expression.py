"""Measured and predicted expression over the slide, and the genes that are predicted best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import numpy as np

from spatialwhisperer import _keys
from spatialwhisperer._access.names import check_names
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import inform, listing
from spatialwhisperer.pl._drawing import canvas
from spatialwhisperer.pl._drawing.marks import draw_marks
from spatialwhisperer.pl._drawing.panels import draw_background, panel_of
from spatialwhisperer.statistics.expression.metrics import pearson_per_gene
from spatialwhisperer.statistics.expression.value_spaces import SPACES
from spatialwhisperer.tl.evaluation.genes import read_gene_sets
from spatialwhisperer.tl.evaluation.rows.pairs import make_pair, make_predicted

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from spatialdata import SpatialData

    from spatialwhisperer._access.slide_options import SlideOptions
    from spatialwhisperer.pl._drawing.panels import Panel
    from spatialwhisperer.tl.evaluation.genes import GeneSets
    from spatialwhisperer.tl.evaluation.rows.pairs import Predicted

_UNITS = {"per_spot_log1p": "ln(1 + CP10k)", "per_spot_log10": "log10(1 + CP10k)"}


@shared
@checked
def expression(
    data: AnnData | SpatialData,
    *,
    genes: Sequence[str] | None = None,
    n_genes: int = 3,
    prediction: AnnData | None = None,
    section: str | None = None,
    key: str = _keys.EXPRESSION,
    value_space: str | None = None,
    layer: str | None = None,
    cmap: str = "viridis",
    alpha: float = 0.9,
    diameter_um: float | None = None,
    **slide: Unpack[SlideOptions],
) -> list[Axes]:
    """Draw genes over the H&E, measured and predicted, and one against the other.

    Both maps of a gene have one colour range (2nd to 98th percentile of all their values): predictions that average neighbours vary less
    than what is measured, and look flatter. How much less is seen in the third panel, against the dashed line of equal values.

    A slide whose table holds no genes, such as an H&E slide without expression, has the map of the prediction alone. Its title states the
    correlation of the gene on held-out training tissue, where that is known. Each map has a colour range of its own.

    Parameters
    ----------
    data
        Object with an image, and with measured counts where there are any.
    genes
        Which genes; ``None`` takes those with the highest correlation in this section, and where nothing was measured those with the
        highest correlation on held-out training tissue. Where none is known either, as of a model without cross-validation, those
        whose prediction varies most are taken, and a line says so.
    n_genes
        How many, where ``genes`` is ``None``.
    prediction
        Result of :func:`spatialwhisperer.tl.predict_expression`; a SpatialData carries its own.
    %(section)s
    key
        Table of a SpatialData with the prediction.
    value_space, layer
        As in :func:`spatialwhisperer.tl.evaluate_expression`.
    cmap, alpha
        Colour map and opacity of the marks.
    %(diameter_um)s
    %(slide)s

    Returns
    -------
    The axes, three for each gene: measured, predicted, one against the other. One for each gene where nothing was measured.

    Raises
    ------
    KeyError
        If there is no prediction, or a gene or section does not exist.
    ValueError
        If prediction and measured table do not belong together, or no gene has a correlation.

    Examples
    --------
    >>> import anndata as ad, spatialwhisperer as sw
    >>> from spatialwhisperer.statistics.expression.value_spaces import to_space
    >>> sections, _ = sw.datasets.simulate_sections(1, 60, n_genes=50, n_reference_cells=50, random_state=0)
    >>> truth = sections["P1"]["table"]
    >>> values = to_space(truth.X)
    >>> prediction = ad.AnnData(values, obs=truth.obs[[]], var=truth.var[[]])
    >>> axes = sw.pl.expression(sections["P1"], n_genes=1, prediction=prediction, value_space="per_spot_log1p")
    >>> len(axes)
    3
    """
    opened = Slide.open(data, drawing=True, **slide)
    check_names([opened], layer=layer)
    if not opened.table.n_vars:
        found = make_predicted(opened, prediction, genes=genes, value_space=value_space, key=key)
        chosen = np.arange(len(found.genes)) if genes is not None else _most_certain(found, n_genes)
        panel = panel_of(opened, section=section, diameter_um=diameter_um)
        return _predicted_alone(panel, found, chosen, cmap, alpha)
    pair = make_pair(
        opened,
        prediction,
        genes=genes,
        value_space=value_space,
        layer=layer,
        group_key=None,
        key=key,
    )
    panel = panel_of(opened, section=section, diameter_um=diameter_um)
    rows = panel.section.rows
    truth, predicted = pair.truth[rows], pair.predicted[rows]
    r = pearson_per_gene(truth, predicted)
    chosen = np.arange(len(pair.genes)) if genes is not None else _best(r, n_genes, panel.section.name)
    axes = _grid(3 * len(chosen), panel.tallness)
    unit = _unit(pair.space)
    for i, g in enumerate(chosen):
        measured = truth[:, [g]].toarray().ravel()
        guess = predicted[:, g]
        title = f"{panel.section.name}: {pair.genes[g]}"
        norm = _shared_range(measured, guess)
        for ax, values, what in zip(axes[3 * i : 3 * i + 2], (measured, guess), ("measured", "predicted"), strict=True):
            draw_background(ax, panel)
            _draw_values(ax, panel, values, norm, cmap, alpha)
            ax.set_title(f"{title}, {what}", fontsize=10)
        _scatter(axes[3 * i + 2], measured, guess, r[g], unit)
    return axes


def _unit(space: str) -> str:
    return _UNITS.get(space, SPACES.get(space, "value").split(",")[-1].split(":")[0].strip())


def _predicted_alone(panel: Panel, found: Predicted, chosen: np.ndarray, cmap: str, alpha: float) -> list[Axes]:
    """One map for each gene, with its own colour range."""
    axes = _grid(len(chosen), panel.tallness, n_columns=min(3, len(chosen)))
    unit = "" if found.space is None else f", {_unit(found.space)}"
    for ax, g in zip(axes, chosen, strict=False):
        draw_background(ax, panel)
        values = found.values[panel.section.rows, g]
        if np.isfinite(values).any():
            _draw_values(ax, panel, values, canvas.value_range(values[np.isfinite(values)]), cmap, alpha)
        r = "" if np.isnan(found.held_out[g]) else f", r = {found.held_out[g]:.2f} held out"
        ax.set_title(f"{panel.section.name}: {found.genes[g]}\npredicted{unit}{r}", fontsize=10)
    for ax in axes[len(chosen) :]:
        ax.remove()
    return axes[: len(chosen)]


def _most_certain(found: Predicted, n: int) -> np.ndarray:
    """Genes with the highest held-out correlation; those that vary most, where none is known."""
    known = found.held_out
    if np.isnan(known).all():
        inform(
            "No correlation on held-out training tissue is known, so the genes whose prediction varies most are drawn. genes=… chooses others."
        )
        known = found.values[np.isfinite(found.values).all(axis=1)].std(axis=0)
    return np.argsort(np.where(np.isnan(known), -np.inf, known), kind="stable")[::-1][:n]


def _best(r: np.ndarray, n: int, section: str) -> np.ndarray:
    if np.isnan(r).all():
        raise ValueError(
            f"No gene has a correlation in section {section!r}: truth or prediction is constant, or fewer than four spots have one. Name genes=… to draw them."
        )
    order = np.argsort(np.where(np.isnan(r), -np.inf, r))[::-1]
    return order[: min(n, int((~np.isnan(r)).sum()))]


def _grid(n_panels: int, tallness: float, n_columns: int = 3) -> list[Axes]:
    import matplotlib.pyplot as plt
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    n_rows = -(-n_panels // n_columns)
    size = (13 / 3 * n_columns, (3.7 * min(max(tallness, 0.75), 2.0) + 0.4) * n_rows)
    layout = ConstrainedLayoutEngine(wspace=0.05, hspace=0.05)
    _, grid = plt.subplots(n_rows, n_columns, figsize=size, squeeze=False, layout=layout)
    return list(grid.ravel())


def _shared_range(measured: np.ndarray, guess: np.ndarray) -> Normalize:
    """Colour range of both panels: a prediction that is flat looks flat."""
    both = np.concatenate([measured, guess])
    return canvas.value_range(both[np.isfinite(both)])


def _draw_values(ax: Axes, panel: Panel, values: np.ndarray, norm: Normalize, cmap: str, alpha: float) -> None:
    import matplotlib as mpl

    rows = np.flatnonzero(np.isfinite(values))
    if not len(rows):
        return
    draw_marks(ax, panel, rows, mpl.colormaps[cmap](norm(values[rows])), alpha)
    canvas.colour_bar(ax, norm, cmap, values[rows], alpha)


def _scatter(ax: Axes, measured: np.ndarray, guess: np.ndarray, r: float, unit: str) -> None:
    known = np.isfinite(guess)
    low = min(0.0, float(guess[known].min(initial=0)))
    high = 1.04 * max(float(measured.max(initial=0)), float(guess[known].max(initial=0)), 1e-6)
    ax.plot([low, high], [low, high], color=canvas.GREY, ls="--", lw=1, zorder=0)
    ax.scatter(measured[known], guess[known], s=14, alpha=0.6, linewidths=0, color="#31688e")
    margin = 0.03 * (high - low)
    ax.set(
        xlim=(low - margin, high), ylim=(low - margin, high), xlabel=f"measured, {unit}", ylabel=f"predicted, {unit}"
    )
    ax.set_box_aspect(1)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title("r undefined" if np.isnan(r) else f"r = {r:.2f}", fontsize=10)


@checked
def gene_ranking(
    report: pd.DataFrame,
    *,
    n: int = 20,
    gene_sets: GeneSets | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the genes that are predicted best, with their standard deviation over sections.

    Parameters
    ----------
    report
        Result of :func:`spatialwhisperer.tl.gene_report`.
    n
        How many genes.
    gene_sets
        Genes by name of the set, or a GMT file. A gene has the colour of the first set that it is in; sets that no drawn gene
        is in are not listed.
    ax
        Axes to draw into.

    Returns
    -------
    The axes: a dot for the mean correlation, a line for one standard deviation to each side.

    Raises
    ------
    KeyError
        If the report lacks a column.
    ValueError
        If no gene has a correlation.

    Examples
    --------
    >>> import pandas as pd
    >>> import spatialwhisperer as sw
    >>> report = pd.DataFrame({"pearson": [0.6, 0.4], "pearson_sd": [0.1, 0.2]}, index=["GNAS", "FN1"])
    >>> sw.pl.gene_ranking(report).get_xlabel()
    'Pearson r over spots, mean ± SD over sections'
    """
    missing = [c for c in ("pearson", "pearson_sd") if c not in report]
    if missing:
        raise KeyError(
            f"The report lacks {listing(missing)} (found: {listing(report)}); make it with sw.tl.gene_report."
        )
    best = report.dropna(subset="pearson").nlargest(n, "pearson")
    if best.empty:
        raise ValueError("No gene of the report has a correlation.")
    genes = [str(g) for g in best.index]
    sets = {} if gene_sets is None else read_gene_sets(gene_sets)
    member = [next((name for name, its in sets.items() if g in its), None) for g in genes]
    colours = canvas.name_colours(list(dict.fromkeys(name for name in member if name is not None)))
    if ax is None:
        ax = _tall_axes(len(genes), wide=bool(colours))
    at = np.arange(len(genes))
    plain = "#31688e" if not sets else canvas.GREY
    dots = [plain if name is None else colours[name] for name in member]
    r, sd = best["pearson"].to_numpy(float), best["pearson_sd"].fillna(0).to_numpy(float)
    ax.hlines(at, r - sd, r + sd, colors=dots, lw=2, alpha=0.5)
    ax.scatter(r, at, s=36, c=dots, zorder=3)
    ax.set_yticks(at, genes, fontsize=8)
    ax.set_ylim(len(genes) - 0.4, -0.6)
    ax.set_xlim(min(0.0, float((r - sd).min()) - 0.02), min(1.02, float((r + sd).max()) + 0.05))
    over = ", mean ± SD over sections" if (sd > 0).any() else ""
    ax.set_xlabel(f"Pearson r over spots{over}")
    ax.grid(axis="x", color="#e5e5e5", lw=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    if colours:
        entries = {**colours, **({"in no set": canvas.GREY} if None in member else {})}
        # names such as HALLMARK_APOPTOSIS say the same with spaces
        canvas.legend(ax, canvas.dots({name.replace("_", " "): c for name, c in entries.items()}, size=6))
    return ax


def _tall_axes(n: int, *, wide: bool) -> Axes:
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(8.5 if wide else 5, 0.24 * n + 1), layout="constrained")[1]
