"""Copies of one picture at several resolutions are told from images that differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from spatialwhisperer._access.images import Level, RasterImage, find_image, read_pixels
from spatialwhisperer._access.sections.copies import finest_copy

if TYPE_CHECKING:
    from pathlib import Path


def picture(seed: int = 0, height: int = 480, width: int = 640) -> np.ndarray:
    """Tissue-like colours that vary over tens of pixels, uint8, shape (3, y, x)."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.standard_normal((3, height, width)), (0, 20, 20))
    noise = 10 * rng.standard_normal((3, height, width))
    return (170 + 40 * smooth / smooth.std() + noise).clip(0, 255).astype(np.uint8)


def raster(*levels: np.ndarray) -> RasterImage:
    _, height, width = levels[0].shape
    each = tuple(Level(pixels, width / pixels.shape[2], height / pixels.shape[1]) for pixels in levels)
    return RasterImage("image", each, (width, height))


def smaller(pixels: np.ndarray, factor: float, order: int = 1) -> np.ndarray:
    return zoom(pixels, (1, 1 / factor, 1 / factor), order=order)


def scaled(factor: float, x: float = 0.0) -> np.ndarray:
    """Map from full-resolution pixels to those of an image that is so many times smaller."""
    return np.array([[1 / factor, 0, x], [0, 1 / factor, 0], [0, 0, 1]])


FULL = picture()


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("first", ["full", "lowres"])
def test_the_finest_of_three_copies_is_found(order: int, first: str) -> None:
    images = {
        "lowres": raster(smaller(FULL, 7.3, order)),
        "full": raster(FULL, FULL[:, ::2, ::2], FULL[:, ::4, ::4]),
        "hires": raster(smaller(FULL, 2, order)),
    }
    placed = {"lowres": scaled(7.3), "full": np.eye(3), "hires": scaled(2)}
    names = sorted(images, key=lambda name: name != first)
    assert finest_copy({name: images[name] for name in names}, placed) == "full"
    # in any frame that they have in common
    frame = np.array([[0.2, 0.1, 30], [-0.1, 0.2, 5], [0, 0, 1]])
    assert finest_copy(images, {name: matrix @ frame for name, matrix in placed.items()}) == "full"


def test_two_images_as_fine_as_each_other_are_two() -> None:
    assert finest_copy({"a": raster(FULL), "b": raster(FULL)}, {"a": np.eye(3), "b": np.eye(3)}) is None


COARSE = smaller(FULL, 4)


@pytest.mark.parametrize(
    ("pixels", "place"),
    [
        (smaller(picture(seed=1), 4), scaled(4)),
        (COARSE[::-1], scaled(4)),
        (COARSE[:, :, ::-1], scaled(4)),
        ((255 * (COARSE / 255) ** 1.6).astype(np.uint8), scaled(4)),
        (COARSE[:, :, :80], scaled(4)),
        (COARSE, scaled(4, x=-60.0)),
        (np.full_like(COARSE, 255), scaled(4)),
    ],
    ids=["another picture", "other colours", "mirrored", "darker", "a part", "elsewhere", "blank"],
)
def test_images_that_differ_are_two(pixels: np.ndarray, place: np.ndarray) -> None:
    assert finest_copy({"full": raster(FULL), "other": raster(pixels)}, {"full": np.eye(3), "other": place}) is None


TURNS: dict[str, tuple[Any, list[list[float]]]] = {
    "mirrored": (lambda a: a[:, :, ::-1], [[-1, 0, 640], [0, 1, 0]]),
    "upside down": (lambda a: a[:, ::-1, ::-1], [[-1, 0, 640], [0, -1, 480]]),
    "transposed": (lambda a: a.transpose(0, 2, 1), [[0, 1, 0], [1, 0, 0]]),
    "a quarter turn": (lambda a: np.rot90(a, axes=(1, 2)), [[0, 1, 0], [-1, 0, 640]]),
}


@pytest.mark.parametrize("turn", TURNS)
def test_a_finest_one_that_was_mirrored_or_turned_is_a_copy_where_it_is_placed_so(turn: str) -> None:
    turned, place = TURNS[turn]
    images = {"full": raster(turned(FULL)), "hires": raster(smaller(FULL, 2)), "lowres": raster(COARSE)}
    placed = {"full": np.array([*place, [0, 0, 1]]), "hires": scaled(2), "lowres": scaled(4)}
    assert finest_copy(images, placed) == "full"
    # not where its pixels are as they were, or its corners are not those of the others
    assert finest_copy(images | {"full": raster(FULL)}, placed) is None
    assert finest_copy(images, placed | {"full": placed["full"] + [[0, 0, 90], [0, 0, 0], [0, 0, 0]]}) is None


def test_all_windows_of_an_image_are_read_at_once() -> None:
    reads = {"full": 0, "lowres": 0}

    def decoded(name: str, pixels: np.ndarray) -> np.ndarray:
        reads[name] += 1
        return pixels

    def lazy(name: str, pixels: np.ndarray) -> RasterImage:
        whole = da.from_delayed(dask.delayed(decoded, pure=False)(name, pixels), pixels.shape, pixels.dtype)
        _, height, width = pixels.shape
        return RasterImage(name, (Level(whole.rechunk((3, 64, 64)), 1.0, 1.0),), (width, height))

    copies = {"full": lazy("full", FULL), "lowres": lazy("lowres", COARSE)}
    assert finest_copy(copies, {"full": np.eye(3), "lowres": scaled(4)}) == "full"
    assert reads == {"full": 1, "lowres": 1}


def test_one_that_differs_makes_all_of_them_ambiguous() -> None:
    images = {"full": raster(FULL), "hires": raster(smaller(FULL, 2)), "other": raster(smaller(picture(seed=1), 4))}
    assert finest_copy(images, {"full": np.eye(3), "hires": scaled(2), "other": scaled(4)}) is None


def test_small_images_are_compared_too() -> None:
    tiny = FULL[:, 100:124, 100:132]
    copies = {"full": raster(tiny), "lowres": raster(tiny.reshape(3, 6, 4, 8, 4).mean(axis=(2, 4)).astype(np.uint8))}
    assert finest_copy(copies, {"full": np.eye(3), "lowres": scaled(4)}) == "full"


@pytest.mark.parametrize("order", [0, 1, 3])
def test_copies_of_real_sections_are_one_picture_and_neighbouring_sections_are_not(
    data_folder: Path, order: int
) -> None:
    import spatialwhisperer as sw

    sections = {name: sw.datasets.her2st(name, data_dir=data_folder / "her2st") for name in ("C2", "C3")}
    full = {name: find_image(section, f"{name}_image") for name, section in sections.items()}
    level = full["C2"].levels[-2]
    _, height, width = level.pixels.shape
    pixels = read_pixels(level, 0, 0, width, height)
    placed = {"full": np.eye(3), "lowres": scaled(level.scale_x * 2)}
    copy = raster(smaller(pixels, 2, order))
    assert finest_copy({"full": full["C2"], "lowres": copy}, placed) == "full"
    assert finest_copy({"full": full["C3"], "lowres": copy}, placed) is None
    darker = raster((255 * (copy.levels[0].pixels / 255) ** 1.5).astype(np.uint8))
    assert finest_copy({"full": full["C2"], "lowres": darker}, placed) is None
