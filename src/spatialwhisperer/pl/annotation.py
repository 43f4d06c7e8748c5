"""Labels and class scores over the slide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.contract import check_label_column, holds_numbers, number_column, number_matrix
from spatialwhisperer._access.elements.colours import classes_of, lost_classes
from spatialwhisperer._access.names import check_names
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.table.groups import group_name
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.values import check_text
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import listing
from spatialwhisperer._provenance import recorded
from spatialwhisperer.pl._drawing import canvas
from spatialwhisperer.pl._drawing.marks import draw_marks
from spatialwhisperer.pl._drawing.panels import draw_background, panel_of, panels_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from spatialdata import SpatialData

    from spatialwhisperer._access.slide_options import SlideOptions
    from spatialwhisperer.pl._drawing.panels import Panel


@shared
@checked
def annotation(
    data: AnnData | SpatialData,
    *,
    key: str = _keys.LABEL,
    sections: Sequence[str] | None = None,
    with_image: bool = True,
    alpha: float = 0.75,
    confidence: bool | None = None,
    diameter_um: float | None = None,
    palette: Mapping[str, str] | None = None,
    axes: Axes | Sequence[Axes] | None = None,
    **slide: Unpack[SlideOptions],
) -> list[Axes]:
    """Draw labels over the H&E, beside the bare slide, with a scale bar where the scale is known.

    Parameters
    ----------
    data
        Annotated by :func:`spatialwhisperer.tl.zero_shot_annotate`; any column of ``.obs`` with classes works.
    key
        Column of ``.obs``.
    %(sections)s
    %(with_image)s
    alpha
        Opacity of the labels.
    confidence
        Make labels of low confidence more transparent: opacity falls with ``.obs['<key>_confidence']``, from ``alpha`` at the highest
        (98th percentile) to a tenth of it at the probability of a random guess among the labels. ``None`` does so where there is that
        column.
    %(diameter_um)s
    palette
        Colour of each label; ``None`` takes ``.uns['<key>_colors']``, or new colours where there are none.
    axes
        Axes to draw into, one or two per section.
    %(slide)s

    Returns
    -------
    The axes. It also writes ``.uns['<key>_colors']``, which scanpy, squidpy and spatialdata-plot read.

    Raises
    ------
    KeyError
        If the column, or with ``confidence`` that of the confidence, does not exist, or there is no such section or no image.
    ValueError
        If there are no rows or too few axes, a section is named twice, the column holds decimals, which :func:`scores` draws, or
        ``diameter_um`` is given and the scale is not known.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections, _ = sw.datasets.simulate_sections(1, 60, n_genes=50, n_reference_cells=50, random_state=0)
    >>> axes = sw.pl.annotation(sections["P1"], key="cell_type")
    """
    check_text("key", key)
    opened = Slide.open(data, drawing=True, **slide)
    check_names([opened])
    table = opened.table
    if key not in table.obs:
        raise KeyError(
            f"{key!r} not in .obs (found: {listing(table.obs)}). Run sw.tl.zero_shot_annotate(data, …) first."
        )
    stored = pd.Series(table.obs[key])
    if stored.dtype == object and any(isinstance(value, list | dict | set | np.ndarray) for value in stored):
        raise ValueError(f".obs[{key!r}] holds lists or other containers; a picture shows one label for each row.")
    check_label_column(stored, f".obs[{key!r}]", f"Draw numbers with sw.pl.scores(data, key={key!r}).")
    labels = stored.astype("category")
    shaded = _has_confidence(table, key) if confidence is None else confidence
    opacity = _Opacity(table, key, labels, alpha) if shaded else None
    panels = panels_of(opened, only=sections, diameter_um=diameter_um)
    shown_as = [group_name(c) for c in labels.cat.categories]
    colours = canvas.label_colours(table, key, shown_as, palette)
    n = 1 + with_image
    tallest = max(p.tallness for p in panels)
    drawn = np.concatenate([panel.section.rows for panel in panels])
    # rows without a label have one opacity
    steps = [] if opacity is None or labels.iloc[drawn].isna().all() else opacity.steps()
    names = [*colours, "no label", *(str(step.get_label()) for step in steps)]
    axes = canvas.make_axes(axes, n * len(panels), n, tallest=tallest, legends=[names])
    codes = labels.cat.codes.to_numpy()
    values = np.array([*(colours[name] for name in shown_as), canvas.GREY])
    for i, panel in enumerate(panels):
        if with_image:
            draw_background(axes[n * i], panel)
            axes[n * i].set_title(f"{panel.section.name}: H&E")
        ax = axes[n * i + n - 1]
        draw_background(ax, panel)
        ax.set_title(f"{panel.section.name}: {key}")
        rows = panel.section.rows
        shown = alpha if opacity is None else opacity.of_rows()[rows]
        draw_marks(ax, panel, np.arange(len(rows)), values[codes[rows]], shown)
        entries = {**colours, "no label": canvas.GREY} if (codes[rows] < 0).any() else colours
        canvas.legend(ax, [*canvas.patches(entries), *steps])
    canvas.keep_colours(table, {key: colours})
    return axes


@shared
@checked
def scores(
    data: AnnData | SpatialData,
    *,
    key: str = _keys.LABEL,
    classes: Sequence[str] | None = None,
    section: str | None = None,
    n_columns: int = 4,
    cmap: str = "viridis",
    alpha: float = 0.85,
    diameter_um: float | None = None,
    **slide: Unpack[SlideOptions],
) -> list[Axes]:
    """Draw the score of each class over the H&E, one panel per class.

    Scores rank rows within a class; their level is not comparable between classes. So each panel has a colour range of its own, around
    the middle of its scores (2nd to 98th percentile; all of them where nearly all are one value), and all ranges are as wide as the
    widest: a flat map looks flat. An arrow at the end of a colour bar says that scores lie beyond it.

    Parameters
    ----------
    data
        Annotated by :func:`spatialwhisperer.tl.zero_shot_annotate`, or queried (``key="sw_query"``).
    key
        Column of ``.obs`` whose scores to draw.
    classes
        Which classes; ``None`` takes all. A region or a coarser term, which rows may have got instead of one of its classes, is drawn
        where it is named, with the sum of their probabilities and a colour range apart from that of scores.
    %(section)s
    n_columns
        Panels in a row.
    cmap, alpha
        Colour map and opacity, which is the same for low and high scores and for the colour bar.
    %(diameter_um)s
    %(slide)s

    Returns
    -------
    The axes, the first with the bare slide.

    Raises
    ------
    KeyError
        If there are no scores, a class that is asked for is not among them, or there is no such section or no image.
    ValueError
        If there are no rows, or ``diameter_um`` is given and the scale is not known.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> section = sw.datasets.simulate_sections(1, 60, n_genes=50, n_reference_cells=50, random_state=0).sections["P1"]
    >>> sw.tl.zero_shot_annotate(section, ["fat cell", "T cell", "fibroblast"], unknown="label")
    >>> axes = sw.pl.scores(section)
    >>> [ax.get_title() for ax in axes]
    ['P1_spots: H&E', 'fat cell', 'T cell', 'fibroblast']
    """
    check_text("key", key)
    opened = Slide.open(data, drawing=True, **slide)
    check_names([opened])
    table = opened.table
    values = _score_table(table, key)
    classes = [str(c) for c in values] if classes is None else [classes] if isinstance(classes, str) else list(classes)
    coarser = {c: found for c in classes if c not in values and (found := coarser_score(table, key, c)) is not None}
    missing = [c for c in classes if c not in values and c not in coarser]
    if missing:
        raise KeyError(f"There are no scores for {listing(missing)} (found: {listing(values)}).")
    panel = panel_of(opened, section=section, diameter_um=diameter_um)
    rows = panel.section.rows
    plain = {name: values[name].to_numpy()[rows] for name in classes if name in values}
    summed = {name: score[rows] for name, score in coarser.items()}
    shown, ranges = plain | summed, canvas.equally_wide(plain) | canvas.equally_wide(summed)
    axes = canvas.make_axes(None, len(classes) + 1, min(n_columns, len(classes) + 1), tallest=panel.tallness)
    draw_background(axes[0], panel)
    axes[0].set_title(f"{panel.section.name}: H&E", fontsize=10)
    for ax, name in zip(axes[1:], classes, strict=True):
        draw_background(ax, panel)
        what = f"{name} (probability)" if name in coarser else asked(table, name)
        ax.set_title(canvas.wrapped(what, 3.8), fontsize=10)
        _draw_scores(ax, panel, shown[name], ranges[name], cmap, alpha)
    return axes


def _draw_scores(ax: Axes, panel: Panel, score: np.ndarray, norm: Normalize | None, cmap: str, alpha: float) -> None:
    import matplotlib as mpl

    if norm is None:
        return
    rows = np.flatnonzero(np.isfinite(score))
    draw_marks(ax, panel, rows, mpl.colormaps[cmap](norm(score[rows])), alpha)
    canvas.colour_bar(ax, norm, cmap, score[rows], alpha)


def _score_table(table: AnnData, key: str) -> pd.DataFrame:
    scores_key = _keys.scores(key)
    if scores_key in table.obsm and key in table.uns:
        names, values = classes_of(table, key), number_matrix(table.obsm[scores_key], f".obsm[{scores_key!r}]")
        if len(names) != values.shape[1] or len(set(names)) < len(names):
            raise ValueError(
                f".obsm[{scores_key!r}] has {values.shape[1]} columns, and .uns[{key!r}]['classes'] names {listing(names)}: they do not "
                "belong together. Run sw.tl.zero_shot_annotate(data, …) again."
            )
        return pd.DataFrame(values, columns=names)
    if key in table.obs and holds_numbers(pd.Series(table.obs[key])):
        return pd.DataFrame({key: number_column(pd.Series(table.obs[key]), f".obs[{key!r}]")})
    if lost := lost_classes(table, key):
        raise KeyError(f"There are no class names for the scores of {key!r}: {lost}")
    raise KeyError(
        f"There are no scores for {key!r} (.obsm holds {listing(table.obsm)}). Run sw.tl.zero_shot_annotate(data, …) first."
    )


def coarser_score(table: AnnData, key: str, name: str) -> np.ndarray | None:
    """Probability of a region or a coarser term: the sum over its classes, shape (n,); ``None`` where it is neither."""
    inside = ((recorded(table, key) or {}).get("coarser") or {}).get(name)
    if not inside:
        return None
    from spatialwhisperer.tl.evaluation.calibration import stored_probabilities

    return stored_probabilities(table, key)[list(inside)].sum(axis=1, skipna=False).to_numpy()


def asked(table: AnnData, name: str) -> str:
    """The words of a query rather than the name of its column; a class is its own title."""
    words = (recorded(table, name) or {}).get("text")
    return " / ".join(f"“{text}”" for text in words) if words else name


def _has_confidence(table: AnnData, key: str) -> bool:
    column = _keys.confidence(key)
    return column in table.obs and holds_numbers(pd.Series(table.obs[column]))


class _Opacity:
    """Opacity by confidence: from a tenth of ``alpha`` at that of a random guess to ``alpha`` at the highest that occurs.

    Parameters
    ----------
    table
        Table with the annotation.
    key
        Column of the labels.
    labels
        The labels; rows without one keep ``alpha``.
    alpha
        Highest opacity.

    Raises
    ------
    KeyError
        If there is no confidence.
    """

    def __init__(self, table: AnnData, key: str, labels: pd.Series, alpha: float) -> None:
        column = _keys.confidence(key)
        if not _has_confidence(table, key):
            raise KeyError(
                f"confidence=True needs numbers in .obs[{column!r}] (found: {listing(table.obs)}). Run "
                "sw.tl.zero_shot_annotate(data, …) first."
            )
        self.confidence = number_column(pd.Series(table.obs[column]), f".obs[{column!r}]")
        self.missing = labels.isna().to_numpy()
        self.alpha = alpha
        self.guess = 1 / max(len(classes_of(table, key) or labels.cat.categories), 2)
        # a calibrated confidence may never come near 1
        highest = np.nanquantile(self.confidence, 0.98) if np.isfinite(self.confidence).any() else 1.0
        self.highest = max(float(highest), self.guess + 0.05)

    def at(self, confidence: Any) -> Any:
        """Opacity at a confidence."""
        height = (confidence - self.guess) / (self.highest - self.guess)
        return self.alpha * (0.1 + 0.9 * np.clip(height, 0, 1))

    def of_rows(self) -> np.ndarray:
        """Opacity of each row."""
        return np.where(self.missing, self.alpha, self.at(np.nan_to_num(self.confidence, nan=1.0)))

    def steps(self) -> list[Any]:
        """Entries of a legend: three confidences, the highest first."""
        from matplotlib.patches import Patch

        steps = np.linspace(self.highest, self.guess, 3)
        return [
            Patch(facecolor="black", edgecolor="none", alpha=float(self.at(c)), label=f"confidence {c:.0%}")
            for c in steps
        ]
