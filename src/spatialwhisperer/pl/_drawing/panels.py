"""Sections with their background and scale bar, ready for marks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._access.images import read_thinned
from spatialwhisperer._messages import inform, listing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes

    from spatialwhisperer._access.records import TilesRecord
    from spatialwhisperer._access.sections.section import Section
    from spatialwhisperer._access.slide import Slide

_ENOUGH_PX = 1200
"""Pixels of a background along its longer edge that are enough; more only make the figure heavy."""

_ENOUGH_ROWS = 20_000
"""Rows whose nearest neighbour is looked for, to tell how far rows lie apart."""

_MARK = 0.8
"""Diameter of a mark over the distance between neighbouring rows, so that neighbours stay apart."""


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
        Size of a mark, in widths of full-resolution pixels.
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
        """Height of the shown part over its width, on the tissue."""
        left, top, right, bottom = self.box_px
        return (bottom - top) * _pixel_tallness(self.section) / max(right - left, 1e-9)


def _pixel_tallness(section: Section) -> float:
    """Height of a pixel over its width, on the tissue."""
    width, height = section.pixel_um(1.0)
    return height / width


def panels_of(
    slide: Slide, *, only: Iterable[str] | str | None = None, diameter_um: float | None = None
) -> list[Panel]:
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


def panel_of(slide: Slide, *, section: str | None = None, diameter_um: float | None = None) -> Panel:
    """One section of a slide with its background: the one that is asked for, else the first, which is said where there are others.

    Parameters
    ----------
    slide, diameter_um
        As in :func:`panels_of`, which also says what errors are raised.
    section
        Which section.
    """
    names = [s.name for s in slide.imaged()]
    if section is None and len(names) > 1:
        inform(
            f"{names[0]!r} is drawn, the first of {len(names)} sections ({listing(names, 6)}). Draw another one with section=…."
        )
    return panels_of(slide, only=names[:1] if section is None else section, diameter_um=diameter_um)[0]


def _grid_um(tiles: TilesRecord) -> float:
    """Size of the marks of a grid: tiles that overlap would hide each other."""
    return min(tiles.tile_um, tiles.stride_um or tiles.tile_um)


def choose_sections(sections: Sequence[Section], only: Iterable[str] | str | None) -> list[Section]:
    """The sections that are asked for, in that order; ``None`` takes all, in the order of the slide.

    Raises
    ------
    KeyError
        If one does not exist, or none is asked for.
    ValueError
        If the slide has no rows, or one is asked for twice.
    """
    if not sections:
        raise ValueError("The table has no rows, so there is nothing to draw.")
    if only is None:
        return list(sections)
    wanted = [only] if isinstance(only, str) else list(only)
    by_name = {s.name: s for s in sections}
    missing = [name for name in wanted if name not in by_name]
    if missing or not wanted:
        raise KeyError(f"There are no sections {listing(missing)} (found: {listing(by_name)}).")
    if twice := [name for name in by_name if wanted.count(name) > 1]:
        raise ValueError(f"sections names {listing(twice)} more than once. Name each section once.")
    return [by_name[name] for name in wanted]


def _panel(section: Section, diameter: float, *, square: bool) -> Panel:
    image = section.image
    if image is None:  # `imaged` has checked that there is one
        raise KeyError(f"Section {section.name!r} has no image.")
    margin = max(2 * diameter, 0.03 * max(image.size_px)) * np.array([1, 1 / _pixel_tallness(section)])
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
    """Size of a mark in widths of pixels: as asked, as the tiles, or as the rows lie."""
    if asked_um is not None and section.mpp is None:
        raise ValueError(
            f"diameter_um needs the microns per pixel of section {section.name!r}, which are not known. Leave it out, or pass mpp=…."
        )
    um = tile_um if asked_um is None else asked_um
    if um is not None and section.mpp is not None:
        return um / section.pixel_um(section.mpp)[0]
    from scipy.spatial import cKDTree

    if len(section.xy_px) < 3:
        return 0.02 * max(section.image.size_px) if section.image else 50.0
    # a median of some rows is as good where there are very many
    xy = section.xy_px * [1, _pixel_tallness(section)]
    asked = xy[:: max(1, len(xy) // _ENOUGH_ROWS)]
    distance, _ = cKDTree(xy, balanced_tree=False, compact_nodes=False).query(asked, k=2)
    return _MARK * float(np.median(distance[:, 1]))


def draw_background(ax: Axes, panel: Panel) -> None:
    """Show the slide with a scale bar, without ticks."""
    left, top, right, bottom = panel.box_px
    ax.imshow(panel.background, extent=(left, right, bottom, top), interpolation="antialiased")
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_aspect(_pixel_tallness(panel.section))
    for spine in ax.spines.values():
        spine.set_visible(False)
    if panel.section.mpp is not None:
        width_um, _ = panel.section.pixel_um(panel.section.mpp)
        draw_scale_bar(ax, width_um, most=0.22)


def draw_scale_bar(ax: Axes, unit_um: float, *, most: float) -> None:
    """Draw a bar of a round length into the lower left corner of an image.

    Parameters
    ----------
    ax
        Axes whose y axis points down.
    unit_um
        Microns per unit of the x axis.
    most
        Longest bar, as a fraction of the width.
    """
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    wide, tall = right - left, bottom - top
    lengths_um = [m * 10.0**power for power in range(6) for m in (1, 2, 5)]
    length = max((um for um in lengths_um if um <= most * wide * unit_um), default=most * wide * unit_um)
    x0, y0 = left + 0.03 * wide, bottom - 0.03 * tall
    # white below black, so that it is seen on any tissue
    for width, colour in ((4.5, "white"), (3, "black")):
        ax.plot([x0, x0 + length / unit_um], [y0, y0], color=colour, lw=width, solid_capstyle="butt")
    text = f"{length:g} µm" if length < 1000 else f"{length / 1000:g} mm"
    box = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1}
    ax.annotate(
        text, (x0, y0), (0, 4), textcoords="offset points", va="bottom", ha="left", fontsize=8, bbox=box, zorder=4
    )
