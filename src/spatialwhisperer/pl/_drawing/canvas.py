"""What the pictures share: axes, legends and colours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.elements.colours import colours_of, distinct
from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize

GREY = "#b8b8b8"
"""Colour of rows without a value."""

_TITLE_INCHES = 0.085
"""Width of a letter of a title at 10 points."""

_AXES_OF_ROW = 0.77
"""Height of axes over that of their row before anything is laid out."""

_LEGEND_INCHES, _KEY_INCHES, _LETTER_INCHES, _ENTRY_INCHES = 1.6, 0.45, 0.065, 0.18
"""Of a legend at 8 points: least width, width of a patch and of a letter, and height of an entry."""


# ------------------------------------------------------------------------------------------------- axes


def make_axes(
    axes: Any, n: int, n_columns: int, *, tallest: float = 1.0, legends: Sequence[Sequence[str]] = ()
) -> list[Axes]:
    """Axes for sections: the caller's, or those of a new figure.

    Parameters
    ----------
    axes
        What the caller passed.
    n, n_columns
        How many axes are needed, and how many stand in a row.
    tallest
        Height over width of the tallest section.
    legends
        Names in each legend beside the axes of a row.

    Raises
    ------
    ValueError
        If the caller passed too few.
    """
    if axes is not None:
        return given_axes(axes, n)
    import matplotlib.pyplot as plt

    n_rows = -(-n // n_columns)
    # as tall as the slide, so that wide slides leave no gaps between the rows
    tall = 4 * min(tallest, 2.0) + 0.3
    size = (4.2 * n_columns + sum(legend_inches(names, tall) for names in legends), tall * n_rows)
    figure, grid = plt.subplots(n_rows, n_columns, figsize=size, squeeze=False, layout="compressed")
    for ax in grid.ravel()[n:]:
        figure.delaxes(ax)
    return list(grid.ravel()[:n])


def given_axes(axes: Any, n: int) -> list[Axes]:
    """The first ``n`` of the axes that the caller passed; fewer are an error."""
    axes = list(axes if isinstance(axes, Iterator) else np.ravel(axes))
    if wrong := [a for a in axes if not hasattr(a, "imshow")]:
        raise TypeError(f"axes must be axes of matplotlib, not {wrong[0]!r}.")
    if len(axes) < n:
        raise ValueError(f"{n} axes are needed; {len(axes)} were given.")
    return axes[:n]


def wrapped(title: str, inches: float) -> str:
    """A title at 10 points in as many lines as its room asks for."""
    return fill(title, max(12, int(inches / _TITLE_INCHES)))


# ------------------------------------------------------------------------------------------------- legends


def patches(colours: Mapping[str, Any]) -> list[Artist]:
    """Entries of a legend: a patch for each name."""
    from matplotlib.patches import Patch

    return [Patch(facecolor=colour, edgecolor="none", label=name) for name, colour in colours.items()]


def dots(colours: Mapping[str, Any], size: float = 5.0) -> list[Artist]:
    """Entries of a legend: a dot for each name."""
    from matplotlib.lines import Line2D

    return [Line2D([], [], ls="", marker="o", ms=size, mew=0, color=c, label=name) for name, c in colours.items()]


def legend(ax: Axes, handles: Sequence[Artist], title: str | None = None) -> None:
    """Put a legend to the right of the axes, in as many columns as its entries need."""
    tall = ax.bbox.height / ax.figure.dpi / _AXES_OF_ROW
    ax.legend(
        handles=handles,
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        fontsize=8,
        title=title,
        ncols=_legend_columns(len(handles) + (title is not None), tall),
    )


def legend_inches(names: Sequence[str], tall: float) -> float:
    """Room that a legend takes beside axes in a row of figures, in inches.

    Parameters
    ----------
    names
        Its entries.
    tall
        Height of the row in inches.
    """
    wide = _KEY_INCHES + _LETTER_INCHES * max((len(name) for name in names), default=0)
    return max(_LEGEND_INCHES, 0.2 + wide * _legend_columns(len(names), tall))


def _legend_columns(n: int, tall: float) -> int:
    return max(1, -(-n // max(1, int(_AXES_OF_ROW * tall / _ENTRY_INCHES))))


# ------------------------------------------------------------------------------------------------- colours


def name_colours(names: Sequence[str], palette: Mapping[str, str] | None = None) -> dict[str, str]:
    """Colour of each name: that of the palette, else distinct ones.

    Raises
    ------
    KeyError
        If the palette lacks a name.
    """
    if palette is not None and not isinstance(palette, Mapping):
        raise TypeError(f"palette must be a mapping from name to colour, not {palette!r}.")
    if palette is None:
        return dict(zip(names, distinct(len(names)), strict=True))
    from matplotlib.colors import is_color_like

    missing = [name for name in names if name not in palette]
    if missing:
        raise KeyError(f"palette has no colour for {listing(missing)}.")
    odd = [palette[name] for name in names if not is_color_like(palette[name])]
    if odd:
        raise ValueError(f"palette must hold colours that matplotlib knows; found {listing(map(repr, odd), 3)}.")
    return {name: palette[name] for name in names}


def label_colours(
    data: AnnData | Sequence[AnnData], key: str, names: Sequence[str], palette: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Colour of each name in a column: that of the palette, that of ``.uns``, or one by its place among all labels.

    Raises
    ------
    KeyError
        If the palette lacks a name.
    ValueError
        If the palette holds something else than colours.
    """
    from matplotlib.colors import to_hex

    if palette is not None:
        colours = [to_hex(c) for c in name_colours(names, palette).values()]
    else:
        colours = colours_of(data, key, names)
    return dict(zip(names, colours, strict=True))


def keep_colours(table: AnnData, colours: Mapping[str, Mapping[str, str]]) -> None:
    """Write the colours of columns to ``.uns['<key>_colors']`` when all is drawn: a call that fails changes nothing."""
    for key, chosen in colours.items():
        table.uns[f"{key}_colors"] = list(chosen.values())


def value_range(values: np.ndarray) -> Normalize:
    """Colour range from the 2nd to the 98th percentile of finite values; where these coincide, of all."""
    from matplotlib.colors import Normalize

    return Normalize(*_percentiles(values))


def equally_wide(values: Mapping[str, np.ndarray]) -> dict[str, Normalize | None]:
    """Colour range of each panel, all as wide as the widest, around the middle of its finite values; ``None`` where there are none."""
    from matplotlib.colors import Normalize

    finite = {name: column[np.isfinite(column)] for name, column in values.items()}
    own = {name: _percentiles(column) for name, column in finite.items() if len(column)}
    half = max(((high - low) / 2 for low, high in own.values()), default=0.0)
    middles = {name: (low + high) / 2 for name, (low, high) in own.items()}
    return {name: Normalize(middles[name] - half, middles[name] + half) if name in own else None for name in values}


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = (float(x) for x in np.percentile(values, [2, 98]))
    if high <= low:  # nearly all are one value, and the others are what there is to see
        low, high = float(values.min()), float(values.max())
    return low, high if high > low else low + 1e-6


def colour_bar(ax: Axes, norm: Normalize, cmap: str, values: np.ndarray, alpha: float = 1.0) -> None:
    """Put a small colour bar beside the axes, as opaque as the marks, with an arrow where drawn values lie beyond its end."""
    import matplotlib as mpl

    low, high = float(norm.vmin or 0), float(norm.vmax or 0)
    rounding = 1e-6 * (high - low)
    below, above = bool((values < low - rounding).any()), bool((values > high + rounding).any())
    extend = ("both" if above else "min") if below else ("max" if above else "neither")
    mappable = mpl.cm.ScalarMappable(norm, cmap)
    bar = ax.figure.colorbar(mappable, ax=ax, fraction=0.04, pad=0.02, extend=extend, alpha=alpha)
    bar.ax.tick_params(labelsize=7)
