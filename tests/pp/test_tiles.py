from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from spatialwhisperer._access import Level, RasterImage
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer._provenance import recorded
from spatialwhisperer.pp.grid import grid_centres
from spatialwhisperer.pp.images import read_tiles
from spatialwhisperer.pp.stain import TissueMask, coarse_raster, glass_for_black, tissue_mask
from spatialwhisperer.pp.tiles import tiles

if TYPE_CHECKING:
    from pathlib import Path

XY = np.array([[150.0, 120.0], [300.5, 410.2], [477.0, 222.0], [90.0, 505.0]])


def disc(height: int = 600, width: int = 800, background: int = 240) -> tuple[np.ndarray, np.ndarray]:
    """A pink, noisy disc on one background, and the mask of the disc."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    tissue = (x - 300) ** 2 + (y - 320) ** 2 < 200**2
    image = np.full((3, height, width), background, np.int64)
    for channel, value in enumerate((205, 120, 170)):
        image[channel][tissue] = value
    image += rng.integers(-12, 12, image.shape)
    return image.clip(0, 255).astype(np.uint8), tissue


def slide(
    images: dict[str, np.ndarray], xy: np.ndarray | None = None, *, table: bool = False, mpp: float | None = 0.5
) -> Any:
    import spatialdata as sd
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Identity, Scale

    def maps(name: str) -> dict[str, Any]:
        return {name: Identity()} | ({} if mpp is None else {"microns": Scale([mpp, mpp], ("x", "y"))})

    groups: dict[str, Any] = {
        "images": {
            f"{name}_image": Image2DModel.parse(image, dims=("c", "y", "x"), transformations=maps(name))
            for name, image in images.items()
        }
    }
    if xy is not None:
        index = np.array([f"i{k}" for k in range(len(xy))])
        name = next(iter(images))
        circles = ShapesModel.parse(xy, geometry=0, radius=5.0, index=index, transformations=maps(name))
        groups["shapes"] = {"spots": circles}
        if table:
            obs = pd.DataFrame({"region": pd.Categorical(["spots"] * len(xy)), "instance_id": index}, index=index)
            matrix = ad.AnnData(csr_matrix(np.ones((len(xy), 2), np.float32)), obs=obs)
            groups["tables"] = {
                "table": TableModel.parse(matrix, region="spots", region_key="region", instance_key="instance_id")
            }
    return sd.SpatialData(**groups)


def library(image: np.ndarray, xy: np.ndarray = XY) -> ad.AnnData:
    adata = ad.AnnData(csr_matrix(np.ones((len(xy), 2), np.float32)))
    adata.obsm["spatial"] = xy
    adata.uns["spatial"] = {"L": {"images": {"fullres": np.moveaxis(image, 0, -1)}, "scalefactors": {}}}
    return adata


def names(sdata: Any) -> list[tuple[str, str]]:
    return sorted((str(kind), str(name)) for kind, name, _ in sdata.gen_elements())


def test_centres_and_provenance_are_written() -> None:
    image, _ = disc()
    sdata = slide({"S": image}, XY, table=True)
    assert tiles(sdata, tile_um=32, tile_px=64) is None
    table = sdata.tables["table"]
    assert np.array_equal(table.obsm["sw_tiles"], XY)
    assert table.obsm["sw_tiles"].dtype == np.float64
    stored = recorded(table, "sw_tiles")
    assert stored["tile_um"] == 32.0
    assert stored["tile_px"] == 64
    assert stored["at"] == "spots"
    assert stored["mpp"] == {"spots": 0.5}
    assert stored["image"] == {"spots": "S_image"}


def test_not_in_place_returns_a_table_and_writes_nothing() -> None:
    image, _ = disc()
    sdata, adata = slide({"S": image}, XY, table=True), library(image)
    for data, arguments in ((sdata, {}), (adata, {"mpp": 0.5})):
        got = tiles(data, tile_um=32, tile_px=64, at="cells", inplace=False, **arguments)
        assert got.shape == (4, 0)
        assert np.array_equal(got.obsm["sw_tiles"], XY)
        table = data if data is adata else sdata.tables["table"]
        assert list(got.obs_names) == list(table.obs_names)
        assert "sw_tiles" not in table.obsm
        assert "spatialwhisperer" not in table.uns
    # an AnnData's copy carries its images
    assert read_tiles(got).shape == (4, 3, 64, 64)


def test_shapes_without_a_table_get_one() -> None:
    image, _ = disc()
    sdata = slide({"S": image}, XY)
    before = names(sdata)
    assert tiles(sdata, tile_um=32, tile_px=64, shapes_key="spots", inplace=False).n_obs == 4
    with pytest.raises(KeyError, match="not an image"):
        tiles(sdata, tile_um=32, shapes_key="spots", image_key="nope")
    assert names(sdata) == before
    tiles(sdata, tile_um=32, tile_px=64, shapes_key="spots", key_added="cells", at="cells")
    assert names(sdata) == sorted([*before, ("tables", "cells")])
    assert np.array_equal(sdata.tables["cells"].obsm["sw_tiles"], XY)
    # the second call finds the table that the first one made
    tiles(sdata, tile_um=64, tile_px=64, shapes_key="spots")
    assert recorded(sdata.tables["cells"], "sw_tiles")["tile_um"] == 64.0


def test_labels_without_a_table_get_one() -> None:
    from spatialdata.models import Labels2DModel
    from spatialdata.transformations import Identity

    image, _ = disc()
    sdata = slide({"S": image})
    cells = np.zeros(image.shape[1:], np.int64)
    cells[100:110, 200:220] = 7
    cells[300:304, 50:54] = 3
    sdata.labels["cells"] = Labels2DModel.parse(cells, dims=("y", "x"), transformations={"S": Identity()})
    tiles(sdata, at="cells", tile_um=32, tile_px=64, shapes_key="cells")
    assert sdata.tables["sw_tiles"].obs["instance_id"].tolist() == [3, 7]
    assert sdata.tables["sw_tiles"].obsm["sw_tiles"].tolist() == [[52, 302], [210, 105]]


def test_grid_lies_on_the_tissue() -> None:
    image, tissue = disc()
    sdata = slide({"S": image})
    tiles(sdata, at="grid", tile_um=20, tile_px=40)
    assert names(sdata) == [("images", "S_image"), ("shapes", "S_image_tiles"), ("tables", "sw_tiles")]
    table = sdata.tables["sw_tiles"]
    centres = table.obsm["sw_tiles"]
    share = np.array([tissue[int(y) - 20 : int(y) + 20, int(x) - 20 : int(x) + 20].mean() for x, y in centres])
    assert share.min() > 0.45
    # the grid leaves out none that is clearly tissue
    every = grid_centres((800, 600), 40, 40)
    full = [tissue[int(y) - 20 : int(y) + 20, int(x) - 20 : int(x) + 20].mean() > 0.55 for x, y in every]
    assert len(centres) >= sum(full)
    assert np.array_equal(table.obsm["spatial"], centres)
    bounds = sdata.shapes["S_image_tiles"].geometry.bounds.to_numpy()
    assert np.allclose(bounds[:, :2] + 20, centres)
    got = read_tiles(sdata)
    x, y = np.rint(centres[3] - 20).astype(int)
    assert np.array_equal(got[3], image[:, y : y + 40, x : x + 40])


def test_grid_over_several_images_and_its_options(tmp_path: Path) -> None:
    import spatialdata as sd

    first, tissue = disc()
    second, _ = disc(500, 700)
    sdata = slide({"A": first, "B": second})
    tiles(sdata, at="grid", tile_um=50, tile_px=50, stride_um=25, tissue=None, mpp={"A_image": 0.5, "B_image": 1.0})
    table = sdata.tables["sw_tiles"]
    assert table.obs["region"].value_counts().to_dict() == {
        "A_image_tiles": len(grid_centres((800, 600), 100, 50)),
        "B_image_tiles": len(grid_centres((700, 500), 50, 25)),
    }
    assert recorded(table, "sw_tiles")["mpp"] == {"A_image_tiles": 0.5, "B_image_tiles": 1.0}
    sdata.write(tmp_path / "grid.zarr")
    again = sd.read_zarr(tmp_path / "grid.zarr")
    assert np.array_equal(read_tiles(again), read_tiles(sdata))
    only = tiles(
        sdata, at="grid", image_key="A_image", tile_um=20, tissue=tissue, min_tissue=1, key_added="a", inplace=False
    )
    assert set(only.obs["region"]) == {"A_image_tiles"}
    assert (TissueMask.over(raster(first), tissue).share(only.obsm["sw_tiles"], 40) == 1).all()
    with pytest.raises(ValueError, match="already has an element named 'A_image_tiles'"):
        tiles(sdata, at="grid", image_key="A_image", tile_um=20, key_added="again")


def test_grid_over_an_anndata_is_an_object_of_its_own() -> None:
    image, _ = disc()
    adata = library(image)
    with pytest.raises(ValueError, match="inplace=False"):
        tiles(adata, at="grid", tile_um=20, mpp=0.5)
    got = tiles(adata, at="grid", tile_um=20, tile_px=40, mpp=0.5, inplace=False)
    assert got.n_vars == 0
    assert "sw_tiles" not in adata.obsm
    assert read_tiles(got).shape == (got.n_obs, 3, 40, 40)
    assert set(got.obs["library_id"]) == {"L"}


def raster(image: np.ndarray) -> RasterImage:
    return RasterImage("i", (Level(image, 1.0, 1.0),), (image.shape[2], image.shape[1]))


@pytest.mark.parametrize("background", [240, 0])
def test_tissue_on_glass_and_on_a_black_mask(background: int) -> None:
    image, tissue = disc(background=background)
    sdata, adata = slide({"S": image}), library(image)
    before = names(sdata)
    for data, key in ((sdata, "S_image"), (adata, "L")):
        got = tissue_mask(data, key)
        assert got.mask.shape == tissue.shape
        assert (got.mask & tissue).sum() / (got.mask | tissue).sum() > 0.98
    assert names(sdata) == before
    with pytest.raises(KeyError, match="no image 'nope'"):
        tissue_mask(sdata, "nope")


def test_a_blank_slide_has_no_tissue() -> None:
    image = np.full((3, 300, 300), 243, np.uint8)
    assert not tissue_mask(slide({"S": image}), "S_image").mask.any()
    with pytest.raises(ValueError, match="No tile of 20 um fits into the tissue"):
        tiles(slide({"S": image}), at="grid", tile_um=20)


def test_coarse_raster_averages_the_whole_image() -> None:
    image = np.random.default_rng(0).integers(0, 255, (3, 3001, 2000), dtype=np.uint8)
    got = coarse_raster(raster(image))
    assert got.shape == (3, 1001, 667)
    assert got[0, 500, 100] == int(image[0, 1500:1503, 300:303].mean())
    assert got[2, -1, -1] == int(image[2, 3000:, 1998:].mean())
    assert np.array_equal(glass_for_black(got), got)


def test_share_of_a_mask_at_another_resolution() -> None:
    mask = np.zeros((60, 80), bool)
    mask[:, 40:] = True
    over = TissueMask.over(raster(np.zeros((3, 600, 800), np.uint8)), mask)
    centres = np.array([[100.0, 100], [400, 300], [700, 300], [799, 300]])
    assert over.share(centres, 100).tolist() == [0, 0.5, 1, 0.5]
    with pytest.raises(ValueError, match="proportions"):
        TissueMask.over(raster(np.zeros((3, 600, 800), np.uint8)), mask.T)
    with pytest.raises(ValueError, match="shape"):
        TissueMask.over(raster(np.zeros((3, 600, 800), np.uint8)), mask[0])


def test_grid_centres_share_the_rest() -> None:
    assert grid_centres((100, 30), 30, 30).tolist() == [[20, 15], [50, 15], [80, 15]]
    assert len(grid_centres((29, 100), 30, 30)) == 0
    assert len(grid_centres((30, 30), 30, 30)) == 1


def test_low_resolution_is_said_or_refused() -> None:
    image, _ = disc()
    for data, arguments in ((slide({"S": image}, XY, table=True), {}), (slide({"S": image}), {"at": "grid"})):
        with pytest.warns(SpatialWhispererWarning, match="224 pixels over 56 um ask for 0.25 um per pixel") as caught:
            tiles(data, tile_um=56, tile_px=224, **arguments, inplace=False)
        assert caught[0].filename == __file__
        before = names(data)
        with pytest.raises(ValueError, match="a tile of 112 pixels"):
            tiles(data, tile_um=56, tile_px=224, on_low_res="error", **arguments)
        assert names(data) == before
        tiles(data, tile_um=56, tile_px=224, on_low_res="allow", **arguments)


def test_errors_leave_the_object_unchanged() -> None:
    image, tissue = disc()
    sdata, adata = slide({"S": image}, XY, table=True), library(image)
    bare = slide({"S": image}, mpp=None)
    cases = [
        (sdata, {"tile_um": -1}, ValueError, "tile_um must be a positive"),
        (sdata, {"tile_um": np.nan}, ValueError, "tile_um must be a positive"),
        (sdata, {"tile_px": 0}, ValueError, "tile_px must be"),
        (sdata, {"at": "cell"}, ValueError, "at must be one of 'spots', 'cells', 'grid'"),
        (sdata, {"on_low_res": "no"}, ValueError, "on_low_res must be one of"),
        (sdata, {"stride_um": 5}, ValueError, "stride_um is meant for a grid"),
        (sdata, {"tissue": tissue}, ValueError, "tissue is meant for a grid"),
        (sdata, {"key_added": "other"}, ValueError, "names a table that this call makes"),
        (sdata, {"shapes_key": "nope"}, KeyError, "no shapes 'nope'"),
        (sdata, {"library_key": "x"}, ValueError, "applies to AnnData"),
        (sdata, {"at": "grid", "table_key": "table"}, ValueError, "table_key is meant for tiles on the rows"),
        (sdata, {"at": "grid", "min_tissue": 2}, ValueError, "min_tissue"),
        (sdata, {"at": "grid", "stride_um": 0}, ValueError, "stride_um must be a positive"),
        (sdata, {"at": "grid", "tissue": "yes"}, ValueError, "tissue must be"),
        (sdata, {"at": "grid", "tissue": {"other": tissue}}, KeyError, "no mask for image 'S_image'"),
        (sdata, {"at": "grid", "tile_um": 4000}, ValueError, "fits into the tissue"),
        (sdata, {"at": "grid", "image_key": "nope"}, KeyError, "no image 'nope'"),
        (adata, {"shapes_key": "spots", "mpp": 0.5}, ValueError, "applies to SpatialData"),
        (bare, {"at": "grid"}, ValueError, "microns per pixel of section 'S_image'"),
        (bare, {"mpp": 0.5}, KeyError, "holds no table"),
    ]
    for data, arguments, error, text in cases:
        before = names(data) if data is not adata else list(adata.obsm)
        with pytest.raises(error, match=text):
            tiles(data, **({"tile_um": 20} | arguments))
        assert (names(data) if data is not adata else list(adata.obsm)) == before
        assert "sw_tiles" not in (adata if data is adata else sdata.tables["table"]).obsm


@pytest.mark.slow
def test_grid_on_real_sections(data_folder: Path) -> None:
    """Spots were put on tissue, so the grid must cover them: black-masked A1 and glass C2."""
    from PIL import Image

    for name in ("A1", "C2"):
        folder = data_folder / "her2st" / name
        meta = json.loads((folder / "meta.json").read_text())
        adata = library(
            np.moveaxis(np.asarray(Image.open(folder / meta["image"]).convert("RGB")), -1, 0),
            np.asarray(ad.read_h5ad(folder / "counts.h5ad").obsm["spatial"], float),
        )
        spots = tissue_mask(adata, "L").share(adata.obsm["spatial"], 100 / meta["um_per_px"])
        assert (spots > 0.5).mean() > 0.95
        grid = tiles(adata, at="grid", tile_um=154, tile_px=40, mpp=meta["um_per_px"], inplace=False)
        assert (read_tiles(grid).mean(axis=(1, 2, 3)) > 60).all(), "a tile of the grid is black"
