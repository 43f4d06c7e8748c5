"""A slide without a table: one image with its pyramid and its scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData
    from xarray import DataTree

    from spatialwhisperer._access.elements.pixel_size import PixelSize

PIXELS = "global"
MICRONS = "microns"
_RGB = ("r", "g", "b")


def slide_of(levels: Sequence[Any], name: str, pixel: PixelSize | None) -> SpatialData:
    """Make a SpatialData with one image.

    Parameters
    ----------
    levels
        Dask arrays of shape (3, y, x), finest first.
    name
        Name of the image.
    pixel
        Size of its pixels, by which it is registered to a coordinate system of microns; ``None`` where it is not known.
    """
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Identity, Scale

    systems: dict[str, Any] = {PIXELS: Identity()}
    if pixel is not None:
        systems[MICRONS] = Scale(np.array([pixel.x, pixel.y]), axes=("x", "y"))
    if len(levels) == 1:
        image = Image2DModel.parse(levels[0], dims=("c", "y", "x"), c_coords=list(_RGB), transformations=systems)
    else:
        image = multiscale(levels, systems)
    return SpatialData(images={name: image})


def multiscale(levels: Sequence[Any], systems: dict[str, Any]) -> DataTree:
    """A DataTree like those of :class:`spatialdata.models.Image2DModel`, from levels that exist.

    Parameters
    ----------
    levels
        Dask arrays of shape (3, y, x), finest first.
    systems
        Transformations to coordinate systems by name.
    """
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import set_transformation
    from xarray import DataArray, Dataset, DataTree

    height, width = levels[0].shape[1:]
    nodes = {}
    for number, level in enumerate(levels):
        _, rows, columns = level.shape
        coordinates = {
            "c": list(_RGB),
            "y": (np.arange(rows) + 0.5) * (height / rows),
            "x": (np.arange(columns) + 0.5) * (width / columns),
        }
        nodes[f"scale{number}"] = Dataset({"image": DataArray(level, dims=("c", "y", "x"), coords=coordinates)})
    tree = DataTree.from_dict(nodes)
    set_transformation(tree, dict(systems), set_all=True)
    Image2DModel.validate(tree)
    return tree


def without_table(sdata: SpatialData) -> SpatialData:
    """The same elements in an object of its own, so that new ones do not reach the other."""
    from spatialdata import SpatialData

    return SpatialData(
        images=dict(sdata.images),
        labels=dict(sdata.labels),
        points=dict(sdata.points),
        shapes=dict(sdata.shapes),
        tables=dict(sdata.tables),
        attrs=dict(sdata.attrs),
    )


def set_systems(sdata: SpatialData, image: str, matrices: dict[str, np.ndarray]) -> None:
    """Register an image to coordinate systems by affine maps of x and y, and to no others."""
    from spatialdata.transformations import Affine, set_transformation

    maps = {name: Affine(m, input_axes=("x", "y"), output_axes=("x", "y")) for name, m in matrices.items()}
    set_transformation(sdata.images[image], maps, set_all=True)
