"""In which pixels coordinates are written and read: those of the full resolution, where the object tells them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import shapely

import spatialwhisperer as sw

if TYPE_CHECKING:
    from pathlib import Path

    from spatialdata import SpatialData

XY = np.array([[100.0, 100.0], [400.0, 100.0], [500.0, 300.0]])


@pytest.fixture
def smaller() -> SpatialData:
    """Circles in pixels of the full resolution, and an image of half of it, as the reader of Visium registers them."""
    import geopandas as gpd
    import spatialdata as sd
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Identity, Scale

    half, twice = (Scale([f, f], axes=("x", "y")) for f in (0.5, 2.0))
    image = Image2DModel.parse(
        np.full((3, 200, 300), 200, np.uint8),
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"],
        transformations={"V1_downscaled_hires": Identity(), "V1": twice},
    )
    circles = ShapesModel.parse(
        gpd.GeoDataFrame({"radius": [20.0] * 3}, geometry=shapely.points(XY)),
        transformations={"V1": Identity(), "V1_downscaled_hires": half},
    )
    obs = pd.DataFrame({"region": pd.Categorical(["V1"] * 3), "spot_id": [0, 1, 2], "kind": list("aab")})
    table = ad.AnnData(np.zeros((3, 0), np.float32), obs=obs.set_index(obs.index.astype(str)))
    table = TableModel.parse(table, region="V1", region_key="region", instance_key="spot_id")
    return sd.SpatialData(images={"V1_hires_image": image}, shapes={"V1": circles}, tables={"table": table})


def centres(path: Path) -> np.ndarray:
    shapes = [shapely.geometry.shape(one["geometry"]) for one in json.loads(path.read_text())["features"]]
    return np.array([shape.centroid.coords[0] for shape in shapes])


@pytest.mark.parametrize(("system", "factor"), [(None, 1.0), ("V1", 1.0), ("V1_downscaled_hires", 0.5)])
def test_a_smaller_copy_of_a_slide_has_the_pixels_of_the_slide(
    system: str | None, factor: float, smaller: SpatialData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.geojson"
    with sw.settings.override(verbose=True):
        sw.io.write_qupath(smaller, path, key="kind", pixel_system=system, object_type="annotation")
    assert f"units of the coordinate system {system or 'V1'!r}" in capsys.readouterr().err
    np.testing.assert_allclose(centres(path), XY * factor, atol=0.01)
    with sw.settings.override(verbose=True):
        sw.io.read_qupath(path, smaller, pixel_system=system)
    assert f"units of the coordinate system {system or 'V1'!r}" in capsys.readouterr().err
    assert smaller["table"].obs["qupath"].tolist() == ["a", "a", "b"]
    shapes: Any = smaller["qupath"]
    np.testing.assert_allclose(np.column_stack([shapes.centroid.x, shapes.centroid.y]), XY / 2, atol=0.01)


def test_the_error_for_another_slide_says_how_coordinates_were_read(smaller: SpatialData, tmp_path: Path) -> None:
    sw.io.write_qupath(smaller, tmp_path / "a.geojson", key="kind")
    with pytest.raises(ValueError, match=r"read as units of the coordinate system 'V1_downscaled_hires': pass pixel_"):
        sw.io.read_qupath(tmp_path / "a.geojson", smaller, pixel_system="V1_downscaled_hires")


def test_another_image_has_its_own_pixels(section: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sw.settings.override(verbose=True):
        sw.io.write_qupath(section, tmp_path / "a.geojson", key="cell_type")
    assert "Their coordinates are pixels of the image 'P3_image' (" in capsys.readouterr().err


def test_a_system_without_the_image_is_refused(smaller: SpatialData, tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    with pytest.raises(ValueError, match=r"pixel_system='V2' does not hold the image 'V1_hires_image' \(in V1_down"):
        sw.io.write_qupath(smaller, path, key="kind", pixel_system="V2")
    table = smaller["table"].copy()
    table.obsm["spatial"] = XY
    with pytest.raises(ValueError, match="the coordinates of an AnnData are pixels of the full resolution already"):
        sw.io.write_qupath(table, path, key="kind", pixel_system="V1")
    assert not path.exists()
