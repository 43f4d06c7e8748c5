"""Cells that were found on images: shapes with a table that annotates them, one row each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialwhisperer._access.sections.scale import MICRONS
from spatialwhisperer._access.tables import check_free

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData


def cell_shapes(image: str, images: Any, key: str) -> str:
    """Name of the shapes of an image: the key, with the image before it where there are several."""
    return key if len(images) == 1 else f"{image}_{key}"


def cell_table_name(key: str) -> str:
    """Name of the table of cells."""
    return f"{key}_table"


def check_cell_names(sdata: SpatialData, images: Any, key: str) -> None:
    """Refuse names that are taken.

    Raises
    ------
    ValueError
        If shapes or table exist.
    """
    check_free(sdata, [cell_table_name(key), *(cell_shapes(image, images, key) for image in images)])


def cell_table(cells: Mapping[str, GeoDataFrame]) -> AnnData:
    """Make the table of cells: one row each, with the columns of their shapes.

    Parameters
    ----------
    cells
        Shapes in full-resolution pixels, by their name.
    """
    from anndata import AnnData
    from scipy.sparse import csr_matrix
    from spatialdata.models import TableModel

    columns = {
        name: np.concatenate([frame[name].to_numpy() for frame in cells.values()])
        for name in next(iter(cells.values())).columns
        if name not in ("geometry", "radius")
    }
    obs = pd.DataFrame(
        {
            "region": pd.Categorical([name for name, frame in cells.items() for _ in range(len(frame))]),
            "instance_id": np.concatenate([frame.index.to_numpy() for frame in cells.values()]),
            **columns,
        },
        index=[f"{name}_{i}" for name, frame in cells.items() for i in frame.index],
    )
    table = AnnData(csr_matrix((len(obs), 0), dtype=np.float32), obs=obs)
    centres = [frame.geometry.centroid for frame in cells.values()]
    table.obsm["spatial"] = np.concatenate([np.column_stack([c.x, c.y]) for c in centres])
    return TableModel.parse(table, region=list(cells), region_key="region", instance_key="instance_id")


def add_cells(
    sdata: SpatialData,
    cells: Mapping[str, GeoDataFrame],
    table: AnnData,
    key: str,
    *,
    pixels_um: Mapping[str, tuple[float, float]],
) -> None:
    """Add shapes and the table that annotates them: all, or none after an error.

    They are registered like their image. Where the image does not state its scale, they are registered to a coordinate system of
    microns too, so that later calls know the scale.

    Parameters
    ----------
    sdata
        Changed in place.
    cells
        Shapes in full-resolution pixels, by image.
    table
        What `cell_table` made of them.
    key
        Key of the result.
    pixels_um
        Width and height of a full-resolution pixel in microns, by image.
    """
    images = list(cells)
    check_cell_names(sdata, images, key)
    shapes = {
        cell_shapes(image, images, key): _parsed(sdata, image, cells[image], pixels_um[image]) for image in images
    }
    try:
        for name, element in shapes.items():
            sdata.shapes[name] = element
        sdata.tables[cell_table_name(key)] = table
    except BaseException:
        for name in shapes:
            if name in sdata.shapes:
                del sdata.shapes[name]
        raise


def _parsed(sdata: SpatialData, image: str, frame: GeoDataFrame, pixel_um: tuple[float, float]) -> Any:
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import Scale, get_transformation

    systems = dict(get_transformation(sdata.images[image], get_all=True))
    if not any(MICRONS.search(str(name)) for name in systems):
        # a name of its own: another element may lie elsewhere in a system of that name
        systems[f"{image}_microns"] = Scale(list(pixel_um), axes=("x", "y"))
    return ShapesModel.parse(frame, transformations=systems)
