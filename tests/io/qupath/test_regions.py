"""Areas of a file, and the classes that they give to rows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pytest
import shapely

import spatialwhisperer as sw
from spatialwhisperer.io._qupath.pixels import Pixels
from spatialwhisperer.io._qupath.regions import areas_of
from tests.io.qupath.test_reading import SQUARE, feature

if TYPE_CHECKING:
    from pathlib import Path

    from geopandas import GeoDataFrame

BOW = [[100, 100], [500, 300], [500, 100], [100, 300], [100, 100]]
LOOP = [[0, 0], [100, 0], [100, 100], [50, 100], [50, 50], [80, 50], [80, 120], [0, 120], [0, 0]]


def read(tmp_path: Path, *features: dict[str, Any]) -> GeoDataFrame:
    (tmp_path / "a.geojson").write_text(json.dumps(list(features)))
    return areas_of(tmp_path / "a.geojson", Pixels(np.eye(3), "pixels"))


def test_an_outline_that_crosses_itself_keeps_all_that_it_encloses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    polygons = [feature("a", {"type": "Polygon", "coordinates": [ring]}) for ring in (BOW, LOOP)]
    overlapping = [[[[x, 0], [x + 10, 0], [x + 10, 10], [x, 10], [x, 0]]] for x in (0, 5)]
    both = feature("a", {"type": "MultiPolygon", "coordinates": overlapping})
    with sw.settings.override(verbose=True):
        frame = read(tmp_path, *polygons, both, feature("b"))
    # two triangles; what is encircled twice counts once, and is no hole
    np.testing.assert_allclose(frame.area, [40_000, 11_600, 150, 81])
    assert frame.is_valid.all()
    assert "outlines of 3 objects of a.geojson cross themselves" in capsys.readouterr().err


def test_polygons_of_a_collection_are_areas(tmp_path: Path) -> None:
    line = {"type": "LineString", "coordinates": [[0, 0], [3, 3]]}
    far = {"type": "Polygon", "coordinates": [[[20, 0], [21, 0], [21, 1], [20, 0]]]}
    nested = {"type": "GeometryCollection", "geometries": [line, {"type": "GeometryCollection", "geometries": [far]}]}
    collections = [
        {"type": "GeometryCollection", "geometries": parts} for parts in ([SQUARE, line], [SQUARE, nested], [line], [])
    ]
    frame = read(tmp_path, *(feature("a", one) for one in collections), feature("b", None))
    assert frame.geometry.iloc[0].equals(shapely.box(0, 0, 9, 9))
    np.testing.assert_allclose(frame.area, [81, 81.5])


def test_a_class_has_the_first_colour_that_a_region_of_it_has(tmp_path: Path) -> None:
    adata = ad.AnnData(np.zeros((3, 0), np.float32))
    adata.obsm["spatial"] = np.array([[5.0, 5.0], [25.0, 5.0], [45.0, 5.0]])
    red = {"name": "a", "color": [200, 0, 0]}
    stated = [{"name": "b"}, {"name": "a"}, red, {"name": "a"}]
    boxes = [shapely.geometry.mapping(shapely.box(x, 0, x + 10, 10)) for x in (0, 20, 40, 20)]
    features = [feature("", box, classification=one) for box, one in zip(boxes, stated, strict=True)]
    (tmp_path / "a.geojson").write_text(json.dumps(features))
    sw.io.read_qupath(tmp_path / "a.geojson", adata)
    assert adata.obs["qupath"].tolist() == ["b", "a", "a"]
    colours = dict(zip(adata.obs["qupath"].cat.categories, adata.uns["qupath_colors"], strict=True))
    assert colours["a"] == "#c80000"
    assert colours["b"] not in ("#c80000", None)


@pytest.mark.parametrize("turned", [False, True])
def test_of_regions_of_several_classes_the_smallest_counts_whatever_their_order(
    turned: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    adata = ad.AnnData(np.zeros((4, 0), np.float32))
    adata.obsm["spatial"] = np.array([[5.0, 5.0], [25.0, 5.0], [45.0, 5.0], [46.0, 5.0]])
    box = shapely.box
    drawn = [
        ("Tumor", box(0, 0, 10, 10)),
        ("Tumor", box(20, 0, 30, 10)),
        # the same square from another corner
        ("Stroma", shapely.Polygon([(30, 0), (30, 10), (20, 10), (20, 0)])),
        ("Fat", box(40, 0, 60, 20)),
        ("Tumor", box(40, 0, 50, 10)),
        ("Tumor", box(40, 0, 49, 9)),
    ]
    features = [
        feature(f"{i}", shapely.geometry.mapping(shape), classification=name) for i, (name, shape) in enumerate(drawn)
    ]
    (tmp_path / "a.geojson").write_text(json.dumps(features[::-1] if turned else features))
    sw.io.read_qupath(tmp_path / "a.geojson", adata)
    assert adata.obs["qupath"].tolist() == ["Tumor", "Stroma", "Tumor", "Tumor"]
    lines = [line for line in capfd.readouterr().err.splitlines() if "several classes" in line]
    assert len(lines) == 1
    assert "3 rows lie in regions of several classes of a.geojson, and got that of the smallest one: " in lines[0]
    assert "Tumor (2), Stroma (1)" in lines[0]
    assert "Around 1 of them the smallest regions are equally large" in lines[0]


def test_regions_of_one_class_that_overlap_are_not_spoken_of(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    adata = ad.AnnData(np.zeros((1, 0), np.float32))
    adata.obsm["spatial"] = np.array([[5.0, 5.0]])
    boxes = [shapely.geometry.mapping(shapely.box(0, 0, x, x)) for x in (10, 20)]
    (tmp_path / "a.geojson").write_text(json.dumps([feature("", one, classification="a") for one in boxes]))
    sw.io.read_qupath(tmp_path / "a.geojson", adata)
    assert adata.obs["qupath"].tolist() == ["a"]
    assert "several classes" not in capfd.readouterr().err
