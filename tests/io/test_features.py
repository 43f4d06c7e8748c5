"""Tile features of other tools: each row stays with its tile, and tiles of another slide are refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anndata as ad
import geopandas as gpd
import h5py
import numpy as np
import pytest
import shapely

import spatialwhisperer as sw

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from spatialdata import SpatialData

CORNERS = np.array([[0, 0], [200, 0], [400, 200], [800, 600]])
FEATURES = np.arange(12, dtype=np.float32).reshape(4, 3)


def trident(path: Path, corners: np.ndarray = CORNERS, features: np.ndarray = FEATURES, **attributes: Any) -> Path:
    stated = {
        "patch_size": 256,
        "patch_size_level0": 200,
        "level0_magnification": 20,
        "target_magnification": 20,
        "overlap": 0,
        "name": "slide",
        "level0_width": 1200,
        "level0_height": 900,
    }
    folder = path / "features_uni_v1"
    folder.mkdir(exist_ok=True)
    with h5py.File(folder / "slide.h5", "w") as h5:
        h5["features"], h5["coords"] = features, corners
        for name, value in {**stated, **attributes}.items():
            if value is not None:
                h5["coords"].attrs[name] = value
    return folder / "slide.h5"


def stamp(path: Path, corners: np.ndarray = CORNERS / 2, **attributes: Any) -> Path:
    """As STAMP 2 writes it: microns, float16."""
    stated = {"unit": "um", "tile_size_um": 100.0, "tile_size_px": 224, "extractor": "ctranspath", "feat_type": "tile"}
    with h5py.File(path / "slide.h5", "w") as h5:
        h5["feats"], h5["coords"] = FEATURES[: len(corners)].astype(np.float16), corners
        h5.attrs.update({k: v for k, v in {**stated, **attributes}.items() if v is not None})
    return path / "slide.h5"


def hest(path: Path, corners: np.ndarray = CORNERS) -> Path:
    folder = path / "uni_v1"
    folder.mkdir()
    with h5py.File(folder / "TENX1.h5", "w") as h5:
        h5["embeddings"], h5["coords"] = FEATURES, corners
        h5["barcodes"] = np.array([[f"AAC{i}-1".encode()] for i in range(len(corners))])
    return folder / "TENX1.h5"


def wsidata(corners: np.ndarray = CORNERS, edge: float = 200, mpp: float | None = 0.5) -> Any:
    """As wsidata holds it, with features in another order than the tiles."""
    squares = gpd.GeoDataFrame(
        {"tile_id": np.arange(len(corners))},
        geometry=shapely.box(*corners.T, *(corners + edge).T),
        index=np.arange(len(corners)) + 7,
    )
    features = ad.AnnData(FEATURES[::-1].copy())
    features.obs["tile_id"] = np.arange(len(corners))[::-1]
    properties = SimpleNamespace(mpp=mpp)
    return SimpleNamespace(shapes={"tiles": squares}, tables={"uni_tiles": features}, properties=properties)


READERS: dict[str, tuple[Callable[..., SpatialData], str]] = {
    "trident": (lambda path, **options: sw.io.from_trident(trident(path), **options), "X_uni_v1"),
    "stamp": (lambda path, **options: sw.io.from_stamp(stamp(path), **options), "X_ctranspath"),
    "hest": (lambda path, **options: sw.io.from_hest(hest(path), tile_um=100, **options), "X_uni_v1"),
    "wsidata": (lambda _, **options: sw.io.from_wsidata(wsidata(), "uni", **options), "X_uni"),
}


@pytest.mark.parametrize("tool", READERS)
def test_tiles_have_their_features_and_places(tool: str, tmp_path: Path) -> None:
    read, key = READERS[tool]
    sdata = read(tmp_path, mpp=0.5)
    table = sdata["sw_tiles"]
    by_place = {tuple(xy): row for xy, row in zip(table.obsm["spatial"], table.obsm[key], strict=True)}
    assert table.obsm[key].dtype == np.float32
    for corner, features in zip(CORNERS, FEATURES, strict=True):
        np.testing.assert_array_equal(by_place[tuple(corner + 100.0)], features)
    (shapes,) = sdata.shapes.values()
    np.testing.assert_allclose(shapes.area, 200.0**2)
    np.testing.assert_allclose(np.column_stack([shapes.centroid.x, shapes.centroid.y]), table.obsm["spatial"])
    assert sorted(sdata.coordinate_systems) == ["global", "microns"]


@pytest.mark.parametrize("tool", READERS)
def test_tiles_join_their_slide(tool: str, slide_file: Path, tmp_path: Path) -> None:
    read, key = READERS[tool]
    slide = sw.io.read_slide(slide_file)
    sdata = read(tmp_path, slide=slide)
    assert not slide.tables
    assert set(sdata.shapes) == {"slide_tiles"}
    assert list(sdata.images) == ["slide"]
    sw.pp.embed_images(sdata, tile_um=100, tile_px=64)  # the package's own features of the same tiles
    assert {key, "X_stain_texture"} <= set(sdata["sw_tiles"].obsm)


@pytest.mark.parametrize("tool", READERS)
def test_tiles_outside_the_slide_are_refused(tool: str, slide_file: Path, tmp_path: Path) -> None:
    far = CORNERS + np.array([0, 900])
    slide = sw.io.read_slide(slide_file)
    calls: dict[str, Callable[[], Any]] = {
        "trident": lambda: sw.io.from_trident(trident(tmp_path, far), slide=slide),
        "stamp": lambda: sw.io.from_stamp(stamp(tmp_path, far / 2), slide=slide),
        "hest": lambda: sw.io.from_hest(hest(tmp_path, far), slide=slide),
        "wsidata": lambda: sw.io.from_wsidata(wsidata(far), "uni", slide=slide),
    }
    with pytest.raises(ValueError, match="4 of 4 tiles of .* lie outside image 'slide' of 1200 x 900 pixels"):
        calls[tool]()


@pytest.mark.parametrize("tool", READERS)
def test_a_scale_that_differs_from_the_slide_is_refused(tool: str, slide_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"disagree: 0.25 µm per pixel by mpp=…, 0.5 by image 'slide'"):
        READERS[tool][0](tmp_path, slide=sw.io.read_slide(slide_file), mpp=0.25)


def test_trident_states_size_and_magnification_of_its_slide(slide_file: Path, tmp_path: Path) -> None:
    slide = sw.io.read_slide(slide_file)
    with pytest.raises(ValueError, match="slide of width 1000; this one has 1200"):
        sw.io.from_trident(trident(tmp_path, level0_width=1000), slide=slide)
    with pytest.raises(ValueError, match="slide of 40x, about 0.25 µm per pixel; image 'slide' states 0.5"):
        sw.io.from_trident(trident(tmp_path, level0_magnification=40), slide=slide)
    with pytest.raises(ValueError, match="does not state the edge of its tiles"):
        sw.io.from_trident(trident(tmp_path, patch_size_level0=None))


def test_the_edge_of_touching_tiles_is_not_that_of_a_rounding_error(tmp_path: Path) -> None:
    nothing: dict[str, Any] = dict.fromkeys(("tile_size_um", "tile_size_px"))
    noise = np.random.default_rng(0).normal(0, 1e-4, CORNERS.shape)
    tiles = sw.io.from_stamp(stamp(tmp_path, CORNERS / 2 + noise, **nothing), unit="um", mpp=0.5)
    np.testing.assert_allclose(tiles["sw_tiles"].obsm["spatial"], CORNERS + 100, atol=0.01)
    single = stamp(tmp_path, np.zeros((1, 2)), **nothing)
    with pytest.raises(ValueError, match="holds a single tile and does not state its size"):
        sw.io.from_stamp(single, unit="um", mpp=0.5)


def test_stamp_of_every_version_is_read(tmp_path: Path) -> None:
    second = sw.io.from_stamp(stamp(tmp_path, tile_size_um=None, tile_size=100.0), mpp=0.5)
    np.testing.assert_allclose(second["sw_tiles"].obsm["spatial"], CORNERS + 100)
    grid = 224 * np.array([[0, 0], [1, 0], [1, 1], [2, 5]])
    nothing: dict[str, Any] = dict.fromkeys(("unit", "tile_size_um", "tile_size_px", "extractor", "feat_type"))
    first = sw.io.from_stamp(stamp(tmp_path, grid, **nothing), mpp=0.5)
    np.testing.assert_allclose(first["sw_tiles"].obsm["spatial"], grid / 224 * 512 + 256)
    path = stamp(tmp_path, CORNERS, **nothing)
    with pytest.raises(ValueError, match="does not state the unit of its coordinates"):
        sw.io.from_stamp(path, mpp=0.5)
    pixels = sw.io.from_stamp(path, unit="px")
    np.testing.assert_allclose(pixels["sw_tiles"].obsm["spatial"], CORNERS + 100)
    assert pixels.coordinate_systems == ["global"]
    with pytest.raises(ValueError, match="features of a patient, not of tiles"):
        sw.io.from_stamp(stamp(tmp_path, feat_type="patient"), mpp=0.5)


def test_microns_need_a_scale(tmp_path: Path) -> None:
    for call in (lambda: sw.io.from_stamp(stamp(tmp_path)), lambda: sw.io.from_hest(hest(tmp_path))):
        with pytest.raises(ValueError, match=r"Pass slide=sw.io.read_slide\(path\), or mpp="):
            call()


def test_barcodes_of_hest_name_the_tiles(tmp_path: Path) -> None:
    table = sw.io.from_hest(hest(tmp_path), mpp=0.5)["sw_tiles"]
    assert table.obs["name"].tolist() == ["AAC0-1", "AAC1-1", "AAC2-1", "AAC3-1"]


def test_rows_that_do_not_match_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one row of features for each tile"):
        sw.io.from_trident(trident(tmp_path, features=FEATURES[:3]))
    with pytest.raises(ValueError, match="NaN or infinite"):
        sw.io.from_trident(trident(tmp_path, corners=CORNERS * np.nan))
    wrong = wsidata()
    wrong.tables["uni_tiles"].obs["tile_id"] = [7, 8, 1, 0]
    with pytest.raises(ValueError, match="2 of 4 rows of 'uni_tiles' name tiles that do not exist"):
        sw.io.from_wsidata(wrong, "uni")
    with pytest.raises(ValueError, match="disagree"):
        sw.io.from_wsidata(wsidata(mpp=0.25), "uni", mpp=0.5)


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nope"):
        sw.io.from_trident(tmp_path / "nope.h5")
    (tmp_path / "a.h5").write_text("hello")
    with pytest.raises(ValueError, match="could not be read as features"):
        sw.io.from_stamp(tmp_path / "a.h5")
    with pytest.raises(ValueError, match=r"no dataset features \(found: coords, feats\)"):
        sw.io.from_trident(stamp(tmp_path))
    with pytest.raises(KeyError, match="no features 'conch' of 'tiles' .found: uni_tiles"):
        sw.io.from_wsidata(wsidata(), "conch")
    with pytest.raises(TypeError, match="WSIData"):
        sw.io.from_wsidata("a.zarr", "uni")
    with pytest.raises(TypeError, match="slide must be a SpatialData"):
        sw.io.from_hest(hest(tmp_path), slide=ad.AnnData(np.zeros((1, 1))))


def test_the_object_survives_zarr(slide_file: Path, tmp_path: Path) -> None:
    import spatialdata as sd

    sdata = sw.io.from_trident(trident(tmp_path), slide=sw.io.read_slide(slide_file))
    sdata.write(tmp_path / "a.zarr")
    back = sd.read_zarr(tmp_path / "a.zarr")["sw_tiles"]
    np.testing.assert_array_equal(back.obsm["X_uni_v1"], sdata["sw_tiles"].obsm["X_uni_v1"])


def test_a_real_file_of_features_is_read(data_folder: Path) -> None:
    path = data_folder / "he_patches" / "mopadi_TCGA-AD-6964_features.h5"
    if not path.is_file():
        pytest.skip("needs he_patches")
    with pytest.raises(ValueError, match="does not state the unit"):
        sw.io.from_stamp(path)
    table = sw.io.from_stamp(path, unit="px", mpp=0.25)["sw_tiles"]
    assert table.obsm["X_stamp"].shape == (777, 512)
    # the corner of a tile of this slide that is named in the file of its picture
    assert (table.obsm["spatial"] == np.array([22016, 11776]) + 256).all(axis=1).any()


def test_the_unit_that_a_file_of_stamp_states_is_the_unit(tmp_path: Path) -> None:
    centres = CORNERS + 100
    for stated in ({"tile_size_um": 100.0}, {"tile_size_um": None, "tile_size": 200.0}):
        path = stamp(tmp_path, CORNERS, unit="px", **stated)
        tiles = sw.io.from_stamp(path, mpp=0.5)
        np.testing.assert_allclose(tiles["sw_tiles"].obsm["spatial"], centres)
        with pytest.raises(ValueError, match="states its coordinates in 'px', and unit='um' was passed"):
            sw.io.from_stamp(path, mpp=0.5, unit="um")
    with pytest.raises(ValueError, match="states its coordinates in 'mm', which is neither"):
        sw.io.from_stamp(stamp(tmp_path, unit="mm"), mpp=0.5)


def test_two_patches_of_one_barcode_are_refused(tmp_path: Path) -> None:
    path = hest(tmp_path)
    with h5py.File(path, "r+") as h5:
        h5["barcodes"][1] = h5["barcodes"][0]
    with pytest.raises(ValueError, match="repeat: a row would have two tiles"):
        sw.io.from_hest(path, mpp=0.5)


def test_home_is_found(tmp_path: Path, slide_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trident(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    place = next(tmp_path.rglob("slide.h5")).relative_to(tmp_path)
    assert sw.io.from_trident(f"~/{place}", name="uni_v1")["sw_tiles"].n_obs == 4
    monkeypatch.setenv("HOME", str(slide_file.parent))
    assert len(sw.io.read_slide(f"~/{slide_file.name}").images) == 1


@pytest.mark.parametrize("tool", READERS)
def test_a_smaller_copy_of_a_slide_is_refused(tool: str, slide_file: Path, tmp_path: Path) -> None:
    """Tiles and ``mpp`` are in pixels of the full resolution, and those of the copy are larger."""
    from spatialdata.transformations import Scale, set_transformation

    slide = sw.io.read_slide(slide_file)
    systems = {"downscaled_hires": Scale([1.0, 1.0], ("x", "y")), "global": Scale([4.0, 4.0], ("x", "y"))}
    set_transformation(slide["slide"], systems, set_all=True)
    with pytest.raises(ValueError, match=r"image 'slide' \(1200 x 900 pixels\) is a smaller copy .* 4 of these wide"):
        READERS[tool][0](tmp_path, slide=slide, mpp=0.5)


def test_a_store_of_wsidata_states_its_scale_however_it_was_read() -> None:
    wsi = wsidata()
    stored = SimpleNamespace(shapes=wsi.shapes, tables=wsi.tables, attrs={"slide_properties": {"mpp": 0.25}})
    with pytest.raises(
        ValueError, match=r"disagree: 0\.5 µm per pixel by mpp=…, 0\.25 by the object of the other tool"
    ):
        sw.io.from_wsidata(stored, "uni", mpp=0.5)
    assert sw.io.from_wsidata(stored, "uni")["sw_tiles"].n_obs == len(CORNERS)


@pytest.mark.parametrize("tool", ["trident", "stamp", "hest", "wsidata"])
def test_two_tiles_at_one_place_are_refused(tool: str, tmp_path: Path) -> None:
    corners = CORNERS.copy()
    corners[2] = corners[1]
    made: dict[str, Callable[[], Any]] = {
        "trident": lambda: sw.io.from_trident(trident(tmp_path, corners)),
        "stamp": lambda: sw.io.from_stamp(stamp(tmp_path, corners / 2), mpp=0.5),
        "hest": lambda: sw.io.from_hest(hest(tmp_path, corners), mpp=0.5),
        "wsidata": lambda: sw.io.from_wsidata(wsidata(corners), "uni"),
    }
    at = "100, 0" if tool == "stamp" else "200, 0"
    with pytest.raises(ValueError, match=rf"4 tiles at 3 places: rows 1 and 2 both lie at \({at}\)"):
        made[tool]()
