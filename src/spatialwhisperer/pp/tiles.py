"""Where the tiles are: one on each row of a table, or a grid over a slide without expression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from spatialwhisperer import _keys
from spatialwhisperer._access.grid import add_instances_table
from spatialwhisperer._access.records import At, LowRes, OffSlide, TilesRecord, Where
from spatialwhisperer._access.result import Result
from spatialwhisperer._access.sections.section import say_scales
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.slide_options import SlideOptions, check_options, check_values
from spatialwhisperer._access.tables import is_spatialdata, obs_of, regions_of, without_predictions
from spatialwhisperer._access.tiles.plan import check_resolution, plan_tiles
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.values import check_key_added, check_tile, one_of, positive
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import listing
from spatialwhisperer._provenance import record
from spatialwhisperer.pp.grid import tile_grid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from spatialdata import SpatialData


@shared
@checked
def tiles(
    data: AnnData | SpatialData,
    *,
    tile_um: float,
    tile_px: int | None = None,
    at: At = "spots",
    stride_um: float | None = None,
    shapes_key: str | None = None,
    tissue: Literal["auto"] | np.ndarray | Mapping[str, np.ndarray] | None = "auto",
    min_tissue: float = 0.5,
    off_slide: OffSlide = "raise",
    on_low_res: LowRes = "warn",
    key_added: str = _keys.TILES,
    inplace: bool = True,
    **slide: Unpack[SlideOptions],
) -> AnnData | None:
    """State once where the tiles are and how large, for every later call that reads the image.

    No pixels are stored. The tile centres are written to the table; :func:`spatialwhisperer.pp.embed_images` and the functions of
    :mod:`spatialwhisperer.tl` take tile size, scale and image from the record of this call.

    Parameters
    ----------
    %(data)s
    tile_um
        Edge of a tile in microns.
    tile_px
        Edge of a tile in pixels, as an encoder gets it; ``None`` takes what the encoder takes.
    at
        ``"spots"`` and ``"cells"`` put one tile on each row of the table: on the centroid of the circle, polygon or label that the
        row annotates. ``"grid"`` covers the tissue of a slide without expression and makes a new table.
    stride_um
        Distance between neighbouring tiles of a grid in microns; ``None`` takes ``tile_um``, so that tiles touch.
    shapes_key
        Shapes or labels of a SpatialData to put the tiles on. The table that annotates them is used; one is made if there is none.
    tissue
        For a grid: ``"auto"`` finds the tissue by one threshold, so that some background must show; layers much paler than the rest may be
        missed, and marks of a red pen or brown dots count as tissue. Look where the tiles lie. ``None`` takes the whole image. Or a
        mask of shape (height, width) that covers the whole image at any resolution, or a mapping from image to mask. A mask is Boolean,
        or holds whole numbers of which 0 is the background; threshold probabilities first: ``mask > 0.5``.
    min_tissue
        For a grid: smallest fraction of a tile that must be tissue.
    off_slide
        What to do with rows whose centre lies outside the image: ``"raise"`` an error, or set them to ``"nan"``. Shapes of a
        SpatialData that reach onto the image from outside, fewer than half, are set to NaN with either: they lie across the edge of a
        part that was cut out of a slide.
    on_low_res
        What to do where the image has fewer than ``tile_px`` pixels across a tile: ``"warn"``, raise an ``"error"``, or ``"allow"``
        it.
    key_added
        Name of the table where this call makes one.
    inplace
        Write to ``data``, or return a table without genes and write nothing.
    %(slide)s

    Returns
    -------
    ``None``, or with ``inplace=False`` an AnnData of one row per tile and no genes. In place it writes:

    ``.obsm["sw_tiles"]`` : :class:`numpy.ndarray` (dtype ``float64``)
        x and y of each centre in full-resolution pixels of its image, shape (n, 2).
    ``.uns["spatialwhisperer"]["sw_tiles"]`` : :class:`dict`
        Tile sizes and options; scale, the rule that stated it, and image of each section.
    ``tables[key_added]``, ``shapes["<image>_tiles"]``
        For a grid over a SpatialData: the new table, which also has ``.obsm["spatial"]``, and the squares that it annotates. With
        another ``key_added`` these are ``shapes["<image>_<key_added>"]``, so that an image can have several grids. A grid of an earlier
        call is replaced where it is over no other images and there are no results on it.

    Raises
    ------
    KeyError
        If there is no image, or an element that is named does not exist.
    TypeError
        If there is no argument of a name, ``tile_um`` is not one number, or a mask does not hold numbers.
    ValueError
        If the scale is not known or stated in two ways that differ by more than 5 %, a size is not positive, a coordinate is NaN,
        centres lie outside the image, an argument does not apply, a name is taken (also by a grid that is not replaced), a mask holds
        fractions, NaN or negative numbers, or no tile of a grid fits into the tissue. Nothing is written then.

    Examples
    --------
    >>> import anndata as ad
    >>> import numpy as np
    >>> import spatialwhisperer as sw
    >>> adata = ad.AnnData(np.zeros((2, 0), np.float32))
    >>> adata.obsm["spatial"] = np.array([[100.0, 100.0], [300.0, 200.0]])
    >>> image = np.full((400, 400, 3), 200, np.uint8)
    >>> adata.uns["spatial"] = {"slide": {"images": {"fullres": image}, "scalefactors": {}}}
    >>> sw.pp.tiles(adata, tile_um=56, tile_px=112, mpp=0.5)
    >>> adata.obsm["sw_tiles"].tolist()
    [[100.0, 100.0], [300.0, 200.0]]
    """
    check_key_added(key_added)
    check_tile(tile_um, tile_px)
    for name, value, choices in (
        ("at", at, At),
        ("off_slide", off_slide, OffSlide),
        ("on_low_res", on_low_res, LowRes),
    ):
        one_of(name, value, choices)
    check_options(slide)
    check_values(slide)
    if at == "grid":
        _refuse(
            at,
            shapes_key=shapes_key,
            **{k: v for k, v in slide.items() if k in ("spot_pitch_um", "table_key", "library_key")},
        )
        return tile_grid(
            data,
            TilesRecord(float(tile_um), tile_px, at, off_slide, on_low_res, Where()),
            stride_um=tile_um if stride_um is None else positive("stride_um", stride_um),
            mpp=slide.get("mpp"),
            image_key=slide.get("image_key"),
            coordinate_system=slide.get("coordinate_system"),
            tissue=tissue,
            min_tissue=min_tissue,
            key_added=key_added,
            inplace=inplace,
        )
    _refuse(at, stride_um=stride_um, tissue=None if isinstance(tissue, str) and tissue == "auto" else tissue)
    options = slide.copy()
    options["table_key"], is_new = _table_of_shapes(data, slide.get("table_key"), shapes_key, key_added)
    written = False
    try:
        opened = Slide.open(data, use_tiles=False, **options)
        plan = plan_tiles(opened, off_slide)
        say_scales(plan.sections)
        if tile_px is not None:
            check_resolution(plan.sections, (tile_um,), tile_px, on_low_res)
        stated = TilesRecord(float(tile_um), tile_px, at, off_slide, on_low_res, opened.where)
        centres = plan.centres()
        if not inplace:
            return _bare_copy(opened, stated, centres)
        opened.put(Result(_keys.TILES, stated, obsm={_keys.TILES: centres}))
        written = True
    finally:
        if is_new and not written:
            del data.tables[options["table_key"]]  # type: ignore[union-attr]
    return None


def _refuse(at: At, **arguments: Any) -> None:
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        meant = (
            "tiles on the rows of a table (at='spots' or 'cells')" if at == "grid" else "a grid of tiles (at='grid')"
        )
        raise ValueError(f"{listing(given)} is meant for {meant}, not for at={at!r}. Leave it out.")


def _table_of_shapes(
    data: AnnData | SpatialData, table_key: str | None, shapes_key: str | None, key_added: str
) -> tuple[str | None, bool]:
    """Name of the table to use and whether it was made here."""
    names = _annotating(data, table_key, shapes_key)
    if not names and shapes_key is not None:
        add_instances_table(data, shapes_key, key_added)
        return key_added, True
    if key_added != _keys.TILES:
        raise ValueError(
            f"key_added={key_added!r} names a table that this call makes, and none is needed here: the centres go to "
            f".obsm[{_keys.TILES!r}] of the table that exists. Leave it out."
        )
    return names[0] if names else table_key, False


def _annotating(data: AnnData | SpatialData, table_key: str | None, shapes_key: str | None) -> list[str]:
    """Tables that annotate the shapes: one, or none."""
    if shapes_key is None:
        return []
    if not is_spatialdata(data):
        raise ValueError("shapes_key applies to SpatialData; an AnnData keeps its positions in .obsm['spatial'].")
    if shapes_key not in data.shapes and shapes_key not in data.labels:
        raise KeyError(f"There are no shapes {shapes_key!r} (found: {listing([*data.shapes, *data.labels])}).")
    names = [name for name, table in data.tables.items() if shapes_key in regions_of(table)]
    if table_key is not None:
        if table_key not in names:
            raise ValueError(
                f"Table {table_key!r} does not annotate {shapes_key!r} (tables that do: {listing(names)}). "
                "Leave table_key out, or link them with spatialdata.models.TableModel.parse."
            )
        return [table_key]
    names = without_predictions(data, names)
    if len(names) > 1:
        raise ValueError(f"Several tables annotate {shapes_key!r}: {listing(names)}. Choose one with table_key=….")
    return names


def _bare_copy(slide: Slide, stated: TilesRecord, centres: np.ndarray) -> AnnData:
    """The rows of a table without its genes and results."""
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    table = AnnData(csr_matrix((slide.n_rows, 0), dtype=np.float32), obs=obs_of(slide.table).copy())
    table.obsm["spatial"] = centres
    table.obsm[_keys.TILES] = centres.copy()
    for key in ("spatialdata_attrs", "spatial"):
        if key in slide.table.uns:
            table.uns[key] = slide.table.uns[key]
    record(table, _keys.TILES, stated)
    return table
