"""The slide as a background, and tiles drawn on it at their true size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer import _keys
from spatialwhisperer._access import get_table, read_pixels, sections
from spatialwhisperer._provenance import recorded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes

    from spatialwhisperer._access import Section

GREY = "#b8b8b8"


@dataclass(frozen=True)
class Panel:
    """A section ready to draw.

    Attributes
    ----------
    section
        Rows and centres.
    background
        Coarse RGB picture, shape (h, w, 3), or ``None``.
    box_px
        Left, top, right and bottom of the shown part, in full-resolution pixels.
    diameter_px
        Size of a mark, in full-resolution pixels.
    """

    section: Section
    background: np.ndarray | None
    box_px: tuple[float, float, float, float]
    diameter_px: float

    @property
    def tallness(self) -> float:
        """Height of the shown part over its width."""
        left, top, right, bottom = self.box_px
        return (bottom - top) / max(right - left, 1e-9)


def panels(
    data: Any,
    *,
    table_key: str | None,
    image_key: str | Mapping[str, str] | None,
    coordinate_system: str | None,
    library_key: str | None,
    only: Sequence[str] | None,
    diameter_um: float | None,
    max_px: int = 1600,
) -> list[Panel]:
    """Sections of the data with their background.

    Raises
    ------
    KeyError
        If a section that is asked for does not exist.
    """
    table = get_table(data, table_key)
    found_sections = sections(
        data,
        table_key=table_key,
        image_key=image_key,
        coordinate_system=coordinate_system,
        library_key=library_key,
        need_mpp=False,
    )
    names = [s.name for s in found_sections]
    wanted = names if only is None else list(only)
    missing = [name for name in wanted if name not in names]
    if missing:
        raise KeyError(f"There are no sections {missing} (found: {names}).")
    return [_panel(s, table, diameter_um, max_px) for s in found_sections if s.name in wanted]


def _panel(section: Section, table: AnnData, diameter_um: float | None, max_px: int) -> Panel:
    diameter = _diameter_px(section, table, diameter_um)
    image = section.image
    if image is None:
        raise ValueError(f"Section {section.name!r} has no image.")
    margin = max(2 * diameter, 0.03 * max(image.size_px))
    left, top = np.maximum(section.xy_px.min(axis=0) - margin, 0)
    right, bottom = np.minimum(section.xy_px.max(axis=0) + margin, image.size_px)
    wide = max(right - left, bottom - top)
    # the coarsest level that still fills the picture
    enough = [level for level in image.levels if wide / level.scale_x >= max_px] or [image.levels[0]]
    level = enough[-1]
    box = [int(left / level.scale_x), int(top / level.scale_y), int(right / level.scale_x), int(bottom / level.scale_y)]
    step = max(1, int(wide / level.scale_x // max_px))
    pixels = read_pixels(level, *box)[:, ::step, ::step]
    return Panel(section, np.moveaxis(pixels, 0, -1), (float(left), float(top), float(right), float(bottom)), diameter)


def _diameter_px(section: Section, table: AnnData, diameter_um: float | None) -> float:
    """Size of a mark: as asked, as the tiles, or as the spots lie."""
    if diameter_um is None:
        spec = recorded(table, _keys.TILES) or {}
        diameter_um = spec.get("tile_um") if spec.get("at") == "grid" else None
    if diameter_um is not None:
        if section.mpp is None:
            raise ValueError(
                f"diameter_um needs the microns per pixel of section {section.name!r}, which are not known."
            )
        return diameter_um / section.mpp
    from scipy.spatial import cKDTree

    if len(section.xy_px) < 3:
        return 0.02 * max(section.image.size_px) if section.image else 50.0
    distance, _ = cKDTree(section.xy_px).query(section.xy_px, k=2)
    return 0.8 * float(np.median(distance[:, 1]))


def draw_background(ax: Axes, panel: Panel) -> None:
    """Show the slide, without ticks."""
    left, top, right, bottom = panel.box_px
    ax.imshow(panel.background, extent=(left, right, bottom, top), interpolation="antialiased")
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_aspect("equal")
    for spine in ax.spines.values():
        spine.set_visible(False)
    _scale_bar(ax, panel)


def _scale_bar(ax: Axes, panel: Panel) -> None:
    if panel.section.mpp is None:
        return
    left, _, right, bottom = panel.box_px
    lengths_um = (50, 100, 200, 500, 1000, 2000, 5000)
    target = 0.22 * (right - left) * panel.section.mpp
    length = max((um for um in lengths_um if um <= target), default=lengths_um[0])
    x0, y0 = left + 0.03 * (right - left), bottom - 0.03 * (bottom - panel.box_px[1])
    ax.plot([x0, x0 + length / panel.section.mpp], [y0, y0], color="black", lw=3, solid_capstyle="butt")
    text = f"{length} µm" if length < 1000 else f"{length // 1000} mm"
    box = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1}
    ax.text(x0, y0 - 0.012 * (bottom - panel.box_px[1]), text, va="bottom", ha="left", fontsize=8, bbox=box)


def draw_tiles(
    ax: Axes, panel: Panel, rows: np.ndarray, colours: Any, alpha: Any = 1.0, *, square: bool = False
) -> Any:
    """Draw the chosen rows of a section (positions within it) as circles or squares at their true size."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Circle, Rectangle

    d = panel.diameter_px
    xy = panel.section.xy_px[rows]
    if square:
        patches = [Rectangle((x - d / 2, y - d / 2), d, d) for x, y in xy]
    else:
        patches = [Circle((x, y), d / 2) for x, y in xy]
    collection = PatchCollection(patches, facecolors=colours, alpha=alpha, linewidths=0)
    return ax.add_collection(collection)


def is_grid(table: AnnData) -> bool:
    """Whether the rows are tiles of a grid, which are drawn as squares."""
    return (recorded(table, _keys.TILES) or {}).get("at") == "grid"
