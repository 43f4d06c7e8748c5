"""The elements of a section: image, circles and table, registered to pixels and to microns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dask.array as da
    from anndata import AnnData
    from geopandas import GeoDataFrame
    from spatialdata.transformations import BaseTransformation
    from xarray import DataTree

CHUNK_PX = 1024


def transformations(section: str, mpp: float) -> dict[str, BaseTransformation]:
    """Register an element to its section's full-resolution pixels and to microns."""
    from spatialdata.transformations import Identity, Scale

    return {section: Identity(), "microns": Scale([mpp, mpp], axes=("x", "y"))}


def image_element(pixels: np.ndarray | da.Array, *, section: str, mpp: float, least_px: int = 512) -> DataTree:
    """Turn a uint8 array (3, h, w) into a pyramid whose last level is about ``least_px`` pixels long."""
    import dask.array as da
    from spatialdata.models import Image2DModel

    if not isinstance(pixels, da.Array):
        pixels = da.from_array(pixels, chunks=(3, CHUNK_PX, CHUNK_PX))
    levels = max(1, int(np.floor(np.log2(max(pixels.shape[1:]) / least_px))))
    return Image2DModel.parse(
        pixels,
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"],
        scale_factors=[2] * levels,
        transformations=transformations(section, mpp),
    )


def circles(xy_px: np.ndarray, radius_px: np.ndarray | float, *, section: str, mpp: float) -> GeoDataFrame:
    """Circles around (n, 2) pixel positions; row i has index i."""
    from spatialdata.models import ShapesModel

    return ShapesModel.parse(
        np.asarray(xy_px, dtype=np.float64),
        geometry=0,
        radius=np.broadcast_to(np.asarray(radius_px, dtype=np.float64), len(xy_px)).copy(),
        index=pd.RangeIndex(len(xy_px)).astype("int64"),
        transformations=transformations(section, mpp),
    )


def table_element(adata: AnnData, *, regions: Sequence[str]) -> AnnData:
    """Declare a table whose ``obs`` has ``region`` and ``instance_id``."""
    from spatialdata.models import TableModel

    adata.obs["region"] = pd.Categorical(np.asarray(adata.obs["region"]), categories=list(regions))
    adata.obs["instance_id"] = np.asarray(adata.obs["instance_id"], dtype=np.int64)
    return TableModel.parse(adata, region=list(regions), region_key="region", instance_key="instance_id")
