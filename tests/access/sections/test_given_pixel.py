"""Which pixels an ``mpp`` of the caller is about: those of the slide where an object tells them, else those of its image."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer._access.records import places_of
from spatialwhisperer._access.sections.platforms import pixel_of, slide_system
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._messages import SpatialWhispererWarning

if TYPE_CHECKING:
    from pathlib import Path

GRID = np.stack(np.meshgrid(np.arange(10.0), np.arange(8.0)), -1).reshape(-1, 2) * 18 + 20
PIXELS = np.random.default_rng(0).integers(90, 220, (3, 100, 120), dtype=np.uint8)
SYSTEM = "pixel of the full resolution, coordinate system 'V1'"


def smaller(build: Any, *, region: str = "V1_spots", radius: float = 4.0, **systems: float) -> Any:
    """Circles in pixels of a slide of 240 x 200, and an image of half of it, as a reader of spatialdata-io registers them."""
    from spatialdata.models import ShapesModel

    names = [f"i{k}" for k in range(len(GRID))]
    maps = build.maps(V1=1.0, V1_downscaled_hires=0.5)
    circles = ShapesModel.parse(GRID, geometry=0, radius=radius, index=np.array(names), transformations=maps)
    return build.sdata(
        images={"V1_hires_image": build.image(PIXELS, build.maps(V1_downscaled_hires=1.0, V1=2.0, **systems))},
        shapes={region: circles},
        tables={"table": build.table({region: names})},
    )


def thumbnail(build: Any, *, attrs: dict[str, Any], scale: tuple[float, float] = (16.0, 16.1)) -> Any:
    """A store of wsidata: tiles in pixels of the slide, and a thumbnail of 100 x 60 pixels that fills it."""
    data = build.one(
        images={"wsi_thumbnail": build.image(build.RGB, build.maps(**{"global": np.diag([*scale, 1.0])}))},
        shapes={"spots": build.spots(build.XY * 16, build.maps(**{"global": 1.0}))},
    )
    data.attrs.update(attrs)
    return data


def scale_of(data: Any, **options: Any) -> Any:
    (section,) = Slide.open(data, **options).scaled()
    return section.scale


def test_a_smaller_copy_takes_microns_per_pixel_of_the_slide(build: Any) -> None:
    data = smaller(build)
    found = scale_of(data, mpp=0.5)
    assert (found.mpp, found.rule) == (1.0, f"mpp=… (0.5 µm per {SYSTEM})")
    assert scale_of(data, mpp={"V1_hires_image": 0.5}) == scale_of(data, mpp={"V1_spots": 0.5}) == found
    # a pitch is measured, and needs no unit
    assert scale_of(data, spot_pitch_um=9).mpp == pytest.approx(1.0)
    with pytest.raises(ValueError, match=f"Pass mpp=…, the microns per {SYSTEM}"):
        scale_of(data)


def test_statements_of_a_smaller_copy_are_compared_in_its_pixels(build: Any) -> None:
    bins = smaller(build, region="V1_square_016um", radius=16.0)  # 32 pixels of the slide are 16 µm
    assert scale_of(bins, mpp=0.5).mpp == scale_of(bins).mpp == pytest.approx(1.0)
    with pytest.raises(
        ValueError, match=rf"disagree: 2 µm per pixel of image 'V1_hires_image' .* by mpp=… \(1 µm per {SYSTEM}\), 1 by"
    ):
        scale_of(bins, mpp=1.0)
    both = smaller(build, microns=1.0, other_um=3.0)
    with pytest.raises(ValueError, match=f"Say which one is right with mpp=…, the microns per {SYSTEM}"):
        scale_of(both)
    assert scale_of(both, mpp=0.5).mpp == 1.0


def test_every_verb_means_the_same_pixels_and_stored_features_are_used_again(
    build: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    data = smaller(build)
    options: dict[str, Any] = {"mpp": 0.5, "tile_um": 20, "tile_px": 20, "encoder": "stain_texture"}
    with sw.settings.override(verbose=True):
        sw.pp.embed_images(data, **options)
    said = (
        "Scale of V1_spots: 1 µm per pixel of image 'V1_hires_image' (120 x 100 pixels) by mpp=… (0.5 µm per pixel of"
    )
    assert said in capsys.readouterr().err
    features = data["table"].obsm["X_stain_texture"].copy()
    record = json.loads(data["table"].uns["spatialwhisperer"]["X_stain_texture"]["parameters"])
    assert record["where"]["mpp"] == {"V1_spots": 1.0}
    (stored,) = places_of([record])
    assert stored.differs(Slide.open(data, mpp=0.5).where) == ""
    assert stored.differs(Slide.open(data, mpp=1.0).where) != ""
    # the same tiles as of the pixels of the image alone
    alone = build.sdata(
        images={"he": build.image(PIXELS, build.maps(V1=2.0))}, shapes=dict(data.shapes), tables=dict(data.tables)
    )
    sw.pp.embed_images(alone, **(options | {"mpp": 1.0}))
    np.testing.assert_array_equal(alone["table"].obsm["X_stain_texture"], features)
    sw.pp.tiles(data, tile_um=20, tile_px=20, mpp=0.5)
    assert scale_of(data) == scale_of(data, mpp=0.5)


def test_a_grid_over_a_smaller_copy_has_tiles_of_the_size_asked_for(build: Any) -> None:
    slide = smaller(build).subset(["V1_hires_image"])
    sw.pp.tiles(slide, tile_um=20, at="grid", mpp=0.5, tissue=None)
    (shapes,) = slide.shapes.values()
    assert np.allclose(shapes.area, 20.0**2)  # pixels of the image, 1 µm wide
    # the slide is 120 x 100 µm
    assert len(shapes) == 6 * 5


def test_the_check_of_the_spots_names_an_mpp_in_the_pixels_of_the_slide(build: Any) -> None:
    data = smaller(build)
    # spots 18 pixels of the slide apart, as the 200 or 141 µm of the first arrays, are said to be 40 µm apart
    with pytest.warns(SpatialWhispererWarning, match=r"are 40 µm apart.* mpp would be 11\.11 or 7\.857\."):
        sw.pp.tiles(data, tile_um=20, mpp=40 / 18)


def test_the_thumbnail_of_wsidata_takes_microns_per_pixel_of_the_slide(build: Any, tmp_path: Path) -> None:
    import spatialdata as sd

    data = thumbnail(build, attrs={"slide_properties": {"shape": [966, 1600], "mpp": 0.5}})
    assert slide_system(data, "wsi_thumbnail") == "global"
    data.write(tmp_path / "s.zarr")
    for one in (data, sd.read_zarr(tmp_path / "s.zarr")):
        assert scale_of(one, mpp=0.5).mpp == pytest.approx(0.5 * (16 * 16.1) ** 0.5)
        found = scale_of(one)
        assert (found.mpp, found.rule) == (pytest.approx(0.5 * (16 * 16.1) ** 0.5), "slide_properties of wsidata")
        with pytest.raises(
            ValueError, match=r"disagree: 4\.012 µm per pixel .* by mpp=.*, 8\.025 by slide_properties of wsidata"
        ):
            scale_of(one, mpp=0.25)
    path = tmp_path / "q.geojson"
    data["table"].obs["kind"] = list("aab")
    sw.io.write_qupath(data, path, key="kind")
    rings = [one["geometry"]["coordinates"][0] for one in json.loads(path.read_text())["features"]]
    centres = [(np.min(ring, axis=0) + np.max(ring, axis=0)) / 2 for ring in rings]
    np.testing.assert_allclose(centres, build.XY * 16, atol=0.1)


@pytest.mark.parametrize(
    "attrs",
    [
        {},
        {"slide_properties": {"shape": [600, 1600]}},
        {"slide_properties": {"shape": [966]}},
        {"slide_properties": {"shape": ["966", "1600"]}},
        {"slide_properties": {"mpp": 0.5}},
        {"slide_properties": 3},
    ],
)
def test_any_other_image_takes_microns_per_pixel_of_the_image(build: Any, attrs: dict[str, Any]) -> None:
    data = thumbnail(build, attrs=attrs)
    assert slide_system(data, "wsi_thumbnail") is None
    assert scale_of(data, mpp=8.0).mpp == 8.0
    own = "image 'wsi_thumbnail' (100 x 60 pixels)"
    assert (pixel_of(data, "wsi_thumbnail").words, pixel_of(data, "wsi_thumbnail").image) == (f"pixel of {own}", own)


@pytest.mark.parametrize("mpp", [None, 0, -1.0, float("nan"), "0.5", True])
def test_wsidata_may_know_no_scale(build: Any, mpp: Any) -> None:
    data = thumbnail(build, attrs={"slide_properties": {"shape": [966, 1600], "mpp": mpp}})
    with pytest.raises(ValueError, match="The microns per pixel of section 'spots' are not known"):
        scale_of(data)


def test_a_grid_on_the_thumbnail_of_wsidata_has_its_scale(build: Any) -> None:
    data = thumbnail(build, attrs={"slide_properties": {"shape": [960, 1600], "mpp": 0.5}}, scale=(16.0, 16.0))
    del data["table"]
    sw.pp.tiles(data, at="grid", tile_um=80, tissue=None)
    assert data["wsi_thumbnail_tiles"].area.to_numpy() == pytest.approx(10.0**2)


def test_an_anndata_takes_microns_per_full_resolution_pixel(build: Any, capsys: pytest.CaptureFixture[str]) -> None:
    adata = build.library(build.XY, tissue_hires_scalef=0.5)
    adata.uns["spatial"]["L"]["images"]["hires"] = adata.uns["spatial"]["L"]["images"].pop("fullres")
    with sw.settings.override(verbose=True):
        sw.pp.tiles(adata, tile_um=10, mpp=0.5)
    assert "Scale of" not in capsys.readouterr().err
    assert scale_of(adata).mpp == 0.5
    with pytest.raises(ValueError, match=r"Pass mpp=…, the microns per full-resolution pixel \(or a mapping"):
        scale_of(build.library(build.XY))
