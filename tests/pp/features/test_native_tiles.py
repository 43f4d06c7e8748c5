"""Tiles of pixels of the image as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pytest

from spatialwhisperer._access.slide import Slide
from spatialwhisperer.encoders.image.base import ImageEncoder
from spatialwhisperer.encoders.recipe import EncoderIdentity, FeatureRecipe
from spatialwhisperer.encoders.spec import EncoderSpec
from spatialwhisperer.pp.features.images import image_features

if TYPE_CHECKING:
    from spatialwhisperer.pp.features.images import Features

PX = 16


class Pixels(ImageEncoder):
    """Gives the pixels of a tile, and the microns per pixel that it is told."""

    spec = EncoderSpec("pixels", "image", PX * PX * 3 + 1, input_px=PX)

    def encode(self, inputs: np.ndarray, *, mpp: float, device: str | None = None) -> np.ndarray:  # noqa: ARG002
        return np.c_[inputs.reshape(len(inputs), -1), np.full(len(inputs), mpp)].astype(np.float32)


CENTRES = np.array([[30.0, 40.0], [30.9, 40.9], [8.0, 8.0], [7.9, 30.0], [92.0, 112.0], [92.5, 113.0]])


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (120, 100, 3), dtype=np.uint8)


def computed(image: np.ndarray, mpp: float, **recipe: Any) -> Features:
    data = ad.AnnData(np.zeros((len(CENTRES), 0), np.float32))
    data.obsm["spatial"] = CENTRES
    data.uns["spatial"] = {"s": {"images": {"fullres": image}, "scalefactors": {}}}
    whole = FeatureRecipe(EncoderIdentity("pixels"), "X_pixels", (8.0,), PX, "nan", **recipe)
    return image_features(Slide.open(data, mpp=mpp), whole, Pixels, device="cpu")


@pytest.mark.parametrize("mpp", [0.25, 0.5, 0.73])
def test_they_are_cut_around_the_pixel_of_the_centre_at_any_scale(mpp: float, image: np.ndarray) -> None:
    found = computed(image, mpp, native_px=True)
    for row, (x, y) in enumerate(CENTRES.astype(int)):
        if x < 8 or y < 8 or x > 92 or y > 112:
            assert np.isnan(found.values[row]).all()
            continue
        tile = image[y - 8 : y + 8, x - 8 : x + 8].transpose(2, 0, 1)
        np.testing.assert_array_equal(found.values[row, :-1], tile.ravel())
        assert found.values[row, -1] == pytest.approx(mpp)
    assert np.isnan(found.values[:, 0]).sum() == 2


def test_they_are_other_features_than_those_of_a_size_in_microns(image: np.ndarray) -> None:
    resampled = computed(image, 0.25)
    assert resampled.values[0, -1] == pytest.approx(0.5)
    recipes = [f.result.parameters.recipe for f in (resampled, computed(image, 0.25, native_px=True)) if f.result]
    assert not recipes[0].same_features(recipes[1])
    assert recipes[0].same_features(recipes[0])
