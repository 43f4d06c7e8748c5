from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData

import spatialwhisperer as sw
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.tiles.sample import SAMPLE_MPP, image_sample


def slide(pixels: np.ndarray, mpp: float, xy: list[list[float]] | None = None) -> AnnData:
    adata = AnnData(np.zeros((len(xy or [[10, 10]]), 0), np.float32))
    adata.obsm["spatial"] = np.array(xy or [[10.0, 10.0]])
    adata.uns["spatial"] = {"s": {"images": {"fullres": pixels}, "scalefactors": {"microns_per_pixel": mpp}}}
    return adata


def sample(pixels: np.ndarray, mpp: float, **kwargs) -> tuple[np.ndarray, float]:
    return image_sample(Slide.open(slide(pixels, mpp, **kwargs)).scaled()[0])


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_small_image_is_covered():
    pixels = noise(384, 512)
    tiles, mpp = sample(pixels, SAMPLE_MPP)
    assert (tiles.shape, mpp) == ((48, 3, 64, 64), SAMPLE_MPP)
    whole = tiles.reshape(6, 8, 3, 64, 64).transpose(0, 3, 1, 4, 2).reshape(384, 512, 3)
    np.testing.assert_array_equal(whole, pixels)


def test_finer_pixels_are_averaged_and_coarser_ones_kept():
    fine, mpp = sample(noise(400, 400), 0.5)
    assert mpp == SAMPLE_MPP
    assert fine.std() < 0.3 * noise(400, 400).std()
    assert sample(noise(100, 100), 4.0)[1] == 4.0


def test_nothing_lies_outside_an_image_that_is_smaller_than_a_tile():
    tiles, _ = sample(np.zeros((20, 30, 3), np.uint8), SAMPLE_MPP)
    assert tiles.max() == 0


def test_the_rows_do_not_matter():
    pixels = noise(300, 300)
    one, other = (sample(pixels, 1.0, xy=xy)[0] for xy in ([[5, 5]], [[200, 30], [9, 9], [150, 150]]))
    np.testing.assert_array_equal(one, other)


def test_of_a_large_image_a_part_is_read():
    assert len(sample(noise(4500, 4500), SAMPLE_MPP)[0]) <= 1024


@pytest.mark.parametrize("n", [1, 7])
def test_features_do_not_depend_on_the_other_rows(n):
    pixels = noise(300, 300) // 2 + 100
    xy = np.random.default_rng(1).uniform(60, 240, (8, 2)).tolist()
    whole, part = (
        sw.pp.embed_images(slide(pixels, 1.0, rows), tile_um=60, tile_px=30, inplace=False) for rows in (xy, xy[:n])
    )
    np.testing.assert_array_equal(np.asarray(whole)[:n], part)
