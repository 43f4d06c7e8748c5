"""Tiles over the tissue of a slide without expression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.contract import libraries_of
from spatialwhisperer._access.grid import Grid, add_tile_grid, check_grid_names, grid_table
from spatialwhisperer._access.images import RasterImage, find_image, rgb_names
from spatialwhisperer._access.records import TilesRecord, Where
from spatialwhisperer._access.sections.choice import pictures
from spatialwhisperer._access.sections.libraries import check_no_system
from spatialwhisperer._access.sections.platforms import pixel_of
from spatialwhisperer._access.sections.regions import check_image_system, image_scales, image_stretch
from spatialwhisperer._access.sections.scale import GivenPixel, of_library, settle
from spatialwhisperer._access.sections.section import Section, check_named, missing_mpp, say_scales
from spatialwhisperer._access.table.groups import by_group
from spatialwhisperer._access.tables import is_spatialdata, obs_of
from spatialwhisperer._access.tiles.intensity import check_intensity
from spatialwhisperer._access.tiles.plan import check_resolution
from spatialwhisperer._messages import listing
from spatialwhisperer._provenance import record
from spatialwhisperer.pp.stain import TissueMask, tissue_mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

Tissue = Literal["auto"] | np.ndarray | Mapping[str, np.ndarray] | None
_LIBRARY = "library_id"
_MOST_ACROSS = 20_000


def tile_grid(
    data: AnnData | SpatialData,
    stated: TilesRecord,
    *,
    stride_um: float,
    mpp: float | Mapping[str, float] | None,
    image_key: str | Mapping[str, str] | None,
    coordinate_system: str | None,
    tissue: Tissue,
    min_tissue: float,
    key_added: str,
    inplace: bool,
) -> AnnData | None:
    """Lay the grid of `spatialwhisperer.pp.tiles`; ``stated`` is its record, without scale and images."""
    if not 0 <= min_tissue <= 1:
        raise ValueError(f"min_tissue is a fraction between 0 and 1, not {min_tissue!r}.")
    if inplace and not is_spatialdata(data):
        raise ValueError(
            "The rows of an AnnData are its spots, so a grid cannot be added to it. Take the grid as an object of its own: "
            "grid = sw.pp.tiles(adata, at='grid', tile_um=…, inplace=False)."
        )
    names = image_names(data, image_key)
    if inplace:
        check_grid_names(data, names, key_added)
    frames = image_frames(data, names, mpp, coordinate_system)
    say_scales(frames)
    if stated.tile_px is not None:
        check_resolution(frames, (stated.tile_um,), stated.tile_px, stated.on_low_res)
    grids = {frame.name: _grid(data, frame, stated.tile_um, stride_um, tissue, min_tissue) for frame in frames}
    grids = {name: grid for name, grid in grids.items() if len(grid.centres_px)}
    if not grids:
        _check_size(frames, stated.tile_um)
        for frame in frames:
            check_intensity(frame)  # which explains why no tissue was seen, where it is not the tiles
        raise ValueError(
            f"No tile of {stated.tile_um:g} um fits into the tissue of {listing(names)} (min_tissue={min_tissue:g}). Check mpp, "
            "take smaller tiles, lower min_tissue, or take the whole image with tissue=None."
        )
    table = _write(data, grids, names, key_added, inplace)
    scales = {frame.name: frame.scale for frame in frames if frame.scale is not None}
    regions = pd.unique(obs_of(table)["region" if is_spatialdata(data) else _LIBRARY].astype(str))
    where = Where(
        mpp={region: scales[name].mpp for region, name in zip(regions, grids, strict=True)},
        rule={region: scales[name].rule for region, name in zip(regions, grids, strict=True)},
        image=dict(zip(regions, grids, strict=True)),
        coordinate_system=coordinate_system,
        library_key=None if is_spatialdata(data) else _LIBRARY,
    )
    mask_kind = tissue if tissue is None or isinstance(tissue, str) else "given"
    whole = replace(stated, where=where, stride_um=float(stride_um), tissue=mask_kind, min_tissue=min_tissue)
    record(table, _keys.TILES, whole)
    return None if inplace else table


def _grid(
    data: AnnData | SpatialData, frame: Section, tile_um: float, stride_um: float, tissue: Tissue, min_tissue: float
) -> Grid:
    """Tiles over the tissue of one image."""
    image, scale = frame.image, frame.scale
    if image is None or scale is None:
        raise ValueError(missing_mpp(frame))
    size_px, squares = tile_um / scale.mpp, scale.stretch**0.5
    # laid over the image in square pixels
    width, height = image.size_px
    centres = grid_centres((width * squares, height / squares), size_px, stride_um / scale.mpp) / [squares, 1 / squares]
    grid, mask = Grid(centres, size_px, scale.stretch), _mask(data, image, tissue)
    if mask is None:
        return grid
    return replace(grid, centres_px=centres[mask.fraction(centres, grid.edges_px) >= min_tissue])


def _check_size(frames: Sequence[Section], tile_um: float) -> None:
    """Refuse images that are all smaller than a tile, whatever is on them.

    Raises
    ------
    ValueError
        If no image is as large as a tile.
    """
    sizes = []
    for frame in frames:
        if frame.image is None or frame.scale is None:
            continue
        squares = frame.scale.stretch**0.5
        width, height = np.array(frame.image.size_px) * frame.scale.mpp * [squares, 1 / squares]
        if min(width, height) >= tile_um:
            return
        sizes.append(f"{frame.name} is {width:g} x {height:g} µm at {frame.scale.mpp:g} µm per pixel")
    raise ValueError(
        f"No tile of {tile_um:g} um fits into an image: {listing(sizes, 5)}. Check mpp, or take smaller tiles: tile_um=…."
    )


def image_frames(
    data: AnnData | SpatialData,
    names: Sequence[str],
    mpp: float | Mapping[str, float] | None,
    coordinate_system: str | None,
) -> list[Section]:
    """Images with their scale, as sections without rows.

    Raises
    ------
    KeyError
        If an image does not exist, or ``mpp`` names another one and leaves one of these out.
    ValueError
        If two scales of an image differ, or it does not lie in the coordinate system.
    """
    mpp = by_group("mpp", mpp, "image") if isinstance(mpp, Mapping) else mpp
    check_named("mpp", mpp, {name: name for name in names})
    return [_image_frame(data, name, mpp, coordinate_system) for name in names]


def _image_frame(
    data: AnnData | SpatialData, name: str, mpp: float | Mapping[str, float] | None, coordinate_system: str | None
) -> Section:
    image = find_image(data, name)
    if is_spatialdata(data):
        check_image_system(data, name, coordinate_system)
        found, stretch = image_scales(data, name), image_stretch(data, name, coordinate_system)
    else:
        check_no_system(coordinate_system)
        found, stretch = of_library(libraries_of(data)[name]), 1.0
    none, pixel = np.empty((0, 2)), pixel_of(data, name) if is_spatialdata(data) else GivenPixel()
    scale = settle(
        name, name, mpp=mpp, spot_pitch_um=None, xy_px=none, stated=None, found=found, stretch=stretch, pixel=pixel
    )
    return Section(name, np.empty(0, np.int64), none, image, scale, pixel=pixel)


def grid_centres(image_px: tuple[float, float], size_px: float, stride_px: float) -> np.ndarray:
    """Centres of the tiles that fit into an image, shape (n, 2), row by row. The margins on opposite edges are equal."""
    axes = []
    for length in image_px:
        n = int(np.floor((length - size_px) / stride_px + 1e-9)) + 1 if length >= size_px else 0
        if n > _MOST_ACROSS:
            raise ValueError(
                f"{n:.3g} tiles would lie beside each other on an image of {length:.0f} px, at most {_MOST_ACROSS:,} may. Take a larger "
                "tile_um or stride_um, or check mpp."
            )
        margin = (length - size_px - (n - 1) * stride_px) / 2
        axes.append(margin + size_px / 2 + stride_px * np.arange(n))
    x, y = np.meshgrid(*axes)
    return np.column_stack([x.ravel(), y.ravel()])


def image_names(data: AnnData | SpatialData, image_key: str | Mapping[str, str] | None) -> list[str]:
    """Names of the images that are meant: those that are named, else every picture once.

    Raises
    ------
    KeyError
        If there is none.
    """
    if isinstance(image_key, Mapping):
        return list(dict.fromkeys(image_key.values()))
    if image_key is not None:
        return [image_key]
    names = pictures(data) if is_spatialdata(data) else rgb_names(data)
    if not names:
        place = "images" if is_spatialdata(data) else ".uns['spatial']"
        raise KeyError(f"There is no H&E image in {place} to lay a grid over. Add one with three channels first.")
    return names


def _mask(data: AnnData | SpatialData, image: RasterImage, tissue: Tissue) -> TissueMask | None:
    if tissue is None:
        return None
    if isinstance(tissue, str):
        if tissue != "auto":
            raise ValueError(f"tissue must be 'auto', None or a mask of shape (height, width), not {tissue!r}.")
        return tissue_mask(data, image.name)
    if isinstance(tissue, Mapping):
        tissue = by_group("tissue", tissue, "image")
        if image.name not in tissue:
            raise KeyError(f"tissue has no mask for image {image.name!r} (found: {listing(tissue)}).")
        tissue = tissue[image.name]
    return TissueMask.over(image, tissue)


def _write(
    data: AnnData | SpatialData, grids: Mapping[str, Grid], images: Sequence[str], key_added: str, inplace: bool
) -> AnnData:
    if not is_spatialdata(data):
        table = _library_table(data, grids)
    else:
        table = add_tile_grid(data, grids, key_added, images) if inplace else grid_table(grids, key_added)
    table.obsm[_keys.TILES] = np.array(table.obsm["spatial"])
    return table


def _library_table(adata: AnnData, grids: Mapping[str, Grid]) -> AnnData:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    library = [name for name, grid in grids.items() for _ in grid.centres_px]
    names = [f"{name}_{i}" for name, grid in grids.items() for i in range(len(grid.centres_px))]
    obs = pd.DataFrame({_LIBRARY: pd.Categorical(library)}, index=names)
    table = AnnData(csr_matrix((len(obs), 0), dtype=np.float32), obs=obs)
    table.obsm["spatial"] = np.concatenate([grid.centres_px for grid in grids.values()])
    table.uns["spatial"] = {name: entry for name, entry in adata.uns["spatial"].items() if str(name) in grids}
    return table
