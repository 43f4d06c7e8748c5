from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from spatialwhisperer._access.images import Level, RasterImage
from spatialwhisperer.pp.stain import TissueMask, background_for_black, coarse_raster, stain_darkness, tissue_mask

if TYPE_CHECKING:
    from pathlib import Path


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


@pytest.mark.parametrize("margin", [100, 500])
def test_a_pure_white_margin_is_background(build: Any, margin: int) -> None:
    image, _ = build.disc(background=190)
    wide = np.pad(image, ((0, 0), (0, 0), (0, margin)), constant_values=255)
    alone, framed = (tissue_mask(build.spatialdata(pixels), "S_image").mask for pixels in (image, wide))
    inside = framed[:, : image.shape[2]]
    assert (inside & alone).sum() / (inside | alone).sum() > 0.98
    assert not framed[:, image.shape[2] :].any()


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


PENS = {"black": (10, 10, 10), "grey": (70, 72, 75), "blue": (20, 60, 200), "green": (30, 140, 60)}


@pytest.mark.parametrize("pen", PENS)
@pytest.mark.parametrize("glass", [(240, 240, 240), (240, 240, 205), (216, 222, 214)], ids=["white", "yellow", "dim"])
def test_marks_of_a_pen_are_no_tissue_and_hide_none(build: Any, pen: str, glass: tuple[int, int, int]) -> None:
    image, tissue = build.disc()
    # pale tissue, of which a threshold between the mark and the glass would leave nothing
    image = np.where(tissue, 0.4 * image + 0.6 * 240, image)
    image[:, 20:80, 60:600] = np.array(PENS[pen])[:, None, None]
    image *= np.array(glass)[:, None, None] / 240
    got = tissue_mask(build.spatialdata(image.clip(0, 255).astype(np.uint8)), "S_image").mask
    assert not got[:100].any()
    assert (got & tissue).sum() / (got | tissue).sum() > 0.98


def test_darkness_is_that_of_green_against_the_glass() -> None:
    colours = {
        "glass": (200, 220, 180),
        "eosin": (180, 120, 150),
        "haematoxylin": (90, 80, 130),
        "pigment": (80, 60, 40),
        "ink": (30, 33, 30),
        "blue": (20, 70, 170),
    }
    columns = np.repeat(np.array([*colours.values()], np.uint8).T[:, None], [94, 2, 1, 1, 1, 1], axis=2)
    got = dict(zip(colours, stain_darkness(columns)[0, [0, 94, 96, 97, 98, 99]].tolist(), strict=True))
    assert got == {"glass": 255, "eosin": 139, "haematoxylin": 93, "pigment": 70, "ink": 255, "blue": 255}


def test_tissue_of_a_grey_image_is_found(build: Any) -> None:
    image, tissue = build.disc()
    grey = np.repeat(image.mean(axis=0, keepdims=True), 3, axis=0).astype(np.uint8)
    got = tissue_mask(build.spatialdata(grey), "S_image").mask
    assert (got & tissue).sum() / (got | tissue).sum() > 0.98


def test_tissue_that_fills_the_image_is_not_divided(build: Any) -> None:
    rng = np.random.default_rng(0)
    image = np.empty((3, 400, 400))
    image[:, :, :200] = np.array([225, 180, 215])[:, None, None]
    image[:, :, 200:] = np.array([120, 70, 150])[:, None, None]
    image[:, 300:350, 100:300] = 244
    pixels = (image + rng.normal(0, 3, image.shape)).clip(0, 255).astype(np.uint8)
    got = tissue_mask(build.spatialdata(pixels), "S_image").mask
    assert got[:300].mean() > 0.99
    assert got[305:345, 105:295].mean() < 0.05


def test_a_tinted_background_beside_a_black_mask_is_no_tissue(build: Any) -> None:
    image, tissue = build.disc()
    image = np.where(tissue, image, np.array([222, 214, 222])[:, None, None])
    framed = np.pad(image.clip(0, 255).astype(np.uint8), ((0, 0), (120, 120), (160, 160)))
    got = tissue_mask(build.spatialdata(framed), "S_image").mask
    assert not got[:120].any()
    inside = got[120:-120, 160:-160]
    assert (inside & tissue).sum() / (inside | tissue).sum() > 0.98


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("colour", [(200, 150, 200), (242, 228, 240)])
def test_one_colour_is_divided_without_a_warning(build: Any, colour: tuple[int, int, int]) -> None:
    image = np.broadcast_to(np.array(colour, np.uint8)[:, None, None], (3, 300, 300)).copy()
    assert np.unique(tissue_mask(build.spatialdata(image), "S_image").mask).size == 1


def test_bare_glass_is_no_tissue(build: Any) -> None:
    down, across = np.mgrid[:400, :400] / 400
    # glass that is lit unevenly, and dust
    glass = np.stack([242 - 8 * down - 6 * across, 240 - 9 * down - 6 * across, 241 - 8 * down - 7 * across])
    pixels = (glass + np.random.default_rng(0).normal(0, 4, glass.shape)).clip(0, 255).astype(np.uint8)
    assert not tissue_mask(build.spatialdata(pixels), "S_image").mask.any()


def bulb(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A section of the mouse olfactory bulb, and the spots that lie under its tissue, in pixels."""
    import pandas as pd
    from PIL import Image

    file = folder / "mob_regions" / "images" / f"{name}.jpg"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    pixels = np.moveaxis(np.asarray(Image.open(file).convert("RGB")), -1, 0)
    spots = pd.read_csv(folder / "mob_regions" / "annotations" / f"{name}_01.tsv", sep="\t", index_col=0).columns
    at = np.array([[float(v) for v in spot.split("_")] for spot in spots])
    return pixels, (at - 1) / (32, 34) * (pixels.shape[2], pixels.shape[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "least"),
    [("01", 0.95), ("03", 0.9), ("06", 0.85), ("08", 0.9), ("09", 0.75), ("10", 0.9), ("11", 0.7)],
)
def test_tissue_of_real_sections_is_found_in_spite_of_dark_corners_and_pens(
    build: Any, data_folder: Path, name: str, least: float
) -> None:
    """Of 01, 03, 08 and 11 the corners are darker than the rest of the slide; 09 and 11 are pale."""
    pixels, xy = bulb(data_folder, name)
    marked = pixels.copy()
    height, width = pixels.shape[1:]
    marked[:, height - 160 : height - 80, width // 2 : width - 100] = 10
    marked[:, 40:120, 100 : width // 2] = np.array([20, 60, 200])[:, None, None]
    for image in (pixels, marked):
        mask = tissue_mask(build.spatialdata(image), "S_image")
        under = mask.fraction(xy, 100 / 2.76) > 0.5
        assert under.mean() > least
        assert mask.mask.mean() < 0.3


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
    assert np.array_equal(background_for_black(image), image)
    framed = image.copy()
    framed[:, [0, -1]] = framed[:, :, [0, -1]] = 0
    got = background_for_black(framed)
    # that of the rest
    assert (got == 200).all()
    # tissue is too dark to be a background
    framed[:, 1:-1, 1:-1] = 150
    got = background_for_black(framed)
    assert (got[:, 0] == 255).all()
    assert (got[:, 12, 12] == 150).all()


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
