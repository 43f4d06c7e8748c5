from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pytest

from spatialwhisperer._access.images import (
    Level,
    find_image,
    missing_factor,
    raster_images,
    read_pixels,
    read_thinned,
    rgb_names,
)
from spatialwhisperer._access.slide import Slide
from tests.pyramids import computed


def test_pixels_outside_are_filled_and_types_become_uint8(build: Any) -> None:
    rgb = build.RGB
    level = Level(rgb, 1.0, 1.0)
    got = read_pixels(level, -2, -3, 5, 4)
    assert got.shape == (3, 7, 7)
    assert (got[:, :3] == 255).all()
    assert np.array_equal(got[:, 3:, 2:], rgb[:, :4, :5])
    assert (read_pixels(level, 200, 200, 210, 210, fill=7) == 7).all()
    for other in (rgb / np.float32(255), rgb.astype(np.uint16) * 257):
        assert np.array_equal(read_pixels(Level(other, 1, 1), 0, 0, 100, 60), rgb)
    with pytest.raises(ValueError, match=r"float image must hold values in \[0, 1\]"):
        read_pixels(Level(rgb.astype(np.float32), 1, 1), 0, 0, 10, 10)
    with pytest.raises(ValueError, match="int32"):
        read_pixels(Level(rgb.astype(np.int32), 1, 1), 0, 0, 10, 10)


def test_a_thinned_box_is_every_nth_pixel_however_it_is_read(monkeypatch: pytest.MonkeyPatch, build: Any) -> None:
    level = Level(build.RGB, 1.0, 1.0)
    whole = build.RGB[:, 5:59, 7:93]
    for strip in (1, 200, 10**6):
        monkeypatch.setattr("spatialwhisperer._access.images._STRIP_PX", strip)
        for step in (1, 3, 100):
            assert np.array_equal(read_thinned(level, 7, 5, 93, 59, step), whole[:, ::step, ::step])


def test_pixels_are_handed_out_read_only(build: Any) -> None:
    """A box inside the image may be a view of the user's own array."""
    got = read_pixels(Level(build.RGB, 1.0, 1.0), 2, 2, 10, 10)
    with pytest.raises(ValueError, match="read-only"):
        got[:] = 0


def test_a_distributed_client_does_not_get_the_blocks(build: Any) -> None:
    import dask
    import dask.array as da

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the default scheduler was used")

    level = Level(da.from_array(build.RGB, chunks=(3, 20, 20)), 1.0, 1.0)
    with dask.config.set(scheduler=refuse):
        assert np.array_equal(read_pixels(level, 0, 0, 100, 60), build.RGB)


def test_pyramids_and_libraries_have_levels(build: Any) -> None:
    pyramid = build.image(build.RGB, build.maps(S=1.0), scale_factors=[2, 2])
    image = find_image(build.one(images={"he": computed(pyramid)}), "he")
    assert image.size_px == (100, 60)
    assert [level.scale_x for level in image.levels] == [1, 2, 4]
    # what dask computes from the finest level each time is no level to read
    assert [level.scale_x for level in find_image(build.one(images={"he": pyramid}), "he").levels] == [1]
    adata = ad.AnnData(np.zeros((1, 1), np.float32))
    entry = {"hires": np.zeros((60, 100, 3), np.float32), "lowres": np.zeros((6, 10, 3), np.float32)}
    scales = {"tissue_hires_scalef": 0.1, "tissue_lowres_scalef": 0.01}
    adata.uns["spatial"] = {"L": {"images": entry, "scalefactors": scales}}
    image = find_image(adata, "L")
    assert image.size_px == pytest.approx((1000, 600))
    assert [level.scale_x for level in image.levels] == pytest.approx([10, 100])


def test_stacks_beside_the_he_image_are_no_obstacle(build: Any) -> None:
    stack = np.zeros((7, 60, 100), np.uint8)
    maps = build.maps(S=1.0)
    data = build.one(images={"if": build.image(stack, maps), "he": build.image(build.RGB, maps)})
    assert rgb_names(data) == ["he"]
    assert list(raster_images(data)) == ["he"]
    (section,) = Slide.open(data, mpp=1).scaled()
    assert section.image is not None
    assert section.image.name == "he"
    with pytest.raises(ValueError, match="has 7 channels"):
        Slide.open(data, mpp=1, image_key="if").scaled()


@pytest.mark.parametrize(
    ("channels", "is_rgb"),
    [
        (["r", "g", "b", "a"], True),
        ([0, 1, 2, 3], True),
        (["DAPI", "ATP1A1", "18S", "alphaSMA"], False),
        (["DAPI", "CD45", "CK"], False),
        (["c0", "c1", "c2"], True),
    ],
)
def test_images_are_he_unless_their_channels_are_named_after_stains(build: Any, channels: Any, is_rgb: bool) -> None:
    pixels = np.zeros((len(channels), 20, 30), np.uint8)
    data = build.one()
    data.images["other"] = build.image(pixels, build.maps(S=1.0), c_coords=channels)
    assert rgb_names(data) == (["he", "other"] if is_rgb else ["he"])


def test_stains_are_read_only_where_three_of_them_are_named(build: Any) -> None:
    maps = build.maps(S=1.0)
    data = build.one(images={"if": build.image(build.RGB, maps, c_coords=["DAPI", "CD45", "CK"])})
    with pytest.raises(KeyError, match=r"no H&E image \(image elements found: none; not RGB by their channels: if\)"):
        Slide.open(data, mpp=1).scaled()
    (section,) = Slide.open(data, mpp=1, image_key="if").scaled()
    assert section.image is not None
    assert np.array_equal(read_pixels(section.image.levels[0], 0, 0, 100, 60), build.RGB)
    four = build.image(np.zeros((4, 20, 30), np.uint8), maps, c_coords=["DAPI", "ATP1A1", "18S", "alphaSMA"])
    with pytest.raises(ValueError, match="has the channels DAPI, ATP1A1, 18S, alphaSMA"):
        find_image(build.one(images={"if": four}), "if")


def test_colours_are_found_by_the_names_of_the_channels(build: Any) -> None:
    rgb, opaque = build.RGB, np.full_like(build.RGB[:1], 255)
    cases = {"bgr": rgb[::-1], "argb": np.concatenate([opaque, rgb]), "RGBA": np.concatenate([rgb, opaque])}
    for names, pixels in cases.items():
        for options in ({}, {"scale_factors": [2]}):
            element = computed(build.image(pixels, build.maps(S=1.0), c_coords=list(names), **options))
            image = find_image(build.one(images={"he": element}), "he")
            assert np.array_equal(read_pixels(image.levels[0], 0, 0, 100, 60), rgb), names


def test_what_is_transparent_is_white(build: Any) -> None:
    alpha = np.full_like(build.RGB[:1], 255)
    alpha[:, :, :40] = 0
    rgba = np.concatenate([build.RGB, alpha])
    expected = np.where(alpha == 0, np.uint8(255), build.RGB)
    flat = find_image(build.one(images={"he": build.image(rgba, build.maps(S=1.0))}), "he")
    library = find_image(build.library(build.XY, pixels=rgba), "L")
    fractions = build.library(build.XY, pixels=rgba / np.float32(255))
    for image in (flat, library, find_image(fractions, "L")):
        assert np.array_equal(read_pixels(image.levels[0], 0, 0, 100, 60), expected)
        assert np.array_equal(read_pixels(image.levels[0], 30, -5, 50, 5)[:, 5:], expected[:, :5, 30:50])


def test_a_stack_along_z_is_no_he_image(build: Any) -> None:
    from spatialdata.models import Image3DModel

    data = build.one()
    stack = np.zeros((3, 4, 60, 100), np.uint8)
    data.images["stack"] = Image3DModel.parse(stack, dims=("c", "z", "y", "x"), transformations=build.maps(S=1.0))
    assert rgb_names(data) == ["he"]
    with pytest.raises(ValueError, match="Image 'stack' is a stack along z"):
        find_image(data, "stack")


def test_an_image_that_does_not_exist_is_named_with_those_that_do(build: Any) -> None:
    with pytest.raises(KeyError, match=r"no image 'x' \(found: he\)"):
        find_image(build.one(), "x")
    adata = build.library(build.XY)
    with pytest.raises(KeyError, match=r"no image 'x' \(found: L\)"):
        find_image(adata, "x")
    adata.uns["spatial"]["L"]["images"]["fullres"] = np.zeros((4, 4), np.uint8)
    with pytest.raises(ValueError, match=r"Image 'fullres' of library 'L' has shape \(4, 4\)"):
        find_image(adata, "L")


def test_images_without_a_scale_factor_are_left_out() -> None:
    """Nobody knows how the pixels of such an image relate to the positions."""
    adata = ad.AnnData(np.zeros((1, 1), np.float32))
    adata.uns["spatial"] = {"L": {"images": {"hires": np.zeros((6, 10, 3), np.uint8)}, "scalefactors": {}}}
    assert rgb_names(adata) == []
    with pytest.raises(
        KeyError, match=r"'L' holds the image 'hires' without a scale factor.*\['tissue_hires_scalef'\]"
    ):
        find_image(adata, "L")


def test_only_libraries_none_of_whose_images_has_a_factor_miss_one(build: Any) -> None:
    adata = build.library(build.XY)
    entry = adata.uns["spatial"]["L"]
    entry["images"]["lowres"] = np.zeros((6, 10, 3), np.uint8)
    assert missing_factor(adata) == ""
    entry["images"] = {"hires": np.zeros((6, 10, 4)), "lowres": np.zeros((6, 10, 3)), "mask": np.zeros((6, 10))}
    assert "the images 'hires', 'lowres' without" in missing_factor(adata, "L") == missing_factor(adata)
    entry["images"] = {"mask": np.zeros((6, 10))}
    for none in (adata, build.one(), ad.AnnData(np.zeros((1, 1)))):
        assert missing_factor(none) == missing_factor(none, "L") == ""


def test_the_section_whose_image_misses_its_factor_is_named(build: Any) -> None:
    adata = build.library(build.XY)
    adata.uns["spatial"]["M"] = {"images": {"hires": np.zeros((6, 10, 3), np.uint8)}}
    adata.obs["library_id"] = ["L", "L", "M"]
    with pytest.raises(
        KeyError, match=r"Section 'M' has no image that can be read\. Library 'M' holds the image 'hires'"
    ):
        Slide.open(adata, mpp=1).scaled()
    adata.obs["library_id"] = "L"
    assert [section.name for section in Slide.open(adata, mpp=1).scaled()] == ["L"]


@pytest.mark.parametrize("other", [np.zeros((6, 10)), np.zeros((6, 10, 1)), np.zeros((0, 10, 3)), np.zeros((6, 10, 5))])
def test_a_smaller_image_that_is_no_rgb_does_not_stop_the_call(build: Any, other: np.ndarray) -> None:
    adata = build.library(build.XY, tissue_lowres_scalef=0.1)
    alone = find_image(adata, "L")
    adata.uns["spatial"]["L"]["images"] = {"lowres": other} | adata.uns["spatial"]["L"]["images"]
    image = find_image(adata, "L")
    assert [level.scale_x for level in image.levels] == [level.scale_x for level in alone.levels] == [1]
    # the image that is read must be one
    adata.uns["spatial"]["L"]["images"]["fullres"] = np.zeros((60, 100))
    with pytest.raises(ValueError, match=r"Image 'fullres' of library 'L' has shape \(60, 100\)"):
        find_image(adata, "L")


@pytest.mark.parametrize(("factor", "fits"), [(0.5, True), (0.49, True), (0.25, False), (5.0, False)])
def test_images_of_a_library_are_one_picture(build: Any, factor: float, fits: bool) -> None:
    adata = build.library(build.XY, tissue_hires_scalef=factor)
    adata.uns["spatial"]["L"]["images"]["hires"] = np.zeros((30, 50, 3), np.uint8)
    if fits:
        assert [level.scale_x for level in find_image(adata, "L").levels] == [1, 1 / factor]
        return
    with pytest.raises(ValueError, match=r"library 'L' are one picture.*'fullres' 100 × 60; 'hires' .*Correct .uns"):
        find_image(adata, "L")


def test_a_library_that_is_not_read_does_not_stop_the_call(build: Any) -> None:
    adata = build.library(build.XY)
    adata.uns["spatial"]["other"] = {"images": {"fullres": np.zeros((6, 10))}}
    adata.obs["library_id"] = "L"
    (section,) = Slide.open(adata, mpp=1).scaled()
    assert section.image is not None
    adata.obs["library_id"] = "other"
    with pytest.raises(ValueError, match=r"Image 'fullres' of library 'other' has shape \(6, 10\)"):
        Slide.open(adata, mpp=1).scaled()


@pytest.mark.parametrize("form", [np.array, lambda value: np.array([value]), lambda value: np.array([[value]])])
def test_a_scale_factor_may_be_an_array_of_one_number(build: Any, form: Any) -> None:
    adata = build.library(build.XY, tissue_hires_scalef=form(0.5), microns_per_pixel=form(0.25))
    images = adata.uns["spatial"]["L"]["images"]
    images["hires"] = images.pop("fullres")
    (section,) = Slide.open(adata).scaled()
    assert section.image is not None
    assert (section.image.size_px, section.mpp) == ((200, 120), 0.25)
    for wrong in (np.array([0.5, 0.5]), np.array([np.nan]), np.array(["0.5"]), np.array([])):
        adata.uns["spatial"]["L"]["scalefactors"]["tissue_hires_scalef"] = wrong
        with pytest.raises(ValueError, match="scale factor of image 'hires' of library 'L' must be a positive number"):
            find_image(adata, "L")
