"""Labels and class scores over the slide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access import get_table
from spatialwhisperer._messages import listing
from spatialwhisperer._provenance import recorded
from spatialwhisperer.pl.canvas import GREY, draw_background, draw_tiles, is_grid, panels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData


def annotation(
    data: AnnData | SpatialData,
    *,
    key: str = _keys.LABEL,
    sections: Sequence[str] | None = None,
    with_image: bool = True,
    alpha: float = 0.75,
    confidence: bool = False,
    diameter_um: float | None = None,
    palette: Mapping[str, str] | None = None,
    table_key: str | None = None,
    image_key: str | Mapping[str, str] | None = None,
    coordinate_system: str | None = None,
    library_key: str | None = None,
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """Draw labels over the H&E, beside the bare slide.

    Parameters
    ----------
    data
        Annotated by :func:`spatialwhisperer.tl.zero_shot_annotate`; any categorical column of ``.obs`` works.
    key
        Column of ``.obs``.
    sections
        Which sections to draw; all if not given.
    with_image
        Also draw the bare slide to the left of each section.
    alpha
        Opacity of the labels.
    confidence
        Let the slide shine through where a label is unsure: opacity falls with ``.obs['<key>_confidence']``, from ``alpha`` at the
        highest (98th percentile) to nearly nothing at that of a guess among the labels.
    diameter_um
        Size of a mark; that of the tiles, or most of the distance between spots, if not given.
    palette
        Colour of each label. Not given: ``.uns['<key>_colors']``, which is set if it is not there.
    table_key, image_key, coordinate_system, library_key
        Where the table and image are, as in :func:`spatialwhisperer.pp.embed_images`.
    axes
        Axes to draw into, one or two per section.

    Returns
    -------
    The axes. It also writes ``.uns['<key>_colors']``, which scanpy, squidpy and spatialdata-plot read.

    Raises
    ------
    KeyError
        If the column, or with ``confidence`` that of the confidence, does not exist.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections, _ = sw.datasets.simulate_sections(1, 60, n_genes=50, n_reference_cells=50, random_state=0)
    >>> axes = sw.pl.annotation(sections["P1"], key="cell_type")
    """
    table = get_table(data, table_key)
    if key not in table.obs:
        raise KeyError(
            f"{key!r} not in .obs (found: {listing(table.obs)}). Run sw.tl.zero_shot_annotate(data, …) first."
        )
    labels = table.obs[key].astype("category")
    opacity = _opacity(table, key, alpha, labels) if confidence else None
    drawn = _panels(data, table_key, image_key, coordinate_system, library_key, sections, diameter_um)
    n = 1 + with_image
    axes = _axes(axes, n * len(drawn), n, legend_inches=1.5, tallest=max(p.tallness for p in drawn))
    colours = _palette(table, key, [str(c) for c in labels.cat.categories], palette)
    codes = labels.cat.codes.to_numpy()
    values = np.array([*colours.values(), GREY])
    for i, panel in enumerate(drawn):
        if with_image:
            draw_background(axes[n * i], panel)
            axes[n * i].set_title(f"{panel.section.name}: H&E")
        ax = axes[n * i + n - 1]
        draw_background(ax, panel)
        ax.set_title(f"{panel.section.name}: {key}")
        rows = np.arange(len(panel.section.rows))
        shown = alpha if opacity is None else opacity[panel.section.rows]
        draw_tiles(ax, panel, rows, values[codes[panel.section.rows]], shown, square=is_grid(table))
        steps = {}
        if opacity is not None:
            confidences = np.linspace(*_range(table, key, labels), 3)[::-1]
            steps = {float(c): alpha * _visible(c, table, key, labels) for c in confidences}
        _legend(ax, colours, abstained=bool((codes[panel.section.rows] < 0).any()), steps=steps)
    return list(axes)


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
    table_key: str | None = None,
    image_key: str | Mapping[str, str] | None = None,
    coordinate_system: str | None = None,
    library_key: str | None = None,
) -> list[Axes]:
    """Draw the score of each class over the H&E, one panel per class.

    Each panel has its own colour range (2nd to 98th percentile): scores rank rows within a class, they are not comparable
    between classes.

    Parameters
    ----------
    data
        Annotated by :func:`spatialwhisperer.tl.zero_shot_annotate`, or queried (``key="sw_query"``).
    key
        Column of ``.obs`` whose scores to draw.
    classes
        Which classes; all if not given.
    section
        Which section; the first if not given.
    n_columns
        Panels in a row.
    cmap, alpha
        Colour map and opacity.
    diameter_um
        Size of a mark; that of the tiles, or most of the distance between spots, if not given.
    table_key, image_key, coordinate_system, library_key
        Where the table and image are, as in :func:`spatialwhisperer.pp.embed_images`.

    Returns
    -------
    The axes, the first with the bare slide.

    Raises
    ------
    KeyError
        If there are no scores, or a class that is asked for is not among them.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections, reference = sw.datasets.simulate_sections(2, 60, n_genes=50, n_reference_cells=100, random_state=0)
    >>> model = sw.tl.train([sections["P1"], reference], max_epochs=20, tile_px=64)
    >>> sw.tl.zero_shot_annotate(sections["P2"], model=model)
    >>> axes = sw.pl.scores(sections["P2"])
    """
    table = get_table(data, table_key)
    values = _score_table(table, key)
    classes = list(values) if classes is None else list(classes)
    missing = [c for c in classes if c not in values]
    if missing:
        raise KeyError(f"There are no scores for {listing(missing)} (found: {listing(values)}).")
    only = None if section is None else [section]
    panel = _panels(data, table_key, image_key, coordinate_system, library_key, only, diameter_um)[0]
    axes = _axes(None, len(classes) + 1, min(n_columns, len(classes) + 1), tallest=panel.tallness)
    draw_background(axes[0], panel)
    axes[0].set_title(f"{panel.section.name}: H&E", fontsize=10)
    for ax, name in zip(axes[1:], classes, strict=False):
        draw_background(ax, panel)
        ax.set_title(_asked(table, name), fontsize=10)
        _draw_scores(ax, panel, values[name].to_numpy()[panel.section.rows], cmap, alpha, is_grid(table))
    return list(axes)


def _draw_scores(ax: Axes, panel: Any, score: np.ndarray, cmap: str, alpha: float, square: bool) -> None:
    import matplotlib as mpl
    from matplotlib.colors import Normalize

    rows = np.flatnonzero(np.isfinite(score))
    if not len(rows):
        return
    low, high = np.percentile(score[rows], [2, 98])
    norm = Normalize(low, high if high > low else low + 1e-6)
    # low scores are see-through, so that the tissue stays readable where the class is not
    share = norm(score[rows]).clip(0, 1)
    colours = mpl.colormaps[cmap](share)
    colours[:, 3] = alpha * (0.15 + 0.85 * share)
    draw_tiles(ax, panel, rows, colours, None, square=square)
    bar = ax.figure.colorbar(mpl.cm.ScalarMappable(norm, cmap), ax=ax, fraction=0.04, pad=0.02)
    bar.ax.tick_params(labelsize=7)


def _score_table(table: AnnData, key: str) -> pd.DataFrame:
    slot = _keys.scores(key)
    if slot in table.obsm and key in table.uns:
        return pd.DataFrame(np.asarray(table.obsm[slot]), columns=[str(c) for c in table.uns[key]["classes"]])
    if key in table.obs and pd.api.types.is_numeric_dtype(table.obs[key]):
        return pd.DataFrame({key: table.obs[key].to_numpy()})
    raise KeyError(
        f"There are no scores for {key!r} (.obsm holds {listing(table.obsm)}). Run sw.tl.zero_shot_annotate(data, …) first."
    )


def _asked(table: AnnData, name: str) -> str:
    """The words of a query rather than the name of its column; a class is its own title."""
    asked = (recorded(table, name) or {}).get("text", [name])
    return " / ".join(f"“{text}”" for text in asked) if asked != [name] else name


def _panels(
    data: Any, table_key: Any, image_key: Any, system: Any, library_key: Any, only: Any, diameter_um: Any
) -> Any:
    return panels(
        data,
        table_key=table_key,
        image_key=image_key,
        coordinate_system=system,
        library_key=library_key,
        only=only,
        diameter_um=diameter_um,
    )


def _palette(table: AnnData, key: str, names: list[str], palette: Mapping[str, str] | None) -> dict[str, str]:
    from matplotlib.colors import to_hex

    if palette is not None:
        missing = [n for n in names if n not in palette]
        if missing:
            raise KeyError(f"palette has no colour for {listing(missing)}.")
        colours = [to_hex(palette[n]) for n in names]
    elif len(table.uns.get(f"{key}_colors", ())) == len(names) > 0:
        colours = [str(c) for c in table.uns[f"{key}_colors"]]
    else:
        from scanpy.plotting import palettes

        # by place among all labels, so that a label has one colour in every section
        order = list(dict.fromkeys([*_classes(table, key), *names]))
        source = palettes.default_20 if len(order) <= 20 else palettes.default_102
        colours = [source[order.index(name) % len(source)] for name in names]
    table.uns[f"{key}_colors"] = colours
    return dict(zip(names, colours, strict=True))


def _classes(table: AnnData, key: str) -> list[str]:
    """All labels that rows could choose from; none where that is not stated."""
    stated = table.uns.get(key)
    return [str(c) for c in stated["classes"]] if isinstance(stated, Mapping) and "classes" in stated else []


def _opacity(table: AnnData, key: str, alpha: float, labels: pd.Series) -> np.ndarray:
    """Opacity of each row; rows without a label keep that of the labels."""
    column = _keys.confidence(key)
    if column not in table.obs or not pd.api.types.is_numeric_dtype(table.obs[column]):
        raise KeyError(
            f"confidence=True needs numbers in .obs[{column!r}] (found: {listing(table.obs)}). Run "
            "sw.tl.zero_shot_annotate(data, …) first."
        )
    sure = np.nan_to_num(table.obs[column].to_numpy(dtype=float), nan=1.0)
    return np.where(labels.isna(), alpha, alpha * _visible(sure, table, key, labels))


def _visible(confidence: Any, table: AnnData, key: str, labels: pd.Series) -> Any:
    """Share of the opacity that a confidence leaves, from a guess among the labels to the highest that occurs."""
    guess, highest = _range(table, key, labels)
    return 0.1 + 0.9 * np.clip((confidence - guess) / (highest - guess), 0, 1)


def _range(table: AnnData, key: str, labels: pd.Series) -> tuple[float, float]:
    n = len(_classes(table, key) or labels.cat.categories)
    guess = 1 / max(n, 2)
    sure = table.obs[_keys.confidence(key)].to_numpy(dtype=float)
    # a calibrated confidence may never come near 1
    highest = np.nanquantile(sure, 0.98) if np.isfinite(sure).any() else 1.0
    return guess, max(float(highest), guess + 0.05)


def _legend(
    ax: Axes, colours: Mapping[str, str], *, abstained: bool, steps: Mapping[float, float] | None = None
) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=c, label=n) for n, c in colours.items()]
    if abstained:
        handles.append(Patch(color=GREY, label="no label"))
    handles += [
        Patch(facecolor="black", edgecolor="none", alpha=float(opacity), label=f"confidence {c:.0%}")
        for c, opacity in (steps or {}).items()
    ]
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)


def _axes(axes: Any, n: int, n_columns: int, legend_inches: float = 0.0, tallest: float = 1.0) -> list[Axes]:
    if axes is not None:
        axes = list(np.ravel(axes))
        if len(axes) < n:
            raise ValueError(f"{n} axes are needed; {len(axes)} were given.")
        return axes[:n]
    import matplotlib.pyplot as plt

    n_rows = -(-n // n_columns)
    # as tall as the slide, so that wide slides leave no gaps between the rows
    size = (4.2 * n_columns + legend_inches, (4 * min(tallest, 2.0) + 0.3) * n_rows)
    figure, grid = plt.subplots(n_rows, n_columns, figsize=size, squeeze=False, layout="constrained")
    for ax in grid.ravel()[n:]:
        figure.delaxes(ax)
    return list(grid.ravel()[:n])
