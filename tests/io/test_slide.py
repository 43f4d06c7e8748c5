"""Slides on disk: any file ends in the correct pixels and scale, or in an error that says what to do."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import spatialwhisperer as sw
from tests.io.conftest import mpp_of, pixels_of, some_tissue

if TYPE_CHECKING:
    from pathlib import Path

PER_CM = 20_000  # 0.5 µm per pixel


# ------------------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff"])
def test_a_lossless_file_gives_its_pixels(suffix: str, tissue: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(tissue).save(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(pixels_of(sw.io.read_slide(tmp_path / f"a{suffix}")), tissue)


def test_a_jpeg_gives_what_pillow_decodes(tissue: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(tissue).save(tmp_path / "a.jpg")
    expected = np.asarray(Image.open(tmp_path / "a.jpg"))
    np.testing.assert_array_equal(pixels_of(sw.io.read_slide(str(tmp_path / "a.jpg"))), expected)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bigtiff": True, "byteorder": ">"},
        {"tile": (64, 64), "compression": "zlib"},
        {"tile": (64, 128), "compression": "lzw", "predictor": True},
        {"rowsperstrip": 7, "compression": "zstd"},
        {"planarconfig": "separate"},
    ],
    ids=str,
)
def test_a_tiff_gives_its_pixels_however_it_is_stored(
    options: dict[str, Any], tissue: np.ndarray, tmp_path: Path
) -> None:
    data = np.moveaxis(tissue, -1, 0) if "planarconfig" in options else tissue
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb", **options)
    np.testing.assert_array_equal(pixels_of(sw.io.read_slide(tmp_path / "a.tif")), tissue)


def test_channels_of_an_ome_tiff_may_be_planes(tissue: np.ndarray, tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.ome.tif", np.moveaxis(tissue, -1, 0), photometric="minisblack", metadata={"axes": "CYX"}
    )
    sdata = sw.io.read_slide(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(pixels_of(sdata), tissue)
    assert list(sdata.images) == ["a"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tif", "png"])
def test_coarser_levels_are_means_of_the_finest(kind: str, tmp_path: Path) -> None:
    tissue = some_tissue(2301, 4100)
    Image.fromarray(tissue).save(tmp_path / f"a.{kind}")
    tree: Any = sw.io.read_slide(tmp_path / f"a.{kind}")["a"]
    assert [tree[level]["image"].shape for level in tree] == [(3, 2301, 4100), (3, 1150, 2050), (3, 575, 1025)]
    coarse = np.moveaxis(tree["scale2"]["image"].to_numpy(), 0, -1).astype(float)
    mean = tissue[:2300].reshape(575, 4, 1025, 4, 3).mean(axis=(1, 3))
    assert np.abs(coarse - mean).max() <= 1


@pytest.mark.parametrize("within", [True, False], ids=["subifds", "pages"])
def test_levels_of_the_file_are_taken(within: bool, tissue: np.ndarray, tmp_path: Path) -> None:
    """However they are stored: within the page of the slide, or as reduced pages after it (libvips, Aperio)."""
    other = [np.full((150 // k, 200 // k, 3), 40 * k, np.uint8) for k in (1, 2)]
    options: dict[str, Any] = {"photometric": "rgb", "tile": (64, 64)}
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(tissue, subifds=2 if within else 0, **options)
        for level in other:
            file.write(level, subfiletype=1, **options)
    tree: Any = sw.io.read_slide(tmp_path / "a.tif")["a"]
    assert len(tree) == 3
    for name, level in zip(tree, [tissue, *other], strict=True):
        np.testing.assert_array_equal(np.moveaxis(tree[name]["image"].to_numpy(), 0, -1), level)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_as_its_exif_asks_for(orientation: int, tissue: np.ndarray, tmp_path: Path) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(tissue).save(tmp_path / "a.png", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    np.testing.assert_array_equal(pixels_of(sw.io.read_slide(tmp_path / "a.png")), expected)
    tifffile.imwrite(tmp_path / "a.tif", tissue, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    np.testing.assert_array_equal(pixels_of(sw.io.read_slide(tmp_path / "a.tif")), expected)


def test_what_is_transparent_is_white(tissue: np.ndarray, tmp_path: Path) -> None:
    alpha = np.full(tissue.shape[:2], 255, np.uint8)
    alpha[:100] = 0
    rgba = np.dstack([tissue, alpha])
    expected = tissue.copy()
    expected[:100] = 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
    for name in ("a.png", "a.tif"):
        np.testing.assert_array_equal(pixels_of(sw.io.read_slide(tmp_path / name)), expected)


def test_a_palette_is_resolved(tissue: np.ndarray, tmp_path: Path) -> None:
    indexed = Image.fromarray(tissue).quantize(64)
    expected = np.asarray(indexed.convert("RGB"))
    for name in ("a.png", "a.gif", "a.tif"):
        indexed.save(tmp_path / name)
        np.testing.assert_array_equal(pixels_of(sw.io.read_slide(tmp_path / name)), expected)


def test_cmyk_becomes_rgb(tissue: np.ndarray, tmp_path: Path) -> None:
    inks = np.asarray(Image.fromarray(tissue).convert("CMYK"))
    tifffile.imwrite(tmp_path / "a.tif", inks, photometric="separated")
    Image.fromarray(tissue).convert("CMYK").save(tmp_path / "a.jpg", quality=98)
    np.testing.assert_allclose(pixels_of(sw.io.read_slide(tmp_path / "a.tif")), tissue, atol=1)
    assert np.abs(pixels_of(sw.io.read_slide(tmp_path / "a.jpg")).astype(int) - tissue).mean() < 8


def test_sixteen_bits_are_kept(tissue: np.ndarray, tmp_path: Path) -> None:
    deep = tissue.astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb")
    read = pixels_of(sw.io.read_slide(tmp_path / "a.tif"))
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, deep)


# ------------------------------------------------------------------------------------------------- scale


@pytest.mark.parametrize(
    ("size", "unit", "mpp"),
    [(0.25, "µm", 0.25), (0.25, None, 0.25), (250, "nm", 0.25), (0.00025, "mm", 0.25), (0.5, "pixel", None)],
)
def test_an_ome_tiff_states_its_scale_in_any_unit(
    size: float, unit: str | None, mpp: float | None, tissue: np.ndarray, tmp_path: Path
) -> None:
    metadata: dict[str, Any] = {"axes": "YXS", "PhysicalSizeX": size, "PhysicalSizeY": size}
    if unit is not None:
        metadata |= {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    tifffile.imwrite(tmp_path / "a.ome.tif", tissue, photometric="rgb", metadata=metadata)
    assert mpp_of(sw.io.read_slide(tmp_path / "a.ome.tif")) == (None if mpp is None else pytest.approx(mpp))


@pytest.mark.parametrize(
    ("resolution", "unit", "mpp"),
    [
        (20_000, 3, 0.5),
        (50_800, 2, 0.5),
        (72, 2, None),
        (96, 2, None),
        (300, 2, None),
        (20_000, 1, None),
        (1e9, 3, None),
    ],
)
def test_a_resolution_is_a_scale_where_a_microscope_can_have_it(
    resolution: float, unit: int, mpp: float | None, tissue: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, tissue, photometric="rgb", resolution=(resolution, resolution), resolutionunit=unit)
    assert mpp_of(sw.io.read_slide(path)) == (None if mpp is None else pytest.approx(mpp))


def test_imagej_names_its_unit(tissue: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, tissue, imagej=True, resolution=(4, 4), metadata={"unit": "um", "axes": "YXS"})
    assert mpp_of(sw.io.read_slide(path)) == pytest.approx(0.25)


def test_a_png_states_its_scale_unless_it_is_that_of_a_screen(tissue: np.ndarray, tmp_path: Path) -> None:
    for dpi, mpp in ((50_800, 0.5), (96, None)):
        Image.fromarray(tissue).save(tmp_path / "a.png", dpi=(dpi, dpi))
        assert mpp_of(sw.io.read_slide(tmp_path / "a.png")) == (None if mpp is None else pytest.approx(mpp, rel=1e-3))


def test_the_callers_scale_must_agree_with_the_file(slide_file: Path) -> None:
    assert mpp_of(sw.io.read_slide(slide_file, mpp=0.51)) == pytest.approx(0.51)
    with pytest.raises(ValueError, match=r"mpp=0.25 and slide.tif disagree: the file states 0.5 µm per pixel"):
        sw.io.read_slide(slide_file, mpp=0.25)


@pytest.mark.parametrize("mpp", [0, -1, float("nan"), "0.5", True])
def test_a_scale_that_is_none_is_refused(mpp: Any, slide_file: Path) -> None:
    with pytest.raises((TypeError, ValueError), match="mpp must be a (positive )?number"):
        sw.io.read_slide(slide_file, mpp=mpp)


def test_a_magnification_is_no_scale(slide_file: Path) -> None:
    with pytest.raises(ValueError, match="magnification"):
        sw.io.read_slide(slide_file, mpp=20)


def test_pixels_that_are_not_square_keep_both_sizes(tissue: np.ndarray, tmp_path: Path) -> None:
    from spatialwhisperer._access.sections.regions import image_scales

    tifffile.imwrite(tmp_path / "a.tif", tissue, photometric="rgb", resolution=(20_000, 40_000), resolutionunit=3)
    sdata = sw.io.read_slide(tmp_path / "a.tif")
    assert mpp_of(sdata) == pytest.approx(0.5 * 0.5**0.5)
    (scale,) = image_scales(sdata, "a")
    assert scale.stretch == pytest.approx(2.0)


# ------------------------------------------------------------------------------------------------- what is no slide


def refused(path: Any, message: str, **options: Any) -> None:
    with pytest.raises(ValueError, match=message):
        sw.io.read_slide(path, **options)


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no_slide.tif"):
        sw.io.read_slide(tmp_path / "no_slide.tif")
    with pytest.raises(TypeError, match="path must be a path, not array"):
        sw.io.read_slide(np.zeros((20, 20, 3)))  # type: ignore[arg-type]


def test_a_folder_is_no_slide(slide_file: Path, tmp_path: Path) -> None:
    refused(tmp_path, r"is a folder. Name one image file in it \(found: slide.tif\)")
    sw.io.read_slide(slide_file).write(tmp_path / "a.zarr")
    refused(tmp_path / "a.zarr", r"spatialdata.read_zarr")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_files_that_are_not_images_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    refused(tmp_path / name, "is empty")
    (tmp_path / name).write_bytes(b"what is this?" * 20)
    refused(tmp_path / name, "could not be read as an image")
    (tmp_path / name).write_bytes(b"II*\0" + struct.pack("<I", 10_000))
    refused(tmp_path / name, "could not be read as a TIFF|no image")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "tiles.tif", "strips.tif"])
@pytest.mark.parametrize("part", [0.3, 0.95])
def test_a_truncated_file_is_refused_when_it_is_opened(name: str, part: float, tmp_path: Path) -> None:
    tissue, path = some_tissue(800, 800), tmp_path / name
    if name.endswith("tif"):
        options: dict[str, Any] = {"tile": (128, 128)} if name == "tiles.tif" else {"rowsperstrip": 16}
        tifffile.imwrite(path, tissue, photometric="rgb", compression="zlib", **options)
    else:
        Image.fromarray(tissue).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    refused(path, "is truncated")


def test_damaged_tiles_are_named_when_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, some_tissue(900, 1200), photometric="rgb", compression="zlib", tile=(256, 256))
    with tifffile.TiffFile(path) as file:
        start, n = file.pages[0].dataoffsets[5], file.pages[0].databytecounts[5]
    whole = bytearray(path.read_bytes())
    whole[start : start + n] = b"\7" * n
    path.write_bytes(whole)
    sdata = sw.io.read_slide(path, mpp=0.5)
    with pytest.raises(ValueError, match="could not be read"):
        sw.tl.zero_shot_annotate(sdata)
    assert not sdata.tables


def test_grey_images_are_refused(tissue: np.ndarray, tmp_path: Path) -> None:
    grey = tissue.mean(axis=2).astype(np.uint8)
    for name in ("a.png", "a.jpg"):
        Image.fromarray(grey).save(tmp_path / name)
        refused(tmp_path / name, "is a grey image")
    for values in (grey, grey.astype(np.uint16)):
        tifffile.imwrite(tmp_path / "a.tif", values)
        refused(tmp_path / "a.tif", r"has 1 channel\(s\)")


def test_fluorescence_is_no_slide(tissue: np.ndarray, tmp_path: Path) -> None:
    for n in (2, 4, 5):
        channels = np.repeat(tissue[None, :, :, 0], n, axis=0)
        tifffile.imwrite(tmp_path / "a.ome.tif", channels, photometric="minisblack", metadata={"axes": "CYX"})
        refused(tmp_path / "a.ome.tif", "channel")


def test_one_pixel_is_no_slide(tmp_path: Path) -> None:
    for name in ("a.png", "a.tif"):
        Image.new("RGB", (1, 1)).save(tmp_path / name)
        refused(tmp_path / name, "1 x 1 pixels, too small")


def test_types_that_are_no_intensities_are_refused(tissue: np.ndarray, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", tissue.astype(np.int32), photometric="rgb")
    refused(tmp_path / "a.tif", "int32 values")


def test_of_several_pages_one_must_be_chosen(tissue: np.ndarray, tmp_path: Path) -> None:
    other = tissue[::-1].copy()
    first, second = Image.fromarray(tissue), Image.fromarray(other)
    first.save(tmp_path / "a.png", save_all=True, append_images=[second])
    refused(tmp_path / "a.png", r"stack of 2 frames, not one slide. Choose one with page=")
    np.testing.assert_array_equal(pixels_of(sw.io.read_slide(tmp_path / "a.png", page=1)), other)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(tissue, photometric="rgb")
        file.write(other[:280], photometric="rgb")
        file.write(tissue[:40, :40], photometric="rgb")
    refused(tmp_path / "a.tif", "2 images of similar size .* Choose one with page=")
    np.testing.assert_array_equal(pixels_of(sw.io.read_slide(tmp_path / "a.tif", page=1)), other[:280])
    refused(tmp_path / "a.tif", "page=7 does not exist", page=7)
    tifffile.imwrite(tmp_path / "z.tif", np.stack([tissue, other]), photometric="rgb")
    refused(tmp_path / "z.tif", "stack of images")


def test_a_thumbnail_beside_the_slide_is_left_out(tissue: np.ndarray, tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(tissue[::4, ::4], photometric="rgb")
        file.write(tissue, photometric="rgb")
    np.testing.assert_array_equal(pixels_of(sw.io.read_slide(tmp_path / "a.tif")), tissue)


@pytest.mark.parametrize("name", ["a b.tif", "ä/ö", "..", "", "__a"])
def test_names_are_those_that_spatialdata_stores(name: str, slide_file: Path) -> None:
    refused(slide_file, "name must be made of letters", name=name)


def test_the_name_of_the_file_names_the_image(slide_file: Path) -> None:
    odd = slide_file.rename(slide_file.with_name("Fall 12 (HE).ome.tif"))
    assert list(sw.io.read_slide(odd).images) == ["Fall_12__HE_"]
    assert list(sw.io.read_slide(odd, name="HE").images) == ["HE"]


# ------------------------------------------------------------------------------------------------- scanners


def test_a_missing_openslide_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "openslide", None)
    (tmp_path / "a.svs").write_bytes(b"II*\0")
    with pytest.raises(ImportError, match=r"pip install 'spatialwhisperer\[wsi\]'"):
        sw.io.read_slide(tmp_path / "a.svs")


def test_a_slide_of_a_scanner_is_read_through_openslide(tmp_path: Path) -> None:
    openslide = pytest.importorskip("openslide")
    path, big = tmp_path / "a.svs", some_tissue(900, 1200)
    about = "Aperio Image Library v10.0.51\r\n1200x900 [0,0 1200x900] (256x256)|AppMag = 20|MPP = 0.4990"
    with tifffile.TiffWriter(path) as file:
        options: dict[str, Any] = {"photometric": "rgb", "tile": (256, 256), "metadata": None, "description": about}
        file.write(big, **options)
        file.write(big[::4, ::4], **options)
    sdata = sw.io.read_slide(path)
    np.testing.assert_array_equal(pixels_of(sdata), big)
    assert mpp_of(sdata) == pytest.approx(0.499)
    tree: Any = sdata["a"]
    with openslide.OpenSlide(str(path)) as slide:
        assert [tree[level]["image"].shape[:0:-1] for level in tree] == list(slide.level_dimensions)
    path.write_bytes(b"II*\0" + b"\0" * 100)
    refused(path, "could not be read by openslide")
