from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer._access.images import find_image
from spatialwhisperer._access.records import TilesRecord
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.tiles.plan import plan_tiles
from spatialwhisperer._provenance import recorded_as
from spatialwhisperer.pp.features.tile_features import read_tiles
from spatialwhisperer.pp.grid import grid_centres
from spatialwhisperer.pp.stain import TissueMask, tissue_mask

if TYPE_CHECKING:
    from pathlib import Path

NOWHERE = np.empty((0, 2))


def names(sdata: Any) -> list[tuple[str, str]]:
    return sorted((str(kind), str(name)) for kind, name, _ in sdata.gen_elements())


def stated(table: Any) -> TilesRecord:
    out = recorded_as(table, "sw_tiles", TilesRecord)
    assert out is not None
    return out


def read(data: Any) -> np.ndarray:
    """The tiles that `sw.pp.tiles` stated."""
    slide = Slide.open(data)
    assert slide.tiles is not None
    assert slide.tiles.tile_px is not None
    return read_tiles(plan_tiles(slide), slide.tiles.tile_um, slide.tiles.tile_px)


def test_grid_centres_leave_as_much_on_both_edges() -> None:
    assert grid_centres((100, 30), 30, 30).tolist() == [[20, 15], [50, 15], [80, 15]]
    assert len(grid_centres((29, 100), 30, 30)) == 0
    assert len(grid_centres((30, 30), 30, 30)) == 1


def test_a_grid_lies_on_the_tissue(build: Any) -> None:
    image, tissue = build.disc()
    sdata = build.spatialdata(image)
    sw.pp.tiles(sdata, at="grid", tile_um=20, tile_px=40)
    assert names(sdata) == [("images", "S_image"), ("shapes", "S_image_tiles"), ("tables", "sw_tiles")]
    table = sdata.tables["sw_tiles"]
    centres = table.obsm["sw_tiles"]
    fraction = np.array([tissue[int(y) - 20 : int(y) + 20, int(x) - 20 : int(x) + 20].mean() for x, y in centres])
    assert fraction.min() > 0.45
    # the grid leaves out none that is clearly tissue
    every = grid_centres((800, 600), 40, 40)
    full = [tissue[int(y) - 20 : int(y) + 20, int(x) - 20 : int(x) + 20].mean() > 0.55 for x, y in every]
    assert len(centres) >= sum(full)
    assert np.array_equal(table.obsm["spatial"], centres)
    bounds = sdata.shapes["S_image_tiles"].geometry.bounds.to_numpy()
    assert np.allclose(bounds[:, :2] + 20, centres)
    got = read(sdata)
    x, y = np.rint(centres[3] - 20).astype(int)
    assert np.array_equal(got[3], image[:, y : y + 40, x : x + 40])


def test_a_grid_records_how_it_was_laid(build: Any) -> None:
    sdata = build.spatialdata(build.disc()[0])
    sw.pp.tiles(sdata, at="grid", tile_um=20, stride_um=30, min_tissue=0.7)
    record = stated(sdata.tables["sw_tiles"])
    assert (record.at, record.tile_um, record.tile_px, record.stride_um) == ("grid", 20.0, None, 30.0)
    assert (record.tissue, record.min_tissue) == ("auto", 0.7)
    assert record.where.mpp == {"S_image_tiles": 0.5}
    assert record.where.rule == {"S_image_tiles": "coordinate system 'microns'"}
    assert record.where.image == {"S_image_tiles": "S_image"}


def test_a_grid_over_several_images_has_one_region_each(build: Any, tmp_path: Path) -> None:
    import spatialdata as sd

    sdata = build.spatialdata({"A": build.disc()[0], "B": build.disc(500, 700)[0]}, mpp=None)
    mpp = {"A_image": 0.5, "B_image": 1.0}
    sw.pp.tiles(sdata, at="grid", tile_um=50, tile_px=50, stride_um=25, tissue=None, mpp=mpp)
    table = sdata.tables["sw_tiles"]
    assert table.obs["region"].value_counts().to_dict() == {
        "A_image_tiles": len(grid_centres((800, 600), 100, 50)),
        "B_image_tiles": len(grid_centres((700, 500), 50, 25)),
    }
    assert stated(table).where.mpp == {"A_image_tiles": 0.5, "B_image_tiles": 1.0}
    sdata.write(tmp_path / "grid.zarr")
    again = sd.read_zarr(tmp_path / "grid.zarr")
    assert stated(again.tables["sw_tiles"]) == stated(table)
    assert np.array_equal(read(again), read(sdata))
    with pytest.raises(ValueError, match="'sw_tiles', 'A_image_tiles', 'B_image_tiles', a grid over other"):
        sw.pp.tiles(sdata, at="grid", image_key="A_image", tile_um=20, mpp=mpp)
    sw.pp.tiles(sdata, at="grid", image_key="A_image", tile_um=20, key_added="again", mpp=mpp)
    assert {"A_image_tiles", "A_image_again"} <= set(sdata.shapes)


def test_a_mask_of_ones_own_says_where_the_tissue_is(build: Any) -> None:
    image, tissue = build.disc()
    sdata = build.spatialdata({"A": image, "B": build.disc(500, 700)[0]})
    got: Any = sw.pp.tiles(
        sdata, at="grid", image_key="A_image", tile_um=20, tissue=tissue, min_tissue=1, key_added="a", inplace=False
    )
    assert got is not None
    assert set(got.obs["region"]) == {"A_image_a"}
    mask = TissueMask.over(find_image(sdata, "A_image"), tissue)
    assert (mask.fraction(got.obsm["sw_tiles"], 40) == 1).all()
    assert stated(got).tissue == "given"
    assert names(sdata) == [("images", "A_image"), ("images", "B_image")]


@pytest.mark.parametrize("min_tissue", [0.1, 0.5, 0.9])
def test_uneven_pixels_have_the_tiles_of_the_image_with_square_ones(build: Any, min_tissue: float) -> None:
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Scale

    pixels, tissue = build.disc()
    found = []
    for x, y in ((1, 1), (4, 1), (1, 4)):
        image = Image2DModel.parse(
            pixels.repeat(x, axis=2).repeat(y, axis=1),
            transformations={"microns": Scale([0.5 / x, 0.5 / y], axes=("x", "y"))},
        )
        mask = tissue.repeat(x, axis=1).repeat(y, axis=0)
        grid: Any = sw.pp.tiles(
            SpatialData(images={"he": image}),
            at="grid",
            tile_um=40,
            tissue=mask,
            min_tissue=min_tissue,
            inplace=False,
        )
        found.append({tuple(place) for place in (grid.obsm["spatial"] / [x, y]).round(3)})
    assert found[0] == found[1] == found[2]


def test_a_mapping_with_a_name_that_is_no_image_is_refused(build: Any) -> None:
    sdata = build.spatialdata({"A": build.disc()[0]}, mpp=None)
    with pytest.raises(KeyError, match=r"mpp names 'A', which is no section .* nothing of A_image"):
        sw.pp.tiles(sdata, at="grid", tile_um=40, mpp={"A": 0.5})


def test_a_grid_over_an_anndata_is_an_object_of_its_own(build: Any) -> None:
    adata = build.visium({"L": build.disc()[0]}, {"L": NOWHERE})
    with pytest.raises(ValueError, match="inplace=False"):
        sw.pp.tiles(adata, at="grid", tile_um=20, mpp=0.5)
    got = sw.pp.tiles(adata, at="grid", tile_um=20, tile_px=40, mpp=0.5, inplace=False)
    assert got is not None
    assert got.n_vars == 0
    assert "sw_tiles" not in adata.obsm
    assert read(got).shape == (got.n_obs, 3, 40, 40)
    assert set(got.obs["library_id"]) == {"L"}


def test_a_name_that_is_taken_is_refused_before_any_pixel_is_read(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sdata = build.spatialdata(build.disc()[0])
    sw.pp.tiles(sdata, at="grid", tile_um=200, tissue=None)
    sdata["sw_tiles"].obs["mine"] = 1
    monkeypatch.setattr("spatialwhisperer.pp.grid.tissue_mask", lambda *_: pytest.fail("the image was read"))
    with pytest.raises(ValueError, match=r"'sw_tiles', 'S_image_tiles', a grid with results \(mine\)"):
        sw.pp.tiles(sdata, at="grid", tile_um=20)


def test_a_grid_may_be_laid_again_until_there_are_results_on_it(build: Any) -> None:
    sdata = build.spatialdata({"A": build.disc()[0], "B": build.disc(500, 700)[0]})
    sw.pp.tiles(sdata, at="grid", tile_um=200, tissue=None)
    assert {"A_image_tiles", "B_image_tiles"} <= set(sdata.shapes)
    # the second image has no tile now, and loses its squares
    masks = {"A_image": np.ones((600, 800), bool), "B_image": np.zeros((500, 700), bool)}
    sw.pp.tiles(sdata, at="grid", tile_um=50, tissue=masks)
    assert "A_image_tiles" in sdata.shapes
    assert "B_image_tiles" not in sdata.shapes
    assert stated(sdata["sw_tiles"]).tile_um == 50
    assert sdata["sw_tiles"].n_obs == len(sdata["A_image_tiles"])


def test_a_blank_slide_has_no_grid(build: Any) -> None:
    with pytest.raises(ValueError, match="No tile of 20 um fits into the tissue"):
        sw.pp.tiles(build.spatialdata(np.full((3, 300, 300), 243, np.uint8)), at="grid", tile_um=20)


def test_an_image_that_is_smaller_than_a_tile_is_named_with_its_size(build: Any) -> None:
    sdata = build.spatialdata(np.full((3, 300, 200), 100, np.uint8))
    with pytest.raises(
        ValueError, match=r"No tile of 400 um fits into an image: \S+ is [\d.]+ x [\d.]+ µm at [\d.]+ µm"
    ):
        sw.pp.tiles(sdata, at="grid", tile_um=400, tissue=None)


def test_values_of_another_range_are_named_where_no_tissue_is_seen(build: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 4000, (3, 1800, 1500)).astype(np.uint16)
    with pytest.raises(ValueError, match="uint16 and its values reach 3999 of 65535"):
        sw.pp.tiles(build.spatialdata(pixels), at="grid", tile_um=50)


def test_a_slide_without_images_has_no_grid(build: Any) -> None:
    import spatialdata as sd

    with pytest.raises(KeyError, match=r"There is no H&E image in images to lay a grid over"):
        sw.pp.tiles(sd.SpatialData(), at="grid", tile_um=20)
    adata = build.visium({}, {"L": NOWHERE})
    with pytest.raises(KeyError, match=r"There is no H&E image in \.uns\['spatial'\]"):
        sw.pp.tiles(adata, at="grid", tile_um=20, mpp=0.5, inplace=False)


@pytest.mark.slow
def test_a_grid_on_real_sections_covers_the_spots(build: Any, data_folder: Path) -> None:
    """Spots were put on tissue: A1 whose background is masked black, and C2 whose background is light."""
    from PIL import Image

    for name in ("A1", "C2"):
        folder = data_folder / "her2st" / name
        meta = json.loads((folder / "meta.json").read_text())
        picture = np.moveaxis(np.asarray(Image.open(folder / meta["image"]).convert("RGB")), -1, 0)
        xy = np.asarray(ad.read_h5ad(folder / "counts.h5ad").obsm["spatial"], float)
        adata = build.visium({"L": picture}, {"L": xy})
        spots = tissue_mask(adata, "L").fraction(xy, 100 / meta["um_per_px"])
        assert (spots > 0.5).mean() > 0.95
        grid = sw.pp.tiles(adata, at="grid", tile_um=154, tile_px=40, mpp=meta["um_per_px"], inplace=False)
        assert (read(grid).mean(axis=(1, 2, 3)) > 60).all(), "a tile of the grid is black"


def test_libraries_that_are_whole_numbers_may_be_named_by_these() -> None:
    entry = {"images": {"fullres": np.full((200, 300, 3), 200, np.uint8)}, "scalefactors": {}}
    adata = ad.AnnData(np.zeros((2, 1), np.float32))
    adata.uns["spatial"] = {1: entry, 2: entry}
    mask = np.zeros((200, 300), bool)
    mask[:, :100] = True
    masks: dict[Any, Any] = {1: mask, 2: np.ones_like(mask)}
    mpp: dict[Any, float] = {1: 0.5, 2: 1.0}
    grid = sw.pp.tiles(adata, at="grid", tile_um=50, mpp=mpp, tissue=masks, inplace=False)
    assert grid is not None
    # 100 px are 50 um of the first one, where a third is tissue
    assert grid.obs["library_id"].value_counts().to_dict() == {"1": 2, "2": 24}
