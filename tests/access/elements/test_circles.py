"""Circles are told from polygons by their geometry, and drawn where the slide has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import shapely

from spatialwhisperer._access.elements.circles import radii_of
from spatialwhisperer._access.elements.outlines import Outlines
from spatialwhisperer._access.slide import Slide

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

XY = np.array([[20.0, 20.0], [60.0, 30.0]])


def frame(geometry: Any) -> GeoDataFrame:
    import geopandas as gpd

    return gpd.GeoDataFrame({"radius": [3.0, 4.0]}, geometry=geometry)


def outlines_of(shapes: GeoDataFrame, image_scale: tuple[float, float]) -> np.ndarray:
    """Outlines of two rows in pixels of an image that is registered to the system of the shapes."""
    import spatialdata as sd
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Identity, Scale

    image = Image2DModel.parse(
        np.zeros((3, 100, 200), np.uint8),
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"],
        transformations={"s": Scale(list(image_scale), axes=("x", "y"))},
    )
    table = ad.AnnData(
        np.zeros((2, 0), np.float32),
        obs=pd.DataFrame({"region": pd.Categorical(["shapes"] * 2), "id": [0, 1]}, index=["0", "1"]),
    )
    table = TableModel.parse(table, region="shapes", region_key="region", instance_key="id")
    element = ShapesModel.parse(shapes, transformations={"s": Identity()})
    slide = Slide.open(sd.SpatialData(images={"image": image}, shapes={"shapes": element}, tables={"table": table}))
    return Outlines(slide, next(iter(slide.frames))).of(np.array([0, 1]))


def test_polygons_with_a_column_named_radius_are_no_circles() -> None:
    boxes = shapely.box(*(XY - 8).T, *(XY + 8).T)
    assert radii_of(frame(boxes)) is None
    assert [one.bounds for one in outlines_of(frame(boxes), (1, 1))] == [(12, 12, 28, 28), (52, 22, 68, 38)]


def test_points_with_a_radius_are_circles() -> None:
    circles = frame(shapely.points(XY))
    np.testing.assert_array_equal(radii_of(circles), [3, 4])
    assert radii_of(circles[["geometry"]]) is None
    assert radii_of(circles.iloc[:0]) is None
    assert radii_of(np.zeros((4, 4))) is None


def test_a_circle_is_an_ellipse_in_pixels_that_are_not_square() -> None:
    first = outlines_of(frame(shapely.points(XY)), (0.5, 2.0))[0]
    assert first.bounds == pytest.approx((34, 8.5, 46, 11.5))
