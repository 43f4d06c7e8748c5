"""Adding tiles to a SpatialData: a table for shapes that have none, and a grid of squares over images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._messages import listing

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
    _check_free(sdata, [key_added])
    table = _empty_table({region: get_element_instances(elements[region])})
    sdata.tables[key_added] = table
    return table


def grid_table(grids: Mapping[str, Grid], key_added: str = _keys.TILES) -> AnnData:
    """Make the table of a grid: one row per tile, annotating the squares over each image."""
    rows = {image: pd.RangeIndex(len(grid.centres_px)) for image, grid in grids.items()}
    table = _empty_table({_grid_shapes(image, key_added): index for image, index in rows.items()})
    table.obsm["spatial"] = np.concatenate([grid.centres_px for grid in grids.values()])
    return table


def check_grid_names(sdata: SpatialData, images: Iterable[str], key_added: str) -> None:
    """Raise `ValueError` where an element that a grid would write exists already."""
    _check_free(sdata, [key_added, *(_grid_shapes(image, key_added) for image in images)])


def add_tile_grid(sdata: SpatialData, grids: Mapping[str, Grid], key_added: str) -> AnnData:
    """Add squares over images as shapes ``<image>_tiles`` (``<image>_<key_added>`` for a table of another name), registered like their image, and one table.

    Parameters
    ----------
    sdata
        Changed in place.
    grids
        Tiles by image name.
    key_added
        Name of the table.

    Raises
    ------
    ValueError
        If a name is taken.
    """
    import geopandas as gpd
    import shapely
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import get_transformation

    check_grid_names(sdata, grids, key_added)
    shapes = {}
    for image, grid in grids.items():
        squares = gpd.GeoDataFrame(geometry=shapely.box(*grid.boxes.T))
        transformations = get_transformation(sdata.images[image], get_all=True)
        shapes[_grid_shapes(image, key_added)] = ShapesModel.parse(squares, transformations=dict(transformations))
    table = grid_table(grids, key_added)
    before = {name: sdata.shapes.get(name) for name in shapes}
    try:
        for region, element in shapes.items():
            sdata.shapes[region] = element
        sdata.tables[key_added] = table
    except BaseException:
        for region, element in before.items():
            if element is not None:
                sdata.shapes[region] = element
            elif region in sdata.shapes:
                del sdata.shapes[region]
        raise
    return table


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


def _check_free(sdata: SpatialData, names: list[str]) -> None:
    taken = {str(name) for _, name, _ in sdata.gen_elements()}
    for name in names:
        if name in taken:
            raise ValueError(
                f"This SpatialData already has an element named {name!r}. Delete it, or pass another name with key_added=…."
            )
