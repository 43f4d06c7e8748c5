"""Tiles that another tool read: squares with features, as a table that annotates shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer import _keys
from spatialwhisperer._access.elements.pyramid import MICRONS, PIXELS, without_table
from spatialwhisperer._access.grid import Grid, add_tile_grid, grid_table
from spatialwhisperer._access.records import TilesRecord, Where
from spatialwhisperer._provenance import record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from spatialdata import SpatialData


@dataclass(frozen=True)
class Squares:
    """Tiles with features.

    Attributes
    ----------
    top_left_px
        x and y of their corners in pixels of the full resolution, shape (n, 2).
    edge_px
        Their edge in such pixels.
    features
        Features, shape (n, d).
    names
        Name of each tile, or ``None``.
    mpp
        Microns per pixel, or ``None`` where they are not known.
    rule
        What states them.
    """

    top_left_px: np.ndarray
    edge_px: float
    features: np.ndarray
    names: np.ndarray | None
    mpp: float | None
    rule: str

    @property
    def centres_px(self) -> np.ndarray:
        """X and y of their centres, shape (n, 2)."""
        return self.top_left_px + self.edge_px / 2


def squares_alone(squares: Squares, image: str, key: str, parameters: Mapping[str, Any], key_added: str) -> SpatialData:
    """Make a SpatialData of shapes and a table, without an image."""
    import geopandas as gpd
    import shapely
    from spatialdata import SpatialData
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import Identity, Scale

    table = grid_table({image: Grid(squares.centres_px, squares.edge_px)})
    systems: dict[str, Any] = {PIXELS: Identity()}
    if squares.mpp is not None:
        systems[MICRONS] = Scale([squares.mpp, squares.mpp], axes=("x", "y"))
    corners = squares.top_left_px
    boxes = gpd.GeoDataFrame(geometry=shapely.box(*corners.T, *(corners + squares.edge_px).T))
    region = str(table.obs["region"].iloc[0])
    _fill(table, squares, key, parameters)
    return SpatialData(shapes={region: ShapesModel.parse(boxes, transformations=systems)}, tables={key_added: table})


def squares_on(
    sdata: SpatialData, image: str, squares: Squares, key: str, parameters: Mapping[str, Any], key_added: str
) -> SpatialData:
    """The slide with shapes and a table of these tiles; the object that is given is left as it is."""
    out = without_table(sdata)
    table = add_tile_grid(out, {image: Grid(squares.centres_px, squares.edge_px)}, key_added)
    _fill(table, squares, key, parameters)
    if squares.mpp is not None:
        region = str(table.obs["region"].iloc[0])
        where = Where(mpp={region: squares.mpp}, rule={region: squares.rule}, image={region: image})
        tile_um = squares.edge_px * squares.mpp
        table.obsm[_keys.TILES] = np.array(table.obsm["spatial"])
        record(table, _keys.TILES, TilesRecord(tile_um, None, "grid", "raise", "warn", where, stride_um=tile_um))
    return out


def _fill(table: AnnData, squares: Squares, key: str, parameters: Mapping[str, Any]) -> None:
    if squares.names is not None:
        table.obs["name"] = squares.names.astype(str)
    table.obsm[key] = squares.features
    record(table, key, dict(parameters))
