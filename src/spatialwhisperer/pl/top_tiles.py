"""The tiles that score best for a label, as the slide shows them."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access import get_table
from spatialwhisperer._access.tile_plan import plan_tiles
from spatialwhisperer._access.tile_reader import TileReader
from spatialwhisperer._checks import check_tile
from spatialwhisperer._messages import listing
from spatialwhisperer._provenance import recorded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from spatialwhisperer._access import Section

# more pixels than a thumbnail on the page can show only make the figure heavy
_MOST_PX = 320
_INCHES = 1.45


@dataclass(frozen=True)
class _Pick:
    """One tile to draw: its section, its position there and its row in the table."""

    section: Section
    position: int
    row: int


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
    mpp: float | Mapping[str, float] | None = None,
    table_key: str | None = None,
    image_key: str | Mapping[str, str] | None = None,
    coordinate_system: str | None = None,
    library_key: str | None = None,
) -> list[Axes]:
    """Draw the tiles that score highest for a label or a query: what the model takes for it.

    Tiles are cut from the slide in the size that the model saw, and no two of them overlap: of tiles that lie closer
    together only the best is shown. Only the tiles that are drawn are read. The score stands under each tile, and a bar in the
    first one gives the scale of all.

    Parameters
    ----------
    data
        Annotated by :func:`spatialwhisperer.tl.zero_shot_annotate` or queried by :func:`spatialwhisperer.tl.query`.
    label
        One of the labels, or a column of numbers in ``.obs``, such as that of a query.
    key
        Column of the labels, whose scores are read.
    n
        How many tiles; fewer are drawn where there are not so many apart.
    lowest
        Draw as many tiles with the lowest scores below, for contrast.
    per_section
        So many tiles from each section, instead of the best of all sections.
    sections
        Which sections to look at; all if not given.
    caption
        Column of ``.obs`` to write under each tile, such as known labels.
    tile_um
        Edge of a tile in microns. Not given: what the image features were computed on, else that of the model; of several sizes
        the largest is cut, and the others are outlined.
    n_columns
        Tiles in a row.
    mpp
        Microns per full-resolution pixel, as in :func:`spatialwhisperer.pp.embed_images`.
    table_key, image_key, coordinate_system, library_key
        Where the table and image are, as in :func:`spatialwhisperer.pp.embed_images`.

    Returns
    -------
    The axes, one per tile.

    Raises
    ------
    KeyError
        If there is no such label, column or section, or no image.
    ValueError
        If no row has a score, a number is not positive, or the size or scale of tiles is not known.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections, reference = sw.datasets.simulate_sections(2, 60, n_genes=50, n_reference_cells=100, random_state=0)
    >>> model = sw.tl.train([sections["P1"], reference], max_epochs=20, tile_px=64)
    >>> sw.tl.zero_shot_annotate(sections["P2"], model=model)
    >>> label = sections["P2"]["table"].uns["sw_label"]["classes"][0]
    >>> axes = sw.pl.top_tiles(sections["P2"], label, n=6)
    """
    for name, value in {"n": n, "n_columns": n_columns}.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} must be a positive whole number, not {value!r}.")
    table = get_table(data, table_key)
    scores = _scores(table, label, key)
    if caption is not None and caption not in table.obs:
        raise KeyError(f"caption={caption!r} is not in .obs (found: {listing(table.obs)}).")
    features = _features_seen(table, key if label not in table.obs else label)
    sizes = _sizes(tile_um, features)
    plan = plan_tiles(
        data,
        table_key=table_key,
        image_key=features.get("image") if image_key is None else image_key,
        coordinate_system=features.get("coordinate_system") if coordinate_system is None else coordinate_system,
        library_key=features.get("library_key") if library_key is None else library_key,
        mpp=features.get("mpp") if mpp is None and image_key is None else mpp,
        spot_pitch_um=None,
        off_slide="nan",
        use_stored=True,
    )
    chosen = _chosen(plan.sections, sections)
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
    texts = None if caption is None else table.obs[caption].astype(object)
    named = len(chosen) > 1 and not per_section
    title = f"{_asked(table, label)}: tiles of {max(sizes):g} µm"
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
    apart = np.abs(section.xy_px - section.xy_px[position]).max(axis=1)
    # tiles of a grid touch, and rounding must not make them overlap
    return apart < 0.999 * tile_um / (section.mpp or 1.0)


def _scores(table: AnnData, label: str, key: str) -> np.ndarray:
    slot = _keys.scores(key)
    classes = [str(c) for c in table.uns[key]["classes"]] if slot in table.obsm and key in table.uns else []
    if label in classes:
        return np.asarray(table.obsm[slot], dtype=np.float64)[:, classes.index(label)]
    if label in table.obs:
        values = table.obs[label]
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            return values.to_numpy(dtype=np.float64, na_value=np.nan)
        raise KeyError(
            f".obs[{label!r}] holds no numbers. Name one label (found: {listing(classes)}) or a column of numbers."
        )
    raise KeyError(
        f"There are no scores for {label!r} (labels of {key!r}: {listing(classes)}). Run "
        f"sw.tl.zero_shot_annotate(data, [{label!r}, …]) or sw.tl.query(data, {label!r}) first; the result of a query is "
        f"drawn with its column, label={_keys.QUERY!r}."
    )


def _features_seen(table: AnnData, key: str) -> dict[str, Any]:
    """What is recorded of the image features behind a result: sizes, scale, image; empty where nothing is."""
    model = (recorded(table, key) or {}).get("model") or {}
    encoder = (model.get("encoders") or {}).get("image")
    own = [] if encoder is None else [_keys.features(encoder), encoder]
    others = [_keys.TILES, *(name for name in table.uns.get(_keys.UNS, {}) if name in table.obsm)]
    # joining sections loses what differs between them, such as the scale of their features, but not the model
    size = {"tile_um": model["tile_um"]} if model.get("tile_um") is not None else {}
    for slots, known in ((own, {}), (others, size)):
        for slot in slots:
            parameters = recorded(table, slot)
            if parameters and parameters.get("tile_um") is not None:
                return parameters | known
    return size


def _sizes(tile_um: float | None, features: Mapping[str, Any]) -> list[float]:
    """Edges of the tiles in microns."""
    if tile_um is not None:
        check_tile(tile_um, None)
        return [float(tile_um)]
    if "tile_um" not in features:
        raise ValueError(
            "The size of the tiles is not known: neither image features nor a model are recorded in this table. Pass tile_um=…."
        )
    return sorted(float(um) for um in np.atleast_1d(features["tile_um"]))


def _chosen(all_sections: Sequence[Section], only: Sequence[str] | None) -> list[Section]:
    if only is None:
        return list(all_sections)
    only = [only] if isinstance(only, str) else list(only)
    names = [s.name for s in all_sections]
    missing = [name for name in only if name not in names]
    if missing or not only:
        raise KeyError(f"There are no sections {listing(missing)} (found: {listing(names)}).")
    return [s for s in all_sections if s.name in only]


def _read(picks: Sequence[_Pick], tile_um: float) -> dict[int, np.ndarray]:
    """Pixels of each picked row, shape (h, w, 3), at the resolution of the slide up to the size of a thumbnail."""
    out = {}
    for section in {id(p.section): p.section for p in picks}.values():
        finest = section.image.levels[0].scale_x if section.image else 1.0
        tile_px = int(np.clip(round(tile_um / (section.mpp or 1.0) / finest), 1, _MOST_PX))
        reader = TileReader(section, tile_um=tile_um, tile_px=tile_px)
        for positions, tiles in reader.read(np.unique([p.position for p in picks if p.section is section])):
            for position, tile in zip(positions, tiles, strict=True):
                out[int(section.rows[position])] = np.moveaxis(tile, 0, -1)
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
    figure.suptitle(title, fontsize=10)
    axes = []
    for line, name, row_axes in zip(lines, names, grid, strict=True):
        for pick, ax in zip(line, row_axes, strict=False):
            _show(ax, pixels[pick.row], sizes, bar=not axes)
            under = [f"{scores[pick.row]:.{digits}f}".replace("-", "−")]
            under += [pick.section.name] if named else []
            if texts is not None:
                value = texts.iloc[pick.row]
                under.append("–" if pd.isna(value) else shorten(str(value), 24, placeholder="…"))
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
        _scale_bar(ax, edge)


def _scale_bar(ax: Axes, edge_um: float) -> None:
    lengths = [m * 10**p for p in range(5) for m in (1, 2, 5)]
    length = max((um for um in lengths if um <= 0.5 * edge_um), default=0.5 * edge_um)
    x0, y0 = 0.05 * edge_um, 0.94 * edge_um
    box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}
    ax.text(x0, y0 - 0.05 * edge_um, f"{length:g} µm", va="bottom", ha="left", fontsize=7, bbox=box)
    for width, colour in ((4.5, "white"), (2.5, "black")):
        ax.plot([x0, x0 + length], [y0, y0], color=colour, lw=width, solid_capstyle="butt")


def _asked(table: AnnData, label: str) -> str:
    """A query in its own words, a label by its name."""
    asked = (recorded(table, label) or {}).get("text")
    return label if not asked else " / ".join(f"“{text}”" for text in asked)
