"""The elements of a section: image, circles and table, registered to pixels and to microns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialwhisperer._access.elements.halving import halved, halved_lazily
from spatialwhisperer._access.elements.pyramid import multiscale

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


def image_element(levels: Sequence[da.Array], *, section: str, mpp: float) -> DataTree:
    """An image from the levels of its pyramid: uint8 arrays (3, h, w), finest first."""
    return multiscale(levels, dict(transformations(section, mpp)))


def n_levels(shape: Sequence[int], least_px: int = 512) -> int:
    """Levels of the pyramid of an image (3, h, w), the last of which is about ``least_px`` pixels long, and at least two."""
    return 1 + max(1, int(np.floor(np.log2(max(shape[1:]) / least_px))))


def pyramid(pixels: np.ndarray | da.Array) -> list[da.Array]:
    """An image in memory, or a lazy one, uint8 (3, h, w), and coarser ones, each half as large."""
    import dask.array as da

    levels = [pixels if isinstance(pixels, da.Array) else _chunked(pixels)]
    for _ in range(n_levels(pixels.shape) - 1):
        if isinstance(pixels, np.ndarray):
            # computed at once: a lazy level would be computed again by each call that reads it
            pixels = np.moveaxis(halved(pixels), -1, 0)
            levels.append(_chunked(pixels))
        else:
            levels.append(halved_lazily(levels[-1], CHUNK_PX))
    return levels


def _chunked(pixels: np.ndarray) -> da.Array:
    import dask.array as da

    return da.from_array(pixels, chunks=(3, CHUNK_PX, CHUNK_PX))


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
