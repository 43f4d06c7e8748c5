"""Domains over the slide, in the colours of the regions they overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.contract import check_label_column
from spatialwhisperer._access.elements.colours import unlike
from spatialwhisperer._access.names import check_names
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.table.groups import group_name, group_names, known_labels
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import listing
from spatialwhisperer.pl._drawing import canvas
from spatialwhisperer.pl._drawing.marks import draw_marks
from spatialwhisperer.pl._drawing.panels import draw_background, panels_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from spatialwhisperer._access.slide_options import SlideOptions


@shared
@checked
def domains(
    data: AnnData | SpatialData,
    *,
    key: str | Sequence[str] = _keys.DOMAIN,
    truth: str | None = None,
    ignore: Sequence[str] = ("undetermined",),
    sections: Sequence[str] | None = None,
    with_image: bool = True,
    alpha: float = 0.8,
    diameter_um: float | None = None,
    axes: Axes | Sequence[Axes] | None = None,
    **slide: Unpack[SlideOptions],
) -> list[Axes]:
    """Draw domains over the H&E, beside the known regions.

    Each domain takes the colour of the known region that it is matched with: the one-to-one matching with the largest number of
    shared rows (Hungarian algorithm), over all sections. Domains left over have colours of their own. Titles give the adjusted
    Rand index over the drawn rows that have both. A scale bar is drawn where the scale is known.

    Parameters
    ----------
    data
        Partitioned by :func:`spatialwhisperer.tl.spatial_domains`.
    key
        Column of ``.obs`` with domains, or several to compare.
    truth
        Column of ``.obs`` with known regions.
    ignore
        Regions that are drawn but neither matched nor counted.
    %(sections)s
    %(with_image)s
    alpha
        Opacity of the marks.
    %(diameter_um)s
    axes
        Axes to draw into: per section one for the slide, one for the regions and one for each key.
    %(slide)s

    Returns
    -------
    The axes. It also writes ``.uns['<key>_colors']``, which scanpy, squidpy and spatialdata-plot read.

    Raises
    ------
    KeyError
        If a column does not exist, or there is no such section or no image.
    ValueError
        If there are no rows or too few axes, a section is named twice, a column holds decimals, or ``diameter_um`` is given and the
        scale is not known.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> section = sw.datasets.simulate_sections(1, 80, n_genes=60, n_reference_cells=50, random_state=0).sections["P1"]
    >>> sw.tl.spatial_domains(section, use="observed", n_domains=3)
    >>> axes = sw.pl.domains(section, truth="cell_type")
    """
    opened = Slide.open(data, drawing=True, **slide)
    check_names([opened])
    table = opened.table
    keys = [key] if isinstance(key, str) else list(key)
    shown = [*([] if truth is None else [truth]), *keys]
    for name in shown:
        if name not in table.obs:
            remedy = "" if name == truth else " Run sw.tl.spatial_domains(data, n_domains=…) first."
            raise KeyError(f"{name!r} is not in .obs (found: {listing(table.obs)}).{remedy}")
        check_label_column(
            pd.Series(table.obs[name]), f".obs[{name!r}]", f"Draw numbers with sw.pl.scores(data, key={name!r})."
        )
    panels = panels_of(opened, only=sections, diameter_um=diameter_um)
    values = {name: group_names(pd.Series(table.obs[name])) for name in shown}
    known = None if truth is None else known_labels(values[truth], ignore)
    matched = {} if known is None else {k: match_domains(values[k], known) for k in keys}
    colours = _colours(table, truth, keys, matched)
    n = len(shown) + with_image
    tallest = max(p.tallness for p in panels)
    words = {name: {v: _words(v, matched.get(name, {})) for v in colours[name]} for name in shown}
    legends = [[*words[name].values(), "no label"] for name in shown]
    axes = canvas.make_axes(axes, n * len(panels), n, tallest=tallest, legends=legends)
    for i, panel in enumerate(panels):
        row = axes[n * i : n * (i + 1)]
        if with_image:
            draw_background(row[0], panel)
            row[0].set_title(f"{panel.section.name}: H&E")
        for ax, name in zip(row[int(with_image) :], shown, strict=True):
            draw_background(ax, panel)
            here = values[name][panel.section.rows]
            agreement = "" if known is None or name == truth else _agreement(here, known[panel.section.rows])
            ax.set_title(f"{panel.section.name}: {name}{agreement}")
            marks = np.array([canvas.GREY if v is None else colours[name][v] for v in here])
            draw_marks(ax, panel, np.arange(len(marks)), marks, alpha)
            entries = {words[name][v]: colour for v, colour in colours[name].items()}
            if any(v is None for v in here):
                entries["no label"] = canvas.GREY
            canvas.legend(ax, canvas.patches(entries))
    canvas.keep_colours(table, colours)
    return axes


def match_domains(domain: np.ndarray, truth: np.ndarray) -> dict[str, str]:
    """One-to-one matching of domains with regions that shares most rows; a domain without a shared row stays out.

    Parameters
    ----------
    domain, truth
        Names as strings, ``None`` where unknown, shape (n,).
    """
    from scipy.optimize import linear_sum_assignment

    both = (domain != None) & (truth != None)  # noqa: E711
    if not both.any():
        return {}
    shared = pd.crosstab(domain[both], truth[both])
    counts = shared.to_numpy()
    pairs = zip(*linear_sum_assignment(-counts), strict=True)
    return {str(shared.index[i]): str(shared.columns[j]) for i, j in pairs if counts[i, j] > 0}


def _colours(
    table: AnnData, truth: str | None, keys: Sequence[str], matched: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, str]]:
    """Colour of every value of every column."""
    out: dict[str, dict[str, str]] = {}
    if truth is not None:
        out[truth] = canvas.label_colours(table, truth, _names(table, truth))
    for key in keys:
        names = _names(table, key)
        if truth is None:
            out[key] = canvas.label_colours(table, key, names)
            continue
        free = iter(unlike(list(out[truth].values()), len(names)))
        chosen = {n: out[truth][matched[key][n]] if n in matched[key] else next(free) for n in names}
        out[key] = canvas.label_colours(table, key, names, chosen)
    return out


def _names(table: AnnData, key: str) -> list[str]:
    return [group_name(c) for c in table.obs[key].astype("category").cat.categories]


def _words(domain: str, matched: Mapping[str, str]) -> str:
    return f"{domain} ({matched[domain]})" if domain in matched else domain


def _agreement(domain: np.ndarray, truth: np.ndarray) -> str:
    from sklearn.metrics import adjusted_rand_score

    both = (domain != None) & (truth != None)  # noqa: E711
    if both.sum() < 2:
        return ""
    return f", ARI {adjusted_rand_score(truth[both].astype(str), domain[both].astype(str)):.2f}"
