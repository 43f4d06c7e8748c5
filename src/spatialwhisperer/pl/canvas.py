"""What the pictures share: axes, legends, colours, and sections with their background and scale bar."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.elements.colours import colours_of, distinct
from spatialwhisperer._access.images import read_thinned
from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anndata import AnnData
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize

    from spatialwhisperer._access.records import TilesRecord
    from spatialwhisperer._access.section import Section
    from spatialwhisperer._access.slide import Slide

GREY = "#b8b8b8"
"""Colour of rows without a value."""

_ENOUGH_PX = 1200
"""Pixels of a background along its longer edge that are enough; more only make the figure heavy."""

_ENOUGH_ROWS = 20_000
"""Rows whose nearest neighbour is looked for, to tell how far rows lie apart."""

_MARK = 0.8
"""Diameter of a mark over the distance between neighbouring rows, so that neighbours stay apart."""

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


def legend(ax: Axes, handles: Sequence[Artist]) -> None:
    """Put a legend to the right of the axes, in as many columns as its entries need."""
    tall = ax.bbox.height / ax.figure.dpi / _AXES_OF_ROW
    ax.legend(
        handles=handles,
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        fontsize=8,
        ncols=_legend_columns(len(handles), tall),
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
    table: AnnData, key: str, names: Sequence[str], palette: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Colour of each category of a column: that of the palette, that of ``.uns``, or one by its place among all labels.

    Raises
    ------
    KeyError
        If the palette lacks a category.
    ValueError
        If the palette holds something else than colours.
    """
    from matplotlib.colors import to_hex

    if palette is not None:
        colours = [to_hex(c) for c in name_colours(names, palette).values()]
    else:
        colours = colours_of(table, key, names)
    return dict(zip(names, colours, strict=True))


def keep_colours(table: AnnData, colours: Mapping[str, Mapping[str, str]]) -> None:
    """Write the colours of columns to ``.uns['<key>_colors']`` when all is drawn: a call that fails changes nothing."""
    for key, chosen in colours.items():
        table.uns[f"{key}_colors"] = list(chosen.values())


def value_range(values: np.ndarray) -> Normalize:
    """Colour range from the 2nd to the 98th percentile of finite values."""
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
    return low, high if high > low else low + 1e-6


def colour_bar(ax: Axes, norm: Normalize, cmap: str, **options: Any) -> None:
    """Put a small colour bar beside the axes."""
    import matplotlib as mpl

    bar = ax.figure.colorbar(mpl.cm.ScalarMappable(norm, cmap), ax=ax, fraction=0.04, pad=0.02, **options)
    bar.ax.tick_params(labelsize=7)


# ------------------------------------------------------------------------------------------------- panels


@dataclass(frozen=True)
class Panel:
    """A section ready to draw.

    Attributes
    ----------
    section
        Rows, centres and scale.
    background
        Coarse RGB picture, shape (h, w, 3).
    box_px
        Left, top, right and bottom of the shown part, in full-resolution pixels.
    diameter_px
        Size of a mark, in full-resolution pixels.
    square
        Whether marks are squares, as the tiles of a grid are, or circles.
    """

    section: Section
    background: np.ndarray
    box_px: tuple[float, float, float, float]
    diameter_px: float
    square: bool = False

    @property
    def tallness(self) -> float:
        """Height of the shown part over its width."""
        left, top, right, bottom = self.box_px
        return (bottom - top) / max(right - left, 1e-9)


def panels(slide: Slide, *, only: Iterable[str] | str | None = None, diameter_um: float | None = None) -> list[Panel]:
    """Sections of a slide with their background.

    Parameters
    ----------
    slide
        The slide, opened for drawing.
    only
        Which sections; ``None`` takes all.
    diameter_um
        Size of a mark in microns; ``None`` takes that of the tiles of a grid (where these overlap, their distance), else most of the
        distance between neighbours.

    Raises
    ------
    KeyError
        If a section that is asked for does not exist, or one has no image.
    ValueError
        If there are no rows, a coordinate is NaN, or ``diameter_um`` is given and the scale is not known.
    """
    grid = slide.tiles is not None and slide.tiles.at == "grid"
    tile_um = _grid_um(slide.tiles) if slide.tiles is not None and grid else None
    return [
        _panel(s, _diameter_px(s, diameter_um, tile_um), square=grid) for s in choose_sections(slide.imaged(), only)
    ]


def _grid_um(tiles: TilesRecord) -> float:
    """Size of the marks of a grid: tiles that overlap would hide each other."""
    return min(tiles.tile_um, tiles.stride_um or tiles.tile_um)


def choose_sections(sections: Sequence[Section], only: Iterable[str] | str | None) -> list[Section]:
    """The sections that are asked for, in the order of the slide; ``None`` takes all.

    Raises
    ------
    KeyError
        If one does not exist, or none is asked for.
    ValueError
        If the slide has no rows.
    """
    if not sections:
        raise ValueError("The table has no rows, so there is nothing to draw.")
    if only is None:
        return list(sections)
    wanted = [only] if isinstance(only, str) else list(only)
    names = [s.name for s in sections]
    missing = [name for name in wanted if name not in names]
    if missing or not wanted:
        raise KeyError(f"There are no sections {listing(missing)} (found: {listing(names)}).")
    return [s for s in sections if s.name in wanted]


def _panel(section: Section, diameter: float, *, square: bool) -> Panel:
    image = section.image
    if image is None:  # `imaged` has checked that there is one
        raise KeyError(f"Section {section.name!r} has no image.")
    margin = max(2 * diameter, 0.03 * max(image.size_px))
    left, top = np.maximum(section.xy_px.min(axis=0) - margin, 0)
    right, bottom = np.minimum(section.xy_px.max(axis=0) + margin, image.size_px)
    if right <= left or bottom <= top:
        raise ValueError(
            f"No row of section {section.name!r} lies on image {image.name!r}. Check image_key and coordinate_system."
        )
    wide = max(right - left, bottom - top)
    # the coarsest level that still fills the picture
    level = ([level for level in image.levels if wide / level.scale_x >= _ENOUGH_PX] or [image.levels[0]])[-1]
    _, height, width = level.pixels.shape
    x0, y0 = int(left / level.scale_x), int(top / level.scale_y)
    x1, y1 = min(width, int(np.ceil(right / level.scale_x))), min(height, int(np.ceil(bottom / level.scale_y)))
    step = max(1, int(wide / level.scale_x // _ENOUGH_PX))
    pixels = np.moveaxis(read_thinned(level, x0, y0, x1, y1, step), 0, -1)
    # of whole pixels of the level, so that the marks lie exactly where they belong
    box = (x0 * level.scale_x, y0 * level.scale_y, x1 * level.scale_x, y1 * level.scale_y)
    return Panel(section, pixels, box, diameter, square)


def _diameter_px(section: Section, asked_um: float | None, tile_um: float | None) -> float:
    """Size of a mark: as asked, as the tiles, or as the rows lie."""
    if asked_um is not None:
        if section.mpp is None:
            raise ValueError(
                f"diameter_um needs the microns per pixel of section {section.name!r}, which are not known. Leave it out, or pass mpp=…."
            )
        return asked_um / section.mpp
    if tile_um is not None and section.mpp is not None:
        return tile_um / section.mpp
    from scipy.spatial import cKDTree

    if len(section.xy_px) < 3:
        return 0.02 * max(section.image.size_px) if section.image else 50.0
    # a median of some rows is as good where there are very many
    asked = section.xy_px[:: max(1, len(section.xy_px) // _ENOUGH_ROWS)]
    distance, _ = cKDTree(section.xy_px, balanced_tree=False, compact_nodes=False).query(asked, k=2)
    return _MARK * float(np.median(distance[:, 1]))


def draw_background(ax: Axes, panel: Panel) -> None:
    """Show the slide with a scale bar, without ticks."""
    left, top, right, bottom = panel.box_px
    ax.imshow(panel.background, extent=(left, right, bottom, top), interpolation="antialiased")
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_aspect("equal")
    for spine in ax.spines.values():
        spine.set_visible(False)
    if panel.section.mpp is not None:
        draw_scale_bar(ax, panel.section.mpp, most=0.22)


def draw_scale_bar(ax: Axes, mpp: float, *, most: float) -> None:
    """Draw a bar of a round length into the lower left corner of an image.

    Parameters
    ----------
    ax
        Axes whose y axis points down.
    mpp
        Microns per unit of the axes.
    most
        Longest bar, as a fraction of the width.
    """
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    wide, tall = right - left, bottom - top
    lengths_um = [m * 10.0**power for power in range(6) for m in (1, 2, 5)]
    length = max((um for um in lengths_um if um <= most * wide * mpp), default=most * wide * mpp)
    x0, y0 = left + 0.03 * wide, bottom - 0.03 * tall
    # white below black, so that it is seen on any tissue
    for width, colour in ((4.5, "white"), (3, "black")):
        ax.plot([x0, x0 + length / mpp], [y0, y0], color=colour, lw=width, solid_capstyle="butt")
    text = f"{length:g} µm" if length < 1000 else f"{length / 1000:g} mm"
    box = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1}
    ax.annotate(
        text, (x0, y0), (0, 4), textcoords="offset points", va="bottom", ha="left", fontsize=8, bbox=box, zorder=4
    )
