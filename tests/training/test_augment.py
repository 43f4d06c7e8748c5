"""Random changes of tiles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spatialwhisperer.encoders.image.stain import EOSIN, HAEMATOXYLIN
from spatialwhisperer.models.configuration.augmentation import Augmentation
from spatialwhisperer.training.augment import TileAugmenter

NOTHING = Augmentation(
    flips=False, right_angles=False, stain_scale=0, stain_shift=0, brightness=0, contrast=0, saturation=0
)
PX = 24


def noise(n: int = 6, px: int = PX, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 3, px, px), dtype=np.uint8)


def stained(n: int = 40, px: int = PX) -> np.ndarray:
    """Mixtures of haematoxylin and eosin."""
    rng = np.random.default_rng(0)
    vectors = [np.array(v) / np.linalg.norm(v) for v in (HAEMATOXYLIN, EOSIN)]
    amounts = rng.uniform(0.1, 0.6, (2, n, px, px))
    od = sum(a[:, None] * v[None, :, None, None] for a, v in zip(amounts, vectors, strict=True))
    return np.rint(256 * 10**-od - 1).clip(0, 255).astype(np.uint8)


def changed(how: Augmentation, tiles: np.ndarray, epoch: int = 0, seed: int = 0) -> np.ndarray:
    return TileAugmenter(how, seed)(tiles, epoch, np.arange(len(tiles)))


def square_images(tile: np.ndarray) -> list[bytes]:
    """The eight images of a square under its symmetries: turned, and mirrored and turned."""
    return [np.rot90(t, k, axes=(1, 2)).tobytes() for t in (tile, tile[:, :, ::-1]) for k in range(4)]


# ------------------------------------------------------------------------------------------------- symmetries


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"flips": True, "right_angles": True}, range(8)),
        ({"right_angles": True}, range(4)),
        # mirrored both ways is turned by 180 degrees
        ({"flips": True}, (0, 2, 4, 6)),
        ({}, (0,)),
    ],
)
def test_flips_and_right_angles_give_the_images_of_a_square_and_each_as_often(options: Any, expected: Any) -> None:
    tiles = np.repeat(noise(1), 800, axis=0)
    found = [tile.tobytes() for tile in changed(replace(NOTHING, **options), tiles)]
    images = square_images(tiles[0])
    counts = {number: found.count(images[number]) for number in expected}
    assert sum(counts.values()) == 800
    assert all(abs(n - 800 / len(expected)) < 5 * np.sqrt(800 / len(expected)) for n in counts.values())


def test_symmetries_hold_beside_other_changes() -> None:
    """What turns a tile does not change what its colours get."""
    tiles = noise(30)
    colours = replace(NOTHING, stain_scale=0.1, brightness=0.2, contrast=0.2)
    plain, turned = changed(colours, tiles), changed(replace(colours, flips=True, right_angles=True), tiles)
    assert all(t.tobytes() in square_images(p) for p, t in zip(plain, turned, strict=True))
    assert not np.array_equal(plain, turned)


# ------------------------------------------------------------------------------------------------- free rotation


def test_a_rotation_by_nothing_or_of_one_colour_changes_nothing() -> None:
    tiles = noise()
    assert np.array_equal(changed(replace(NOTHING, rotation=1e-9), tiles), tiles)
    flat = np.full((5, 3, PX, PX), 90, np.uint8)
    assert np.array_equal(changed(replace(NOTHING, rotation=180, fill=90), flat), flat)


def test_a_rotation_turns_about_the_centre_and_fills_the_corners() -> None:
    from scipy.ndimage import rotate

    smooth = np.stack([np.add.outer(np.arange(41.0), 3 * np.arange(41.0))] * 3)[None].repeat(20, 0)
    tiles = np.rint(smooth).astype(np.uint8)
    how = replace(NOTHING, rotation=180, fill=255)
    augmenter = TileAugmenter(how, 0)
    got = augmenter(tiles, 0, np.arange(20))
    angles = 180 * (2 * augmenter._uniform(0, np.arange(20))[:, 3] - 1)
    y, x = np.mgrid[-20:21, -20:21]
    inside = np.hypot(x, y) < 19
    for tile, angle in zip(got, angles, strict=True):
        expected = rotate(tiles[0, 0].astype(float), angle, reshape=False, order=1)
        assert np.abs(tile[0].astype(float) - expected)[inside].max() <= 1
    filled = (got == 255).all(axis=1)
    assert (filled[:, 0, 0] | (np.abs((angles + 45) % 90 - 45) < 5)).all()
    assert not filled[:, inside].any()


# ------------------------------------------------------------------------------------------------- colours and stains


def test_jitter_keeps_type_shape_and_about_the_mean() -> None:
    tiles = stained(200)
    got = changed(replace(Augmentation(), flips=False, right_angles=False), tiles)
    assert (got.dtype, got.shape) == (np.uint8, tiles.shape)
    each = got.mean(axis=(1, 2, 3)) - tiles.mean(axis=(1, 2, 3))
    assert abs(each.mean()) < 4
    assert 5 < each.std() < 25


def test_brightness_contrast_and_saturation_are_what_they_are_called() -> None:
    tiles = noise(20) // 2 + 60
    value, weights = tiles.astype(float), np.array([0.299, 0.587, 0.114])
    grey = np.einsum("c,ncyx->nyx", weights, value)[:, None]
    for number, name in enumerate(("brightness", "contrast", "saturation")):
        change: Any = {name: 0.3}
        augmenter = TileAugmenter(replace(NOTHING, **change), 0)
        got = augmenter(tiles, 0, np.arange(20))
        u = augmenter._uniform(0, np.arange(20))[:, 8 + number]
        factor = (1 + 0.3 * (2 * u - 1))[:, None, None, None]
        pivot = {"brightness": 0.0, "contrast": grey.mean(axis=(2, 3), keepdims=True), "saturation": grey}[name]
        expected = (pivot + factor * (value - pivot)).clip(0, 255)
        assert np.abs(got - expected).max() <= 0.51, name
        assert np.abs(got - value).max() > 10


def test_hue_keeps_greys_and_brightness() -> None:
    how = replace(NOTHING, hue=0.25)
    flat = np.full((9, 3, PX, PX), 120, np.uint8)
    assert np.array_equal(changed(how, flat), flat)
    tiles = noise(30) // 8 + 110
    got = changed(how, tiles)
    weights = np.array([0.299, 0.587, 0.114])
    before, after = (np.einsum("c,ncyx->nyx", weights, x.astype(float)) for x in (tiles, got))
    assert np.abs(before - after).max() <= 0.51
    assert np.abs(got.astype(int) - tiles).max() > 5


def test_some_tiles_keep_their_colours() -> None:
    tiles = noise(400)
    got = changed(replace(NOTHING, brightness=0.5, colour_probability=0.5), tiles)
    kept = (got == tiles).all(axis=(1, 2, 3))
    assert 150 < kept.sum() < 250


def test_stains_are_scaled_and_shifted_in_optical_density() -> None:
    """Against the plain formula: concentrations c of the stains become a * c + b."""
    tiles = stained()
    augmenter = TileAugmenter(replace(NOTHING, stain_scale=0.2, stain_shift=0.05), 3)
    got = augmenter(tiles, 2, np.arange(len(tiles)))
    u = augmenter._uniform(2, np.arange(len(tiles)))
    first, second = (np.array(v) / np.linalg.norm(v) for v in (HAEMATOXYLIN, EOSIN))
    third = np.cross(first, second)
    vectors = np.stack([first, second, third / np.linalg.norm(third)])
    od = -np.log10((tiles.astype(float) + 1) / 256)
    concentrations = np.einsum("ncyx,ck->nkyx", od, np.linalg.inv(vectors))
    scale, shift = 0.2 * (2 * u[:, 4:6] - 1), 0.05 * (2 * u[:, 6:8] - 1)
    concentrations[:, :2] = concentrations[:, :2] * (1 + scale)[..., None, None] + shift[..., None, None]
    expected = (256 * 10 ** -np.einsum("nkyx,kc->ncyx", concentrations, vectors) - 1).clip(0, 255)
    assert np.abs(got - expected).max() <= 1.01
    assert np.abs(got.astype(int) - tiles).max() > 20


def test_stain_changes_stay_in_range_for_every_intensity() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(3, 1).repeat(50, 0)
    got = changed(replace(NOTHING, stain_scale=1, stain_shift=3), ramp)
    assert got.dtype == np.uint8
    assert got.min() == 0
    assert got.max() == 255
    assert np.abs(changed(replace(NOTHING, stain_shift=1e-9), ramp).astype(int) - ramp).max() <= 1


# ------------------------------------------------------------------------------------------------- randomness


def test_a_tile_depends_on_seed_epoch_and_item_alone() -> None:
    tiles, items = noise(7), np.array([5, 900_000, 0, 3, 4, 17, 2])
    augmenter = TileAugmenter(Augmentation(rotation=20), 4)
    whole = augmenter(tiles, 3, items)
    order = np.array([6, 2, 4])
    assert np.array_equal(augmenter(tiles[order], 3, items[order]), whole[order])
    assert np.array_equal(TileAugmenter(Augmentation(rotation=20), 4)(tiles[:1], 3, items[:1]), whole[:1])
    for other in (
        TileAugmenter(Augmentation(rotation=20), 5)(tiles, 3, items),
        augmenter(tiles, 4, items),
        augmenter(tiles, 3, items + 1),
    ):
        assert not any(np.array_equal(a, b) for a, b in zip(whole, other, strict=True))


def test_the_numbers_are_not_those_of_the_order_of_an_epoch() -> None:
    drawn = TileAugmenter(NOTHING, 4)._uniform(3, np.array([0]))[0]
    assert not np.allclose(drawn, np.random.default_rng([4, 3]).random(len(drawn)))


def test_the_given_tiles_are_not_changed_and_may_be_read_only() -> None:
    tiles = noise()
    tiles.flags.writeable = False
    before = tiles.copy()
    assert not np.array_equal(changed(Augmentation(), tiles), tiles)
    assert np.array_equal(tiles, before)
    assert changed(Augmentation(), tiles[:0]).shape == (0, 3, PX, PX)
    view = noise(12)[::2, :, ::-1]
    assert np.array_equal(changed(Augmentation(), view), changed(Augmentation(), view.copy()))
