"""Random changes of tiles for an image encoder that is trained, with one compiled pass over each tile."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._compute.kernels import kernel
from spatialwhisperer.encoders.image.stain import EOSIN, HAEMATOXYLIN

if TYPE_CHECKING:
    from spatialwhisperer.models.configuration.augmentation import Augmentation

_STREAM = 0x7469
"""Tells the numbers of augmentation from those of the order of an epoch, which has the same seed."""

_DRAWS = 16
_GREY = np.array([0.299, 0.587, 0.114])
"""Weights of R, G and B in the brightness that a person sees (ITU-R BT.601)."""

_STEPS = 1024
_MOST_OD = math.log10(256)
"""Optical density of black; that of white is 0."""


class TileAugmenter:
    """Changes tiles at random; what a tile gets depends on the seed, the epoch and its number alone.

    Parameters
    ----------
    augmentation
        How strongly tiles are changed.
    seed
        Seed of the run.
    """

    def __init__(self, augmentation: Augmentation, seed: int) -> None:
        self.augmentation, self.seed = augmentation, int(seed)

    def __call__(self, tiles: np.ndarray, epoch: int, items: np.ndarray) -> np.ndarray:
        """Change tiles.

        Parameters
        ----------
        tiles
            uint8, shape (n, 3, p, p), RGB.
        epoch
            Number of the epoch.
        items
            Number of each tile among all tiles of the run, shape (n,).

        Returns
        -------
        Changed tiles, of the same type and shape.
        """
        how, tiles = self.augmentation, np.ascontiguousarray(tiles)
        u = self._uniform(epoch, items)
        out = np.empty_like(tiles)
        stain, colour = how.changes_stains, how.changes_colours
        _augment(
            tiles,
            out,
            _geometry(how, u, tiles.shape[-1]),
            _angles(how, u),
            how.rotation > 0,
            how.fill,
            *_stains(how, u),
            *_colours(how, u),
            stain,
            colour,
            _OD,
            _INTENSITY,
        )
        return out

    def _uniform(self, epoch: int, items: np.ndarray) -> np.ndarray:
        """Numbers in [0, 1) for each tile, shape (n, draws), the same whichever changes are made."""
        out = np.empty((len(items), _DRAWS))
        for row, item in zip(out, np.asarray(items).tolist(), strict=True):
            np.random.default_rng([_STREAM, self.seed, epoch, item]).random(out=row)
        return out


def _geometry(how: Augmentation, u: np.ndarray, p: int) -> np.ndarray:
    """Where the first pixel, the next row and the next column of each changed tile lie in the flat tile, shape (n, 3)."""
    start, down, right = np.zeros(len(u), np.int64), np.full(len(u), p), np.ones(len(u), np.int64)
    if how.flips:
        for step, chosen in ((right, u[:, 0] < 0.5), (down, u[:, 1] < 0.5)):
            start += np.where(chosen, (p - 1) * step, 0)
            step[chosen] *= -1
    if how.right_angles:
        turns = (4 * u[:, 2]).astype(int)
        for number in range(3):
            more = turns > number
            start, down, right = (
                np.where(more, start + (p - 1) * right, start),
                np.where(more, -right, down),
                np.where(more, down, right),
            )
    return np.stack([start, down, right], axis=1).astype(np.int64)


def _angles(how: Augmentation, u: np.ndarray) -> np.ndarray:
    """Cosine and sine of the free rotation of each tile, shape (n, 2)."""
    angle = np.deg2rad(how.rotation * _signed(u[:, 3]))
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _stains(how: Augmentation, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The change of stains as a map of optical densities: matrices (n, 3, 3) and shifts (n, 3)."""
    scale = how.stain_scale * _signed(u[:, 4:6])
    shift = how.stain_shift * _signed(u[:, 6:8])
    matrix = np.eye(3) + np.einsum("nk,kc,dk->ncd", scale, _STAINS[:2], _UNMIX[:, :2])
    return matrix.astype(np.float32), (shift @ _STAINS[:2]).astype(np.float32)


def _colours(how: Augmentation, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The change of colours as a map of intensities: matrices (n, 3, 3), and the part of the mean grey that is added, (n,)."""
    bright, contrast, saturation = (
        1 + strength * _signed(u[:, 8 + i]) for i, strength in enumerate((how.brightness, how.contrast, how.saturation))
    )
    turn = 2 * np.pi * how.hue * _signed(u[:, 11])
    grey = np.ones((3, 1)) * _GREY
    # turning the two axes of colour beside that of greys leaves greys and their weights as they are
    colour = np.eye(3) - grey
    turned = np.cos(turn)[:, None, None] * colour + np.sin(turn)[:, None, None] * _QUARTER
    matrix = grey + saturation[:, None, None] * turned
    matrix = matrix * (bright * contrast)[:, None, None]
    added = bright * (1 - contrast)
    chosen = u[:, 12] < how.colour_probability
    matrix = np.where(chosen[:, None, None], matrix, np.eye(3))
    return matrix.astype(np.float32), np.where(chosen, added, 0.0).astype(np.float32)


def _signed(u: np.ndarray) -> np.ndarray:
    return 2 * u - 1


def _stain_vectors() -> np.ndarray:
    """Optical density of haematoxylin, eosin and what neither explains, as rows of unit length."""
    first, second = (np.array(v) / np.linalg.norm(v) for v in (HAEMATOXYLIN, EOSIN))
    third = np.cross(first, second)
    return np.stack([first, second, third / np.linalg.norm(third)])


def _quarter_turn() -> np.ndarray:
    """A quarter turn of the colours around the axis of greys, in the plane of colours without brightness."""
    colour = np.eye(3) - np.ones((3, 1)) * _GREY
    axis = np.ones(3) / math.sqrt(3)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    # the grey of what it gives is subtracted, so that the brightness of a pixel stays
    return colour @ cross @ colour


_STAINS = _stain_vectors()
_UNMIX = np.linalg.inv(_STAINS)
_QUARTER = _quarter_turn()
_OD = (_MOST_OD - np.log10(np.arange(256) + 1.0)).astype(np.float32)
"""Optical density of each intensity."""
_INTENSITY = (256 * 10 ** -(np.arange(math.ceil(_MOST_OD * _STEPS) + 2) / _STEPS) - 1).clip(0, 255).astype(np.float32)
"""Intensity of each optical density, in steps of 1/1024."""


@kernel(nogil=True)
def _augment(
    tiles, out, geometry, angles, rotates, fill, mix, shift, colour, added, stains, colours, density, intensity
):
    n, p = tiles.shape[0], tiles.shape[2]
    changed = np.empty((3, p * p), np.float32)
    for i in range(n):
        flat, target = tiles[i].reshape(3, p * p), out[i].reshape(3, p * p)
        start, down, right = geometry[i, 0], geometry[i, 1], geometry[i, 2]
        if not (stains or colours or rotates):
            for c in range(3):
                for y in range(p):
                    for x in range(p):
                        target[c, y * p + x] = flat[c, start + y * down + x * right]
            continue
        grey = _restained(flat, changed, mix[i], shift[i], stains, density, intensity)
        if colours:
            _recoloured(changed, colour[i], added[i] * grey)
        if rotates:
            _turned(changed, target, start, down, right, angles[i, 0], angles[i, 1], fill, p)
            continue
        for c in range(3):
            for y in range(p):
                for x in range(p):
                    target[c, y * p + x] = np.uint8(changed[c, start + y * down + x * right] + np.float32(0.5))


@kernel(nogil=True)
def _restained(flat, changed, mix, shift, stains, density, intensity):
    """Write the intensities with changed stains, and return the mean grey."""
    total = 0.0
    last = np.int64(len(intensity) - 1)
    steps = np.float32(1024)
    half = np.float32(0.5)
    for j in range(flat.shape[1]):
        if stains:
            r, g, b = density[flat[0, j]], density[flat[1, j]], density[flat[2, j]]
            for c in range(3):
                od = mix[c, 0] * r + mix[c, 1] * g + mix[c, 2] * b + shift[c]
                changed[c, j] = intensity[min(max(np.int64(od * steps + half), 0), last)]
        else:
            for c in range(3):
                changed[c, j] = flat[c, j]
        total += (
            np.float32(0.299) * changed[0, j] + np.float32(0.587) * changed[1, j] + np.float32(0.114) * changed[2, j]
        )
    return np.float32(total / flat.shape[1])


@kernel(nogil=True)
def _recoloured(changed, matrix, added):
    """Change colours in place."""
    low, high = np.float32(0), np.float32(255)
    for j in range(changed.shape[1]):
        r, g, b = changed[0, j], changed[1, j], changed[2, j]
        for c in range(3):
            value = matrix[c, 0] * r + matrix[c, 1] * g + matrix[c, 2] * b + added
            changed[c, j] = min(max(value, low), high)


@kernel(nogil=True)
def _turned(changed, target, start, down, right, cosine, sine, fill, p):
    """Turn a tile around its centre, after its flips and right angles."""
    middle = (p - 1) / 2
    for y in range(p):
        for x in range(p):
            sx = cosine * (x - middle) - sine * (y - middle) + middle
            sy = sine * (x - middle) + cosine * (y - middle) + middle
            at = y * p + x
            if sx < -0.5 or sy < -0.5 or sx > p - 0.5 or sy > p - 0.5:
                for c in range(3):
                    target[c, at] = fill
                continue
            sx, sy = min(max(sx, 0.0), p - 1.0), min(max(sy, 0.0), p - 1.0)
            x0, y0 = int(sx), int(sy)
            x1, y1 = min(x0 + 1, p - 1), min(y0 + 1, p - 1)
            wx, wy = np.float32(sx - x0), np.float32(sy - y0)
            for c in range(3):
                a = changed[c, start + y0 * down + x0 * right]
                b = changed[c, start + y0 * down + x1 * right]
                d = changed[c, start + y1 * down + x0 * right]
                e = changed[c, start + y1 * down + x1 * right]
                upper, lower = a + wx * (b - a), d + wx * (e - d)
                target[c, at] = np.uint8(upper + wy * (lower - upper) + np.float32(0.5))
