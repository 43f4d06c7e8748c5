"""Regions and cells of QuPath in, labels and scores out, by the schema that QuPath documents."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import shapely

import spatialwhisperer as sw

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from spatialdata import SpatialData

RED, BLUE = [200, 0, 0], [0, 0, 200]


def region(
    box: Sequence[float], name: str | None = "Tumour", colour: list[int] | None = RED, kind: str = "annotation"
) -> dict[str, Any]:
    """A rectangle as QuPath exports it: left, top, right, bottom."""
    properties: dict[str, Any] = {"objectType": kind}
    if name is not None:
        properties["classification"] = {"name": name, "color": colour}
    geometry = shapely.geometry.mapping(shapely.box(*box))
    return {"type": "Feature", "id": "1", "geometry": geometry, "properties": properties}


def written(path: Path, features: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture
def grid(slide_file: Path) -> SpatialData:
    """A slide of 1200 x 900 pixels with tiles of 100 pixels everywhere, and labels."""
    sdata = sw.io.read_slide(slide_file)
    sw.pp.tiles(sdata, tile_um=50, at="grid", tissue=None)
    table = sdata["sw_tiles"]
    x, y = table.obsm["spatial"].T
    table.obs["sw_label"] = pd.Categorical(np.where(x < 600, "B/plasma cell", 'fibröse "Zelle"'))
    table.obs.loc[table.obs_names[0], "sw_label"] = np.nan
    table.obs["sw_label_confidence"] = np.linspace(0, 1, table.n_obs).astype(np.float32)
    table.obsm["sw_label_scores"] = np.column_stack([x, y]).astype(np.float32) / 1000
    table.uns["sw_label"] = {"classes": np.array(["B/plasma cell", 'fibröse "Zelle"'])}
    return sdata


def labels_by_hand(sdata: SpatialData, box: Sequence[float]) -> np.ndarray:
    x, y = sdata["sw_tiles"].obsm["spatial"].T
    return (x >= box[0]) & (x <= box[2]) & (y >= box[1]) & (y <= box[3])


# ------------------------------------------------------------------------------------------------- reading


def test_rows_get_the_class_of_the_region_around_their_centre(grid: SpatialData, tmp_path: Path) -> None:
    outer, inner = (100, 100, 700, 800), (300, 300, 500, 500)
    path = written(
        tmp_path / "a.geojson", [region(inner, "Necrosis", BLUE), region(outer), region((0, 0, 90, 90), None)]
    )
    sw.io.read_qupath(path, grid)
    obs = grid["sw_tiles"].obs["qupath"]
    within = labels_by_hand(grid, inner)
    assert set(obs[within]) == {"Necrosis"}
    assert set(obs[labels_by_hand(grid, outer) & ~within]) == {"Tumour"}
    assert obs[~labels_by_hand(grid, outer)].isna().all()
    assert list(grid["sw_tiles"].uns["qupath_colors"]) == ["#0000c8", "#c80000"]
    shapes: Any = grid["qupath"]
    assert list(shapes["classification"].fillna("")) == ["Necrosis", "Tumour", ""]
    assert shapes.geometry.iloc[1].equals(shapely.box(*outer))
    assert "qupath_cells" not in grid


def test_regions_serve_as_examples_and_truth(slide_file: Path, tmp_path: Path) -> None:
    sdata = sw.io.read_slide(slide_file)
    sw.tl.embed(sdata)
    table = sdata["sw_tiles"]
    boxes = [(x - 20, y - 20, x + 20, y + 20) for x, y in table.obsm["spatial"][[0, -1]]]
    path = written(tmp_path / "a.geojson", [region(b, name) for b, name in zip(boxes, ("tumour", "fat"), strict=True)])
    sw.io.read_qupath(path, sdata)
    sw.tl.zero_shot_annotate(sdata, ["tumour", "fat"], examples="qupath")
    assert table.obs["qupath"].notna().sum() == 2


def test_cells_become_shapes_for_tiles(grid: SpatialData, tmp_path: Path) -> None:
    cells = [region((x, 400, x + 12, 410), "Lymphocyte", kind=kind) for x, kind in ((300, "cell"), (420, "detection"))]
    sw.io.read_qupath(written(tmp_path / "a.geojson", cells), grid)
    assert grid["sw_tiles"].obs["qupath"].isna().all()
    sw.pp.tiles(grid, tile_um=30, shapes_key="qupath_cells", key_added="cells")
    np.testing.assert_allclose(grid["cells"].obsm["sw_tiles"], [[306, 405], [426, 405]])


def test_a_slide_without_a_table_takes_shapes_alone(slide_file: Path, tmp_path: Path) -> None:
    sdata = sw.io.read_slide(slide_file)
    sw.io.read_qupath(written(tmp_path / "a.geojson", [region((100, 100, 300, 300))]), sdata, key_added="mine")
    assert list(sdata.shapes) == ["mine"]
    assert not sdata.tables


def test_the_column_that_links_rows_to_shapes_stays(grid: SpatialData, tmp_path: Path) -> None:
    path = written(tmp_path / "a.geojson", [region((100, 100, 300, 300))])
    column = grid["sw_tiles"].uns["spatialdata_attrs"]["region_key"]
    before = grid["sw_tiles"].obs[column].copy()
    with pytest.raises(ValueError, match=rf"key_added='{column}' would replace"):
        sw.io.read_qupath(path, grid, key_added=column)
    assert grid["sw_tiles"].obs[column].equals(before)
    assert column not in grid


def test_an_anndata_takes_labels_alone(tmp_path: Path) -> None:
    adata = ad.AnnData(np.zeros((2, 0), np.float32))
    adata.obsm["spatial"] = np.array([[100.0, 100.0], [300.0, 200.0]])
    sw.io.read_qupath(written(tmp_path / "a.geojson", [region((250, 150, 320, 230))]), adata)
    assert adata.obs["qupath"].isna().tolist() == [True, False]


@pytest.mark.parametrize(
    "classification",
    [{"name": "Tumour", "colorRGB": -3670016}, {"names": ["Tumour"], "color": RED}, {"name": "Tumour", "color": RED}],
    ids=["0.2", "0.5", "0.4"],
)
@pytest.mark.parametrize("form", ["collection", "list", "feature", "gzip"])
def test_every_form_of_qupath_is_read(classification: Any, form: str, grid: SpatialData, tmp_path: Path) -> None:
    feature = region((100, 100, 300, 300))
    feature["id"] = "PathAnnotationObject"
    feature["properties"] = {"classification": classification}
    content: Any = {"list": [feature], "feature": feature}.get(
        form, {"type": "FeatureCollection", "features": [feature]}
    )
    raw = json.dumps(content, indent=2).encode()
    path = tmp_path / "a.geojson"
    path.write_bytes(gzip.compress(raw) if form == "gzip" else raw)
    read = sw.io.read_qupath(path, grid, inplace=False)
    assert read is not None
    assert read.iloc[0][["object_type", "classification", "color"]].tolist() == ["annotation", "Tumour", "#c80000"]


def test_what_has_no_area_is_left_out_and_crossed_outlines_are_mended(
    grid: SpatialData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    point = region((1, 1, 2, 2))
    point["geometry"] = {"type": "Point", "coordinates": [5, 5]}
    crossed = region((1, 1, 2, 2))
    crossed["geometry"] = {"type": "Polygon", "coordinates": [[[0, 0], [100, 100], [100, 0], [0, 100], [0, 0]]]}
    with sw.settings.override(verbose=True):
        read = sw.io.read_qupath(written(tmp_path / "a.geojson", [point, crossed]), grid, inplace=False)
    assert read is not None
    assert len(read) == 1
    assert "1 objects of a.geojson are points, lines or empty, and were left out." in capsys.readouterr().err
    assert read.geometry.is_valid.all()
    with pytest.raises(ValueError, match="holds no area"):
        sw.io.read_qupath(written(tmp_path / "b.geojson", [point]), grid)


def test_the_file_of_another_slide_is_refused(grid: SpatialData, tmp_path: Path) -> None:
    path = written(tmp_path / "a.geojson", [region((50_000, 50_000, 60_000, 60_000)), region((1, 1, 20, 20))])
    sw.io.read_qupath(path, grid, inplace=False)  # one of two lies on the image
    path = written(tmp_path / "a.geojson", [region((50_000, 50_000, 60_000, 60_000))])
    with pytest.raises(
        ValueError, match=r"belongs to another slide: 1 of 1 objects lie outside the image of 1200 x 900"
    ):
        sw.io.read_qupath(path, grid)
    assert "qupath" not in grid["sw_tiles"].obs


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "{}",
        "[1]",
        '{"type":"FeatureCollection","features":[{"type":"Feature"}]}',
        '{"type":"FeatureCollection","features":[{"type":"Fea',
        '{"type":"FeatureCollection","features":[{"type":"Feature","geometry":{"type":"Blob"},"properties":{}}]}',
    ],
)
def test_what_is_no_geojson_is_refused(text: str, grid: SpatialData, tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_text(text)
    with pytest.raises(ValueError, match="could not be read as GeoJSON"):
        sw.io.read_qupath(tmp_path / "a.geojson", grid)


def test_a_missing_file_and_a_taken_name_are_refused(grid: SpatialData, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nope"):
        sw.io.read_qupath(tmp_path / "nope.geojson", grid)
    path = written(tmp_path / "a.geojson", [region((1, 1, 20, 20))])
    with pytest.raises(ValueError, match="already has an element named 'slide'"):
        sw.io.read_qupath(path, grid, key_added="slide")
    assert "slide" not in grid["sw_tiles"].obs


# ------------------------------------------------------------------------------------------------- writing


def features_of(path: Path) -> list[dict[str, Any]]:
    """The features, each checked against the schema that QuPath documents."""
    raw = path.read_bytes()
    content = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    assert content["type"] == "FeatureCollection"
    for feature in content["features"]:
        assert feature["type"] == "Feature"
        assert len(feature["id"]) == 36
        assert feature["geometry"]["type"] in ("Polygon", "MultiPolygon")
        properties = feature["properties"]
        assert properties["objectType"] in ("annotation", "detection", "cell", "tile")
        assert all(isinstance(value, int | float) for value in properties["measurements"].values())
        if "classification" in properties:
            assert set(properties["classification"]) == {"name", "color"}
            assert all(0 <= value <= 255 for value in properties["classification"]["color"])
    return content["features"]


@pytest.mark.parametrize("name", ["a.geojson", "a.json.gz"])
def test_a_grid_is_written_as_tiles_with_labels_and_scores(name: str, grid: SpatialData, tmp_path: Path) -> None:
    sw.io.write_qupath(grid, tmp_path / name)
    features, table = features_of(tmp_path / name), grid["sw_tiles"]
    assert len(features) == table.n_obs == 108
    assert "classification" not in features[0]["properties"]
    for row in (1, 50, 107):
        feature, (x, y) = features[row], table.obsm["spatial"][row]
        assert shapely.geometry.shape(feature["geometry"]).bounds == (x - 50, y - 50, x + 50, y + 50)
        properties = feature["properties"]
        assert properties["objectType"] == "tile"
        assert properties["name"] == table.obs_names[row]
        assert properties["classification"]["name"] == table.obs["sw_label"].iloc[row]
        assert properties["measurements"]["B/plasma cell"] == pytest.approx(x / 1000)
        assert properties["measurements"]["sw_label_confidence"] == pytest.approx(row / 107, abs=1e-4)
    colours = {
        f["properties"]["classification"]["name"]: f["properties"]["classification"]["color"] for f in features[1:]
    }
    assert len({tuple(c) for c in colours.values()}) == 2


def test_colours_are_those_of_the_pictures(grid: SpatialData, tmp_path: Path) -> None:
    from matplotlib import pyplot as plt
    from matplotlib.colors import to_rgb

    sw.io.write_qupath(grid, tmp_path / "a.geojson")
    sw.pl.annotation(grid)
    plt.close("all")
    drawn = dict(
        zip(grid["sw_tiles"].obs["sw_label"].cat.categories, grid["sw_tiles"].uns["sw_label_colors"], strict=True)
    )
    for feature in features_of(tmp_path / "a.geojson")[1:]:
        stated = feature["properties"]["classification"]
        assert stated["color"] == [round(255 * c) for c in to_rgb(drawn[stated["name"]])]


def test_labels_go_to_qupath_and_come_back(grid: SpatialData, tmp_path: Path) -> None:
    sw.io.write_qupath(grid, tmp_path / "a.geojson", object_type="annotation")
    sw.io.read_qupath(tmp_path / "a.geojson", grid)
    obs = grid["sw_tiles"].obs
    pd.testing.assert_series_equal(obs["qupath"].astype(object), obs["sw_label"].astype(object), check_names=False)


def test_spots_are_circles_and_cells_polygons_in_pixels_of_the_image(section: Any, tmp_path: Path) -> None:
    from spatialdata.models import ShapesModel, TableModel
    from spatialdata.transformations import Scale

    sw.io.write_qupath(
        section,
        tmp_path / "a.geojson",
        key="cell_type",
        measurements="n_counts" if "n_counts" in section["table"].obs else (),
    )
    features, slide = features_of(tmp_path / "a.geojson"), section["table"]
    radius = float(section["P3_spots"]["radius"].iloc[0])
    first = shapely.geometry.shape(features[0]["geometry"])
    assert first.area == pytest.approx(np.pi * radius**2, rel=0.02)
    assert features[0]["properties"]["objectType"] == "detection"

    import geopandas as gpd

    boxes = shapely.box(*np.array([[10, 20, 14, 26], [40, 20, 44, 22]], float).T)
    micron = ShapesModel.parse(gpd.GeoDataFrame(geometry=boxes), transformations={"P3": Scale([2, 2], axes=("x", "y"))})
    section.shapes["polygons"] = micron
    table = ad.AnnData(np.zeros((2, 0), np.float32))
    table.obs["region"] = pd.Categorical(["polygons"] * 2)
    table.obs["id"] = [1, 0]
    table.obs["kind"] = ["a", "b"]
    section.tables["own"] = TableModel.parse(table, region="polygons", region_key="region", instance_key="id")
    sw.io.write_qupath(section, tmp_path / "b.geojson", key="kind", table_key="own", object_type="cell")
    bounds = [shapely.geometry.shape(f["geometry"]).bounds for f in features_of(tmp_path / "b.geojson")]
    assert bounds == [(80, 40, 88, 44), (20, 40, 28, 52)]
    assert slide.n_obs == len(features)


def test_an_existing_file_and_a_wrong_ending_are_refused(grid: SpatialData, tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        sw.io.write_qupath(grid, path)
    with pytest.raises(ValueError, match="path must end with"):
        sw.io.write_qupath(grid, tmp_path / "a.csv")
    with pytest.raises(KeyError, match="'nope' not in .obs"):
        sw.io.write_qupath(grid, path, key="nope", overwrite=True)
    with pytest.raises(FileNotFoundError, match="no folder"):
        sw.io.write_qupath(grid, tmp_path / "no" / "a.geojson")
    assert path.read_text() == "mine"
    sw.io.write_qupath(grid, path, overwrite=True)
    assert len(features_of(path)) == 108


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(
    grid: SpatialData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spatialwhisperer.io._qupath import writing

    def failing(*_: Any) -> Any:
        raise OSError("the disk is full")

    path = tmp_path / "a.geojson"
    path.write_text("mine")
    monkeypatch.setattr(writing, "_lines", failing)
    with pytest.raises(OSError, match="full"):
        sw.io.write_qupath(grid, path, overwrite=True)
    assert path.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir() if "geojson" in p.name] == ["a.geojson"]


def many_cells(n: int) -> ad.AnnData:
    rng = np.random.default_rng(0)
    adata = ad.AnnData(np.zeros((n, 0), np.float32))
    adata.obsm["spatial"] = rng.uniform(0, 50_000, (n, 2))
    adata.obs["sw_label"] = pd.Categorical(rng.choice(["a", "b"], n))
    return adata


@pytest.mark.slow
def test_memory_is_the_same_for_many_cells_as_for_few(tmp_path: Path) -> None:
    peaks = []
    for n in (5_000, 50_000):
        adata = many_cells(n)
        tracemalloc.start()
        sw.io.write_qupath(adata, tmp_path / f"{n}.geojson")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 200 * 45_000  # bytes for each further row: its place, name and class
    assert sum(1 for line in (tmp_path / "50000.geojson").open() if line.startswith('{"type":"Feature",')) == 50_000


def test_several_sections_ask_for_one(tmp_path: Path) -> None:
    import spatialdata as sd

    made = sw.datasets.simulate_sections(2, 20, n_genes=20, n_reference_cells=20, random_state=0).sections
    both = sd.concatenate(
        {name: one.subset([f"{name}_image", f"{name}_spots", "table"]) for name, one in made.items()},
        concatenate_tables=True,
    )
    with pytest.raises(ValueError, match=r"2 sections .* Pass section="):
        sw.io.write_qupath(both, tmp_path / "a.geojson", key="cell_type")
    names = list(both["table"].obs["region"].unique()) if "region" in both["table"].obs else []
    assert names
    sw.io.write_qupath(both, tmp_path / "a.geojson", key="cell_type", section=names[0])
    assert len(features_of(tmp_path / "a.geojson")) == 20


def test_a_real_slide_goes_to_qupath_and_back(data_folder: Path, tmp_path: Path) -> None:
    """Sixty tiles of a real section, cut out of its picture."""
    from PIL import Image

    with Image.open(data_folder / "her2st" / "A1" / "image.jpg") as picture:
        picture.crop((300, 300, 900, 900)).save(tmp_path / "A1.png")
    sdata = sw.io.read_slide(tmp_path / "A1.png", mpp=3.19)
    sw.pp.tiles(sdata, tile_um=200, at="grid", tissue=None)
    sdata["sw_tiles"].obs["sw_label"] = pd.Categorical(
        ["x", "y"] * (sdata["sw_tiles"].n_obs // 2) + ["x"] * (sdata["sw_tiles"].n_obs % 2)
    )
    sw.io.write_qupath(sdata, tmp_path / "a.geojson")
    sw.io.read_qupath(tmp_path / "a.geojson", sdata)
    cells: Any = sdata["qupath_cells"]
    assert cells.geometry.equals(sdata["A1_tiles"].geometry) or np.allclose(
        cells.area, sdata["A1_tiles"].area, rtol=1e-3
    )
