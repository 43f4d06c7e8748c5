"""Adding tiles to a SpatialData: a table for shapes that have none, and a grid of squares over images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.contract import link_of
from spatialwhisperer._access.records import TilesRecord
from spatialwhisperer._access.tables import check_free, regions_of
from spatialwhisperer._messages import listing
from spatialwhisperer._provenance import provenance_of, recorded_as

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anndata import AnnData
    from spatialdata import SpatialData


@dataclass(frozen=True)
class Grid:
    """Tiles over one image.

    Attributes
    ----------
    centres_px
        x and y of their centres in full-resolution pixels, shape (n, 2).
    size_px
        Edge of a tile in full-resolution pixels, or in square pixels of the same area.
    stretch
        Width of a pixel divided by its height.
    """

    centres_px: np.ndarray
    size_px: float
    stretch: float = 1.0

    @property
    def edges_px(self) -> tuple[float, float]:
        """Width and height of a tile in full-resolution pixels."""
        return self.size_px * self.stretch**-0.5, self.size_px * self.stretch**0.5

    @property
    def boxes(self) -> np.ndarray:
        """Left, upper, right and lower edge of each tile, shape (n, 4)."""
        half = np.array(self.edges_px) / 2
        return np.hstack([self.centres_px - half, self.centres_px + half])


def add_instances_table(sdata: SpatialData, region: str, key_added: str) -> AnnData:
    """Add a table without genes that annotates shapes or labels.

    Raises
    ------
    KeyError
        If the shapes or labels do not exist.
    ValueError
        If the name is taken.
    """
    from spatialdata import get_element_instances

    elements = {**sdata.shapes, **sdata.labels}
    if region not in elements:
        raise KeyError(f"There are no shapes {region!r} (found: {listing(elements)}).")
    check_free(sdata, [key_added])
    table = _empty_table({region: get_element_instances(elements[region])})
    sdata.tables[key_added] = table
    return table


def grid_table(grids: Mapping[str, Grid], key_added: str = _keys.TILES) -> AnnData:
    """Make the table of a grid: one row per tile, annotating the squares over each image."""
    rows = {image: pd.RangeIndex(len(grid.centres_px)) for image, grid in grids.items()}
    table = _empty_table({_grid_shapes(image, key_added): index for image, index in rows.items()})
    table.obsm["spatial"] = np.concatenate([grid.centres_px for grid in grids.values()])
    return table


def check_grid_names(sdata: SpatialData, images: Iterable[str], key_added: str) -> list[str]:
    """Names of the elements that a grid replaces: an earlier one of its name, over no other images and without results.

    Raises
    ------
    ValueError
        If the name of an element is taken by anything else.
    """
    earlier, results = _earlier_grid(sdata, key_added)
    names = [key_added, *(_grid_shapes(image, key_added) for image in images)]
    others = [name for name in earlier if name not in names]
    if results or others:
        hint = f", a grid with results ({listing(results)})" if results else ", a grid over other images too"
        check_free(sdata, dict.fromkeys([*earlier, *names]), hint)
    check_free(sdata, [name for name in names if name not in earlier])
    return earlier


def add_tile_grid(
    sdata: SpatialData, grids: Mapping[str, Grid], key_added: str, images: Iterable[str] | None = None
) -> AnnData:
    """Add squares over images as shapes ``<image>_tiles`` (``<image>_<key_added>`` for a table of another name), registered like their image, and one table.

    An earlier grid of that name is replaced, where it is over no other images and there are no results on it.

    Parameters
    ----------
    sdata
        Changed in place.
    grids
        Tiles by image name.
    key_added
        Name of the table.
    images
        Images that the grid is over, where some of them have no tiles.

    Raises
    ------
    ValueError
        If a name is taken.
    """
    import geopandas as gpd
    import shapely
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import get_transformation

    before = {name: sdata[name] for name in check_grid_names(sdata, images or grids, key_added)}
    shapes = {}
    for image, grid in grids.items():
        squares = gpd.GeoDataFrame(geometry=shapely.box(*grid.boxes.T))
        transformations = get_transformation(sdata.images[image], get_all=True)
        shapes[_grid_shapes(image, key_added)] = ShapesModel.parse(squares, transformations=dict(transformations))
    table = grid_table(grids, key_added)
    try:
        for name in before:
            del sdata[name]
        for region, element in shapes.items():
            sdata.shapes[region] = element
        sdata.tables[key_added] = table
    except BaseException:
        for name in (*shapes, *before):
            if name in sdata:
                del sdata[name]
        for name, former in before.items():
            sdata[name] = former
        raise
    return table


def _earlier_grid(sdata: SpatialData, key: str) -> tuple[list[str], list[str]]:
    """Elements of a grid that this package laid under a name, and what there is on it besides its tiles; both empty where there is none."""
    table = sdata.tables.get(key)
    stated = None if table is None else recorded_as(table, _keys.TILES, TilesRecord)
    link = None if table is None else link_of(table)
    if table is None or link is None or stated is None or stated.at != "grid":
        return [], []
    regions = set(table.obs[link.region_key])
    results = [
        *(name for name in table.obs if name not in link),
        *(name for name in table.obsm if name not in ("spatial", _keys.TILES)),
        *(name for name in table.uns if name not in ("spatialdata_attrs", _keys.UNS)),
        *(name for name in provenance_of(table) if name != _keys.TILES),
        *(name for part in (table.var_names, table.layers, table.obsp) for name in part if name is not None),
        *(name for name, other in sdata.tables.items() if name != key and regions & set(regions_of(other))),
    ]
    return [key, *sorted(regions & set(sdata.shapes))], list(dict.fromkeys(map(str, results)))


def _grid_shapes(image: str, key_added: str) -> str:
    """Name of the squares over an image; each table has its own, so that an image can have several grids."""
    return f"{image}_tiles" if key_added == _keys.TILES else f"{image}_{key_added}"


def _empty_table(instances: Mapping[str, pd.Index]) -> AnnData:
    from anndata import AnnData
    from scipy.sparse import csr_matrix
    from spatialdata.models import TableModel

    obs = pd.DataFrame(
        {
            "region": pd.Categorical([region for region, index in instances.items() for _ in index]),
            "instance_id": np.concatenate([np.asarray(index) for index in instances.values()]),
        },
        index=[f"{region}_{i}" for region, index in instances.items() for i in index],
    )
    table = AnnData(csr_matrix((len(obs), 0), dtype=np.float32), obs=obs)
    return TableModel.parse(table, region=list(instances), region_key="region", instance_key="instance_id")
