"""The tiles that score best for a label, as the slide shows them."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import shorten
from typing import TYPE_CHECKING, Unpack

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.contract import holds_numbers, number_column, number_matrix
from spatialwhisperer._access.elements.colours import classes_of, lost_classes
from spatialwhisperer._access.names import check_names
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.table.groups import group_name
from spatialwhisperer._access.tiles.intensity import BlackTiles, check_intensity
from spatialwhisperer._access.tiles.plan import plan_tiles
from spatialwhisperer._access.tiles.reader import TileReader
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.values import check_tile
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import listing
from spatialwhisperer._provenance import recorded, recorded_as
from spatialwhisperer.pl._drawing import canvas
from spatialwhisperer.pl._drawing.panels import choose_sections, draw_scale_bar
from spatialwhisperer.pl.annotation import asked, coarser_score
from spatialwhisperer.pp.features.images import FeatureRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from spatialwhisperer._access.sections.section import Section
    from spatialwhisperer._access.slide_options import SlideOptions

# more pixels than a thumbnail on the page can show only make the figure heavy
_MOST_PX = 320
_INCHES = 1.45


@dataclass(frozen=True)
class _Pick:
    """One tile to draw: its section, its position there and its row in the table."""

    section: Section
    position: int
    row: int


@shared
@checked
def top_tiles(
    data: AnnData | SpatialData,
    label: str,
    *,
    key: str = _keys.LABEL,
    n: int = 12,
    lowest: bool = False,
    per_section: bool = False,
    sections: Sequence[str] | None = None,
    caption: str | None = None,
    tile_um: float | None = None,
    n_columns: int = 6,
    **slide: Unpack[SlideOptions],
) -> list[Axes]:
    """Draw the tiles that score highest for a label or a query.

    Tiles are cut from the slide in the size that the model saw, and no two of them overlap: of tiles that lie closer
    together only the best is shown. Only the tiles that are drawn are read. The score stands under each tile, and a bar in the
    first one gives the scale of all.

    Parameters
    ----------
    data
        Annotated by :func:`spatialwhisperer.tl.zero_shot_annotate` or queried by :func:`spatialwhisperer.tl.query`.
    label
        One of the labels; a region or a coarser term that rows got instead of one, whose score is the sum of the probabilities of
        its labels; or a column of numbers in ``.obs``, such as that of a query.
    key
        Column of the labels, whose scores are read.
    n
        How many tiles; fewer are drawn where there are not so many apart.
    lowest
        Draw as many tiles with the lowest scores below, for contrast.
    per_section
        Draw ``n`` tiles from each section, instead of the best of all sections.
    sections
        Which sections to look at, in which order; ``None`` takes all.
    caption
        Column of ``.obs`` to write under each tile, such as known labels.
    tile_um
        Edge of a tile in microns; ``None`` takes that of the model, else that of the image features or of
        :func:`spatialwhisperer.pp.tiles`. Of several sizes the largest is cut, and the others are outlined.
    n_columns
        Tiles in a row.
    %(slide)s

    Returns
    -------
    The axes, one per tile.

    Raises
    ------
    KeyError
        If there is no such label, column or section, or no image.
    ValueError
        If no row has a score, a section is named twice, a number is not positive, the size or scale of tiles is not known, or the
        image holds nothing or other numbers than its type states.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> section = sw.datasets.simulate_sections(1, 60, n_genes=50, n_reference_cells=50, random_state=0).sections["P1"]
    >>> sw.tl.zero_shot_annotate(section, ["fat cell", "T cell", "fibroblast"], unknown="label")
    >>> len(sw.pl.top_tiles(section, "fat cell", n=6))
    6
    """
    opened = Slide.open(data, drawing=True, **slide)
    check_names([opened])
    table = opened.table
    scores = _scores(table, label, key)
    if caption is not None and caption not in table.obs:
        raise KeyError(f"caption={caption!r} is not in .obs (found: {listing(table.obs)}).")
    sizes = _sizes(opened, key if label not in table.obs else label) if tile_um is None else [_checked(tile_um)]
    plan = plan_tiles(opened, "nan")
    chosen = choose_sections(plan.sections, sections)
    for section in chosen:
        check_intensity(section)
    scores = np.where(plan.off, np.nan, scores)
    if not any(np.isfinite(scores[s.rows]).any() for s in chosen):
        raise ValueError(f"No row{'' if sections is None else ' of these sections'} has a score for {label!r}.")
    groups = [[s] for s in chosen] if per_section else [chosen]
    blocks = []
    for group in groups:
        name = group[0].name if per_section and len(groups) > 1 else ""
        best = spread_out(group, scores, n, max(sizes))
        blocks.append((f"{name}\nhighest" if lowest and name else "highest" if lowest else name, best))
        if lowest:
            worst = spread_out(group, -scores, n, max(sizes), away_from=best)
            blocks.append((f"{name}\nlowest" if name else "lowest", worst))
    texts = None if caption is None else pd.Series(table.obs[caption]).astype(object)
    named = len(chosen) > 1 and not per_section
    title = f"{asked(table, label)}: tiles of {max(sizes):g} µm"
    return _draw([b for b in blocks if b[1]], scores, sizes, n_columns, title, texts, named)


def spread_out(
    group: Sequence[Section], scores: np.ndarray, n: int, tile_um: float, away_from: Sequence[_Pick] = ()
) -> list[_Pick]:
    """The rows with the highest scores whose tiles do not overlap, best first; ties go to the earlier row.

    Parameters
    ----------
    group
        Sections to choose from, each with its scale.
    scores
        Score of each row of the table, shape (n_obs,); NaN is never chosen.
    n
        How many at most.
    tile_um
        Edge of a tile in microns: squares whose centres are less than that apart along both axes overlap.
    away_from
        Tiles that must not be overlapped either.
    """
    left = [np.where(np.isfinite(scores[s.rows]), scores[s.rows], -np.inf) for s in group]
    for section, values in zip(group, left, strict=True):
        for pick in away_from:
            if pick.section is section:
                values[_overlapping(section, pick.position, tile_um)] = -np.inf
    picks: list[_Pick] = []
    while len(picks) < n:
        tops = [float(values.max(initial=-np.inf)) for values in left]
        which = int(np.argmax(tops))
        if not np.isfinite(tops[which]):
            break
        section, values = group[which], left[which]
        position = int(values.argmax())
        picks.append(_Pick(section, position, int(section.rows[position])))
        values[_overlapping(section, position, tile_um)] = -np.inf
    return picks


def _overlapping(section: Section, position: int, tile_um: float) -> np.ndarray:
    """Rows of a section whose tiles overlap the tile at a position, itself among them."""
    apart_um = (np.abs(section.xy_px - section.xy_px[position]) * section.pixel_um(section.mpp or 1.0)).max(axis=1)
    # tiles of a grid touch, and rounding must not make them overlap
    return apart_um < 0.999 * tile_um


def _scores(table: AnnData, label: str, key: str) -> np.ndarray:
    scores_key = _keys.scores(key)
    classes = classes_of(table, key) if scores_key in table.obsm else []
    if label in classes:
        every = number_matrix(table.obsm[scores_key], f".obsm[{scores_key!r}]", least_columns=len(classes))
        return every[:, classes.index(label)]
    if (summed := coarser_score(table, key, label)) is not None:
        return summed
    if label in table.obs:
        values = pd.Series(table.obs[label])
        if holds_numbers(values):
            return number_column(values, f".obs[{label!r}]")
        raise KeyError(
            f".obs[{label!r}] holds no numbers. Name one label (found: {listing(classes)}) or a column of numbers."
        )
    if lost := lost_classes(table, key):
        raise KeyError(f"There are no class names for the scores of {key!r}: {lost}")
    raise KeyError(
        f"There are no scores for {label!r} (labels of {key!r}: {listing(classes)}). Run "
        f"sw.tl.zero_shot_annotate(data, [{label!r}, …]) or sw.tl.query(data, {label!r}) first; the result of a query is "
        f"drawn with its column, label={_keys.QUERY!r}."
    )


def _sizes(slide: Slide, key: str) -> list[float]:
    """Edges of the tiles in microns: of the model behind a result, else of its features, of the tiles, or of other features."""
    model = (recorded(slide.table, key) or {}).get("model") or {}
    if model.get("tile_um"):
        return sorted(float(um) for um in np.atleast_1d(model["tile_um"]))
    encoder = (model.get("encoders") or {}).get("image")
    own = [] if encoder is None else [_keys.features(encoder), encoder]
    others = [name for name in slide.table.uns.get(_keys.UNS, {}) if name in slide.table.obsm]
    for names, known in ((own, ()), (others, () if slide.tiles is None else (slide.tiles.tile_um,))):
        records = [recorded_as(slide.table, name, FeatureRecord) for name in names]
        for sizes in (known, *(r.recipe.tile_um for r in records if r is not None)):
            if sizes:
                return sorted(float(um) for um in sizes)
    raise ValueError(
        "The size of the tiles is not known: neither image features nor a model are recorded in this table. Pass tile_um=…."
    )


def _checked(tile_um: float) -> float:
    check_tile(tile_um, None)
    return float(tile_um)


def _read(picks: Sequence[_Pick], tile_um: float) -> dict[int, np.ndarray]:
    """Pixels of each picked row, shape (h, w, 3), at the resolution of the slide up to the size of a thumbnail."""
    out, black = {}, BlackTiles()
    for section in {id(p.section): p.section for p in picks}.values():
        finest = section.image.levels[0].scale_x if section.image else 1.0
        tile_px = int(np.clip(round(tile_um / (section.mpp or 1.0) / finest), 1, _MOST_PX))
        reader = TileReader(section, tile_um=tile_um, tile_px=tile_px)
        for positions, tiles in reader.read(np.unique([p.position for p in picks if p.section is section])):
            black.look(section.rows[positions], tiles)
            for position, tile in zip(positions, tiles, strict=True):
                out[int(section.rows[position])] = np.moveaxis(tile, 0, -1)
    # the caller may have asked for the darkest ones
    black.report()
    return out


def _draw(
    blocks: Sequence[tuple[str, list[_Pick]]],
    scores: np.ndarray,
    sizes: Sequence[float],
    n_columns: int,
    title: str,
    texts: pd.Series | None,
    named: bool,
) -> list[Axes]:
    import matplotlib.pyplot as plt

    n_columns = min(n_columns, max(len(picks) for _, picks in blocks))
    lines = [picks[i : i + n_columns] for _, picks in blocks for i in range(0, len(picks), n_columns)]
    names = [name if i == 0 else "" for name, picks in blocks for i in range(0, len(picks), n_columns)]
    pixels = _read([pick for line in lines for pick in line], max(sizes))
    shown = scores[[pick.row for line in lines for pick in line]]
    digits = 2 if np.ptp(shown) >= 0.1 else 3
    beneath = 1 + named + (texts is not None)
    size = (_INCHES * n_columns + 0.3, (_INCHES + 0.17 * beneath) * len(lines) + 0.35)
    figure, grid = plt.subplots(len(lines), n_columns, figsize=size, squeeze=False, layout="constrained")
    figure.suptitle(canvas.wrapped(title, size[0]), fontsize=10)
    axes: list[Axes] = []
    for line, name, row_axes in zip(lines, names, grid, strict=True):
        for pick, ax in zip(line, row_axes, strict=False):
            _show(ax, pixels[pick.row], sizes, bar=not axes)
            under = [f"{scores[pick.row]:.{digits}f}".replace("-", "−")]
            under += [pick.section.name] if named else []
            if texts is not None:
                value = texts.iloc[pick.row]
                under.append("–" if pd.isna(value) else shorten(group_name(value), 24, placeholder="…"))
            ax.set_xlabel("\n".join(under), fontsize=8, labelpad=2)
            axes.append(ax)
        row_axes[0].set_ylabel(name, fontsize=9)
        for ax in row_axes[len(line) :]:
            figure.delaxes(ax)
    return axes


def _show(ax: Axes, pixels: np.ndarray, sizes: Sequence[float], *, bar: bool) -> None:
    from matplotlib.patches import Rectangle

    edge = max(sizes)
    ax.imshow(pixels, extent=(0, edge, edge, 0), interpolation="antialiased")
    ax.set(xticks=[], yticks=[], xlim=(0, edge), ylim=(edge, 0))
    for spine in ax.spines.values():
        spine.set(color="#d0d0d0", linewidth=0.6)
    for um in sizes[:-1]:
        corner = (edge - um) / 2
        ax.add_patch(Rectangle((corner, corner), um, um, fill=False, edgecolor="black", linewidth=0.8, linestyle="--"))
    if bar:
        draw_scale_bar(ax, 1.0, most=0.5)
