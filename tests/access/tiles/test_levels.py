"""Which level is read: pixels of a tile do not depend on the levels that an image has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spatialwhisperer._access.images import Level, RasterImage
from spatialwhisperer._access.sections.scale import Scale
from spatialwhisperer._access.sections.section import Section
from spatialwhisperer._access.tiles.levels import choose_view
from spatialwhisperer._access.tiles.reader import TileReader

EDGE = 901


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    """Blobs of 20 to 60 pixels with noise: smooth, and nowhere flat."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    noise = gaussian_filter(rng.normal(size=(3, EDGE, EDGE + 2)), (0, 9, 9))
    picture = 128 + 45 * noise / noise.std() + rng.normal(0, 6, noise.shape)
    return picture.clip(0, 255).astype(np.uint8)


def halves(pixels: np.ndarray, *, start: bool, cut: bool) -> np.ndarray:
    """Means of 2 x 2 pixels; what is left over goes at the start or the end, and means are cut off or rounded."""
    _, height, width = pixels.shape
    y, x = (height % 2, width % 2) if start else (0, 0)
    even = pixels[:, y : y + height // 2 * 2, x : x + width // 2 * 2].astype(float)
    means = even.reshape(3, height // 2, 2, width // 2, 2).mean(axis=(2, 4))
    return (np.floor(means) if cut else np.rint(means)).astype(np.uint8)


def pyramid(pixels: np.ndarray, levels: int, **how: Any) -> RasterImage:
    all_levels = [pixels]
    for _ in range(levels):
        all_levels.append(halves(all_levels[-1], **how))
    _, height, width = pixels.shape
    return RasterImage(
        "i", tuple(Level(a, width / a.shape[2], height / a.shape[1]) for a in all_levels), (width, height)
    )


def places(n: int = 40) -> np.ndarray:
    return np.random.default_rng(1).uniform(150, EDGE - 150, (n, 2))


def tiles(image: RasterImage, xy: np.ndarray, mpp: float, tile_um: float, px: int) -> np.ndarray:
    reader = TileReader(Section("s", np.arange(len(xy)), xy, image, Scale(mpp, "test")), tile_um=tile_um, tile_px=px)
    out = np.zeros((len(xy), 3, px, px), np.uint8)
    for at, some in reader.read():
        out[at] = some
    return out


@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("cut", [True, False])
def test_a_level_of_averages_is_found_with_its_place_and_its_bias(tissue: np.ndarray, start: bool, cut: bool) -> None:
    image = pyramid(tissue, 2, start=start, cut=cut)
    view = choose_view(image, (33.0, 33.0), places())
    assert view.level is image.levels[2]
    assert (view.scale_x, view.scale_y) == (4.0, 4.0)
    # 903 and 901 pixels are 225 times four, and three and one
    assert (view.start_x, view.start_y) == ((3.0, 1.0) if start else (0.0, 0.0))
    assert view.bias == pytest.approx(0.75 if cut else 0.0, abs=0.1)


@pytest.mark.parametrize("cell", [3.0, 4.5, 9.0, 17.0, 40.0])
def test_tiles_of_a_pyramid_are_those_of_the_flat_image(tissue: np.ndarray, cell: float) -> None:
    xy, px = places(), 6
    flat = tiles(pyramid(tissue, 0), xy, 1.0, px * cell, px).astype(int)
    stored = tiles(pyramid(tissue, 3, start=True, cut=True), xy, 1.0, px * cell, px)
    # with fewer than sixteen pixels across a pixel of the tile the finest level is read
    if cell < 16:
        assert np.array_equal(stored, flat)
    # a coarser one holds rounded means over other edges; no tile is darker or brighter for it
    assert np.abs(stored - flat).mean() < 0.8
    assert np.abs((stored - flat).mean(axis=(1, 2, 3))).max() < 0.4


def test_tiles_of_a_finer_copy_are_those_of_the_image(tissue: np.ndarray) -> None:
    xy = places()
    fine = tissue.repeat(2, axis=1).repeat(2, axis=2)
    for cell in (0.6, 1.0, 1.7, 3.03):
        one = tiles(pyramid(tissue, 0), xy, 1.0, 20 * cell, 20)
        other = tiles(pyramid(fine, 0), 2 * xy, 0.5, 20 * cell, 20)
        assert np.array_equal(one, other)


@pytest.mark.parametrize("kind", ["points", "blurred", "moved", "brighter", "missing"])
def test_a_level_that_is_no_average_is_not_read(tissue: np.ndarray, kind: str) -> None:
    from scipy.ndimage import gaussian_filter

    half = halves(tissue, start=False, cut=False)
    level = {
        "points": tissue[:, : EDGE - 1 : 2, :-1:2],
        "blurred": gaussian_filter(half, (0, 3, 3)),
        "moved": np.roll(half, 2, axis=2),
        "brighter": np.minimum(half, 250) + np.uint8(3),
        "missing": half * 0,
    }[kind]
    finest = Level(tissue, 1.0, 1.0)
    image = RasterImage("i", (finest, Level(level, 903 / level.shape[2], 901 / level.shape[1])), (903, 901))
    assert choose_view(image, (20.0, 20.0), places()).level is finest


def test_a_coarse_level_needs_eight_pixels_across_a_pixel_of_a_tile(tissue: np.ndarray) -> None:
    image = pyramid(tissue, 2, start=False, cut=False)
    for cell, expected in ((15.9, 0), (16.1, 1), (31.9, 1), (32.3, 2), (90.0, 2)):
        assert choose_view(image, (cell, cell), places()).level is image.levels[expected]
    # without places on the image nothing can be compared
    assert choose_view(image, (90.0, 90.0), np.empty((0, 2))).level is image.levels[0]
    assert choose_view(image, (90.0, 90.0), places() - 5000).level is image.levels[0]
