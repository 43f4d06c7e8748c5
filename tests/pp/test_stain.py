from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from spatialwhisperer._access.images import Level, RasterImage
from spatialwhisperer.pp.stain import TissueMask, coarse_raster, tissue_mask, white_for_black


def raster(image: np.ndarray) -> RasterImage:
    return RasterImage("i", (Level(image, 1.0, 1.0),), (image.shape[2], image.shape[1]))


@pytest.mark.parametrize("background", [240, 0])
def test_tissue_is_found_on_a_light_background_and_on_a_black_mask(build: Any, background: int) -> None:
    image, tissue = build.disc(background=background)
    sdata = build.spatialdata(image)
    adata = build.visium({"L": image}, {"L": np.empty((0, 2))})
    before = build.state(sdata)
    for data, key in ((sdata, "S_image"), (adata, "L")):
        got = tissue_mask(data, key)
        assert got.mask.shape == tissue.shape
        assert (got.mask & tissue).sum() / (got.mask | tissue).sum() > 0.98
    assert build.state(sdata) == before
    with pytest.raises(KeyError, match="no image 'nope'"):
        tissue_mask(sdata, "nope")


@pytest.mark.parametrize("shade", [30, 150])
def test_dark_corners_do_not_turn_tissue_and_background_over(build: Any, shade: int) -> None:
    image, tissue = build.disc(background=220)
    image[:, :25, :25] = image[:, :25, -25:] = shade
    image[:, -25:, :25] = image[:, -25:, -25:] = shade
    got = tissue_mask(build.spatialdata(image), "S_image").mask
    assert (got & tissue).sum() / (got | tissue).sum() > 0.98


@pytest.mark.parametrize("shade", [90, 205])
def test_a_grey_margin_does_not_turn_tissue_and_background_over(build: Any, shade: int) -> None:
    image, tissue = build.disc()
    pasted = np.pad(image, ((0, 0), (30, 30), (30, 30)), constant_values=shade)
    got = tissue_mask(build.spatialdata(pasted), "S_image").mask[30:-30, 30:-30]
    assert (got & tissue).sum() / (got | tissue).sum() > 0.98


def test_what_squidpy_says_to_its_makers_does_not_reach_the_user(build: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        assert tissue_mask(build.spatialdata(build.disc()[0]), "S_image").mask.any()


def test_a_blank_slide_has_no_tissue(build: Any) -> None:
    image = np.full((3, 300, 300), 243, np.uint8)
    assert not tissue_mask(build.spatialdata(image), "S_image").mask.any()


def test_coarse_raster_averages_the_whole_image() -> None:
    image = np.random.default_rng(0).integers(0, 255, (3, 3001, 2000), dtype=np.uint8)
    got = coarse_raster(raster(image))
    assert got.shape == (3, 1001, 667)
    assert got[0, 500, 100] == int(image[0, 1500:1503, 300:303].mean())
    assert got[2, -1, -1] == int(image[2, 3000:, 1998:].mean())


def test_black_is_background_only_where_it_fills_the_border() -> None:
    image = np.full((3, 20, 30), 200, np.uint8)
    image[:, 5:9, 5:9] = 3
    assert np.array_equal(white_for_black(image), image)
    framed = image.copy()
    framed[:, [0, -1]] = framed[:, :, [0, -1]] = 0
    got = white_for_black(framed)
    assert (got[:, 0] == 255).all()
    assert (got[:, 5:9, 5:9] == 255).all()
    assert (got[:, 12, 12] == 200).all()


def test_fraction_of_tissue_under_squares_at_another_resolution() -> None:
    mask = np.zeros((60, 80), bool)
    mask[:, 40:] = True
    over = TissueMask.over(raster(np.zeros((3, 600, 800), np.uint8)), mask)
    centres = np.array([[100.0, 100], [400, 300], [700, 300], [799, 300]])
    assert over.fraction(centres, 100).tolist() == [0, 0.5, 1, 0.5]


def test_a_mask_covers_the_whole_image() -> None:
    image, mask = raster(np.zeros((3, 600, 800), np.uint8)), np.zeros((60, 80), bool)
    with pytest.raises(ValueError, match="proportions"):
        TissueMask.over(image, mask.T)
    with pytest.raises(ValueError, match="shape"):
        TissueMask.over(image, mask[0])


@pytest.mark.parametrize("kind", ["bool", "uint8", "int64", "float32"])
def test_a_mask_may_hold_labels_of_which_0_is_the_background(kind: str) -> None:
    labels = np.zeros((60, 80), int)
    labels[:20], labels[20:40] = 3, 255
    got = TissueMask.over(raster(np.zeros((3, 600, 800), np.uint8)), labels.astype(kind))
    assert np.array_equal(got.mask, labels > 0)


@pytest.mark.parametrize(
    ("tissue", "background", "problem"),
    [
        (0.9, 0.1, "non-integer values such as"),
        (1.0, np.nan, "NaN or infinite values"),
        (1, -1, "negative values such as -1"),
    ],
)
def test_a_mask_that_must_be_thresholded_is_refused(tissue: float, background: float, problem: str) -> None:
    image, inside = raster(np.zeros((3, 600, 800), np.uint8)), np.arange(80) < 40
    mask = np.where(np.tile(inside, (60, 1)), tissue, background)
    with pytest.raises(ValueError, match=f"whole numbers of which 0 is the background; .*{problem}.*mask > 0.5"):
        TissueMask.over(image, mask)


def test_a_mask_of_words_is_refused() -> None:
    image = raster(np.zeros((3, 600, 800), np.uint8))
    with pytest.raises(TypeError, match="A tissue mask must be an array of numbers"):
        TissueMask.over(image, np.full((60, 80), "tissue"))
