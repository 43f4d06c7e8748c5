from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spatialwhisperer.encoders.image.stain import (
    HAEMATOXYLIN,
    REFERENCE_STAINS,
    REFERENCE_STRENGTHS,
    SlideStain,
    is_filler,
    optical_density,
    unmixing_matrix,
)
from spatialwhisperer.encoders.image.stain_texture import StainTextureEncoder

OTHER = ((0.62, 0.70, 0.36), (0.30, 0.80, 0.52))
GLASS = (232.0, 218.0, 228.0)


def unit(vectors):
    vectors = np.asarray(vectors, float)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


OTHER_UNIT: Any = tuple(tuple(vector) for vector in unit(OTHER))


def image(stains=REFERENCE_STAINS, white=(255.0, 255.0, 255.0), strength=(1.0, 1.0), *, h=True, n=24, seed=0):
    """Tiles of 32 px with glass, stroma (eosin) and, where `h` is true, nuclei."""
    rng = np.random.default_rng(seed)
    e = rng.gamma(6, 0.03, (n, 32, 32)) * (np.arange(32) > 3)
    nuclei = rng.random((n, 32, 32)) < 0.15
    amounts = np.stack([np.where(nuclei, rng.uniform(0.5, 0.9, nuclei.shape), 0.0) * h, e * ~nuclei]) * (
        np.reshape(strength, (2, 1, 1, 1))
    )
    density = np.einsum("snij,sc->ncij", amounts, unit(stains))
    light = (np.reshape(white, (1, 3, 1, 1)) + 1) * 10**-density - 1
    return light.clip(0, 255).round().astype(np.uint8)


def test_the_stains_of_a_simulated_image_are_found():
    found = SlideStain.estimate(image(OTHER, GLASS), mpp=2.0)
    assert found.source == "image"
    np.testing.assert_allclose(found.white, GLASS, atol=1)
    cosines = (unit(found.stains) * unit(OTHER)).sum(axis=1)
    assert (cosines > np.cos(np.radians(3))).all()


def test_strengths_are_the_99th_percentile_over_tissue():
    weak, strong = (SlideStain.estimate(image(strength=(f, f)), mpp=2.0).strengths for f in (1.0, 1.5))
    np.testing.assert_allclose(np.array(strong) / weak, 1.5, rtol=0.05)
    np.testing.assert_allclose(weak[0], 0.9, atol=0.03)


def test_an_image_becomes_what_it_is_in_the_reference_stains():
    """The same tissue in two stainings, on two scanners, gives the same pixels."""
    one, two = (
        image(),
        image(OTHER, GLASS, strength=(1.3, 0.8)),
    )
    pixels = [np.stack([SlideStain.estimate(t, mpp=2.0).normalize(tile) for tile in t]) for t in (one, two)]
    before = np.abs(one.astype(float) - two).mean()
    assert np.abs(pixels[0] - pixels[1]).mean() < 0.25 * before


def test_the_reference_leaves_pixels_as_they_are():
    tiles = image()
    np.testing.assert_allclose(SlideStain.reference().normalize(tiles[0]), tiles[0], atol=0.01)


def test_normalize_is_a_matrix_on_optical_densities():
    stain = SlideStain(GLASS, OTHER_UNIT, (1.1, 0.3))
    tile = np.random.default_rng(0).integers(21, 256, (3, 5, 7), dtype=np.uint8)
    amounts = optical_density(tile.reshape(3, -1).T, GLASS).astype(float) @ np.linalg.inv(_basis(OTHER))
    amounts *= [REFERENCE_STRENGTHS[0] / 1.1, REFERENCE_STRENGTHS[1] / 0.3, 1]
    expected = (256 * 10 ** -(amounts @ _basis(REFERENCE_STAINS)) - 1).clip(0, 255).T.reshape(3, 5, 7)
    np.testing.assert_allclose(stain.normalize(tile), expected, atol=0.05)


def _basis(stains):
    h, e = unit(stains)
    return np.stack([h, e, unit(np.cross(h, e))])


def test_masked_background_is_white_and_no_glass():
    tiles = image(white=GLASS)
    masked = tiles.copy()
    masked[:, :, :8] = 5
    np.testing.assert_allclose(SlideStain.estimate(masked, mpp=2.0).white, GLASS, atol=1)
    assert (SlideStain.estimate(masked, mpp=2.0).normalize(masked[0])[:, :8] == 255).all()


def test_a_pure_white_margin_is_no_glass():
    """Exports are padded with it, and transparent parts are laid over it."""
    tiles = image(white=GLASS)
    margin = np.full((8, *tiles.shape[1:]), 255, np.uint8)
    assert SlideStain.estimate(np.concatenate([tiles, margin]), mpp=2.0) == SlideStain.estimate(tiles, mpp=2.0)


def test_around_a_section_too(data_folder):
    """Its glass is uneven, and its margin ends within tiles."""
    from PIL import Image

    with Image.open(data_folder / "her2st" / "A1" / "image.jpg") as file:
        section = np.asarray(file.convert("RGB"))[:1024, :1984]
    wide = np.pad(section, ((0, 0), (0, 576), (0, 0)), constant_values=255)
    one, two = (
        SlideStain.estimate(
            np.ascontiguousarray(pixels.reshape(64, 32, -1, 32, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32)),
            mpp=3.19,
        )
        for pixels in (section, wide)
    )
    assert one.white == two.white
    assert max(one.white) < 235
    # tiles come in another order, and sums are rounded
    np.testing.assert_allclose(one.stains, two.stains, rtol=1e-6)
    np.testing.assert_allclose(one.strengths, two.strengths, rtol=1e-6)


def test_glass_that_the_scanner_shows_white_stays_the_white_point():
    """Most of its pixels are pure white, and the others nearly so."""
    tiles = image().astype(float) + np.random.default_rng(0).normal(3, 4, (24, 3, 32, 32))
    clipped = tiles.clip(0, 255).round().astype(np.uint8)
    assert not is_filler(clipped.transpose(0, 2, 3, 1).reshape(-1, 3)).any()
    assert SlideStain.estimate(clipped, mpp=2.0).white == (255.0, 255.0, 255.0)


def test_white_around_tissue_without_glass_stays_the_white_point():
    """Nothing else tells how bright the background is."""
    assert SlideStain.estimate(image(), mpp=2.0).white == (255.0, 255.0, 255.0)


@pytest.mark.parametrize(
    ("what", "tiles"),
    [
        ("glass", np.full((24, 3, 32, 32), 240, np.uint8)),
        ("black", np.zeros((24, 3, 32, 32), np.uint8)),
        ("one stain", image(h=False)),
        ("green and blue", image(((0.65, 0.70, 0.29), (0.80, 0.20, 0.57)))),
        ("grey", np.repeat(image().mean(axis=1, keepdims=True), 3, axis=1).astype(np.uint8)),
        ("a few pixels", image(n=1)[:, :, :2]),
    ],
)
def test_falls_back_on_the_reference(what, tiles):
    found = SlideStain.estimate(tiles, mpp=2.0)
    assert found.source == "reference", what
    assert found.strengths == REFERENCE_STRENGTHS


def test_the_white_point_counts_in_the_fall_back():
    found = SlideStain.estimate(np.broadcast_to(np.array(GLASS, np.uint8)[:, None, None], (24, 3, 32, 32)), mpp=2.0)
    assert found.white == GLASS


def test_an_image_without_background_has_a_white_one():
    """Its brightest pixels are tissue."""
    found = SlideStain.estimate(np.full((24, 3, 32, 32), 170, np.uint8), mpp=2.0)
    assert found.white == (255.0, 255.0, 255.0)


def test_pure_stains_unmix_to_themselves():
    for vectors in (REFERENCE_STAINS, OTHER):
        np.testing.assert_allclose(unit(vectors) @ unmixing_matrix(*vectors), np.eye(3)[:2], atol=1e-6)
    np.testing.assert_allclose(unit(HAEMATOXYLIN) @ unmixing_matrix(), [1, 0, 0], atol=1e-6)


def test_features_hardly_depend_on_the_staining():
    """Against tiles as they are, for which the staining is most of the difference."""
    one, two = image(), image(OTHER, GLASS, strength=(1.3, 0.8))
    plain, bound = StainTextureEncoder(), StainTextureEncoder()
    raw = [plain.encode(t, mpp=2.0) for t in (one, two)]
    seen = [bound.on_image(t, mpp=2.0).encode(t, mpp=2.0) for t in (one, two)]
    spread = raw[0].std(axis=0) + 1e-3
    assert np.median(np.abs(seen[0] - seen[1]) / spread) < 0.35 * np.median(np.abs(raw[0] - raw[1]) / spread)


def test_an_encoder_on_an_image_is_another_object():
    encoder = StainTextureEncoder()
    encoder.on_image(image(OTHER, GLASS), mpp=2.0)
    assert encoder.stain == SlideStain.reference()
