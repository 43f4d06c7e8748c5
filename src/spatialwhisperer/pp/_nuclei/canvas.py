"""An image at the resolution at which nuclei are looked for, read part by part, and the reference of its stain."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._access.images import read_pixels
from spatialwhisperer.encoders.image.stain import is_filler, unmixing_matrix
from spatialwhisperer.pp.stain import TissueMask, coarse_raster

if TYPE_CHECKING:
    from spatialwhisperer._access.images import RasterImage

COARSEST_MPP = 0.75
"""Microns per pixel above which nuclei are not looked for."""

_FINE_MPP = 0.5
# sums over more pixels would not fit into 16 bits
_FINEST_MPP = 0.03
_BLACK = 20
_WHOLE_PX = 2**22
_SAMPLE_PX, _N_SAMPLES = 256, 64
_TISSUE_OD, _LEAST_TISSUE = 0.05, 0.1
_BRIGHT, _WHITE, _DARKEST = 90, 60, 99
_LEAST_WHITE = 120.0
_FEWEST_PX = 500
_RANGE = (0.1, 99.9)
_DENSITY, _PALEST, _DARKEST_DENSITY = 0.7, 0.3, 1.5


class Canvas:
    """An image, averaged over boxes of whole pixels as long as these are at most 0.5 µm wide and high.

    The finest level of a pyramid is read, so that a flat image and a pyramid give the same pixels. Black pixels (at most 20 in red,
    green and blue) are masked background, and become white.

    Attributes
    ----------
    steps
        Pixels of the finest level along a pixel of the canvas, along x and y.
    mpp
        Microns per pixel of the canvas: the edge of a square of the same area.
    stretch
        Width of a pixel of the canvas divided by its height.
    shape
        Height and width.
    scale
        Full-resolution pixels per pixel of the canvas, along x and y.
    """

    def __init__(self, image: RasterImage, mpp: float, stretch: float = 1.0) -> None:
        self.image, self._level = image, image.levels[0]
        own = mpp * float(np.sqrt(self._level.scale_x * self._level.scale_y))
        if own > COARSEST_MPP:
            raise ValueError(
                f"Nuclei are found at {COARSEST_MPP:g} µm per pixel or finer, and image {image.name!r} has {own:.3g}. Read the slide at "
                "its full resolution (sw.io.read_slide), or correct mpp=…."
            )
        uneven = float(np.sqrt(stretch * self._level.scale_x / self._level.scale_y))
        width_um, height_um = own * uneven, own / uneven
        if min(width_um, height_um) < _FINEST_MPP:
            raise ValueError(
                f"No microscope resolves {min(width_um, height_um):.3g} µm per pixel, which image {image.name!r} is said to have. mpp is microns per "
                "full-resolution pixel: about 0.5 at 20x, 0.25 at 40x."
            )
        self.steps = across, down = _steps(width_um), _steps(height_um)
        self.mpp = own * float(np.sqrt(across * down))
        self.stretch = width_um * across / (height_um * down)
        _, height, width = self._level.pixels.shape
        self.shape = (-(-height // down), -(-width // across))
        self.scale = (self._level.scale_x * across, self._level.scale_y * down)

    def read(self, top: int, left: int, bottom: int, right: int) -> np.ndarray:
        """Sums of red, green and blue over the pixels of each box, uint16, shape (3, bottom - top, right - left)."""
        _, height, width = self._level.pixels.shape
        across, down = self.steps
        block = read_pixels(
            self._level, left * across, top * down, min(right * across, width), min(bottom * down, height)
        )
        black = block.max(axis=0) <= _BLACK
        if black.any():
            block = np.where(black, np.uint8(255), block)
        if self.n_pixels == 1:
            return block.astype(np.uint16)
        # the last boxes may reach beyond the image
        rows, columns = (bottom - top) * down - block.shape[1], (right - left) * across - block.shape[2]
        block = np.pad(block, ((0, 0), (0, rows), (0, columns)), mode="edge") if rows or columns else block
        return block.reshape(3, bottom - top, down, right - left, across).sum(axis=(2, 4), dtype=np.uint16)

    @property
    def n_pixels(self) -> int:
        """Pixels of the finest level in a pixel of the canvas."""
        return self.steps[0] * self.steps[1]

    @cached_property
    def stain(self) -> Stain:
        """The reference of the stain, from the whole image where that is small, else from 64 squares of tissue."""
        white = _white_point(self._pixels if self._raster is None else self._raster.reshape(3, -1))
        plain = Stain(white, 1.0, self.n_pixels)
        values = np.concatenate([np.empty(0, np.float32), *(plain.of_tissue(sums) for sums in self._samples)])
        top = float(np.percentile(values, _DARKEST)) if len(values) >= _FEWEST_PX else _DENSITY
        return Stain(white, float(np.clip(top, _PALEST, _DARKEST_DENSITY)), self.n_pixels)

    @cached_property
    def range(self) -> tuple[np.ndarray, np.ndarray]:
        """What a thousandth of the pixels is darker and brighter than, by channel, shape (3, 1, 1) each; of the same pixels."""
        low, high = np.percentile(self._pixels, _RANGE, axis=1)
        return low[:, None, None], high[:, None, None]

    @cached_property
    def _raster(self) -> np.ndarray | None:
        """The whole image at a coarse resolution, shape (3, height, width); ``None`` where the image itself is small."""
        return coarse_raster(self.image) if self.shape[0] * self.shape[1] > _WHOLE_PX else None

    @property
    def _pixels(self) -> np.ndarray:
        """Red, green and blue of all samples, shape (3, n)."""
        return np.concatenate([sums.reshape(3, -1) for sums in self._samples], axis=1) / np.float32(self.n_pixels)

    @cached_property
    def _samples(self) -> list[np.ndarray]:
        """Sums of the whole image, or of squares that hold tissue, evenly chosen."""
        height, width = self.shape
        if self._raster is None:
            return [self.read(0, 0, height, width)]
        edge = _SAMPLE_PX
        y, x = (grid.ravel() for grid in np.mgrid[0:height:edge, 0:width:edge])
        centres = np.column_stack([x + edge / 2, y + edge / 2]) * self.scale
        density = _optical_density(self._raster, _white_point(self._raster.reshape(3, -1))[:, None, None])
        tissue = (density.mean(axis=0) > _TISSUE_OD) & (self._raster.max(axis=0) > _BLACK)
        fraction = TissueMask.over(self.image, tissue).fraction(centres, (edge * self.scale[0], edge * self.scale[1]))
        # an image without tissue gives its emptiest squares
        rich = np.flatnonzero(fraction >= min(_LEAST_TISSUE, fraction.max()))
        return [
            self.read(y[k], x[k], min(y[k] + edge, height), min(x[k] + edge, width))
            for k in rich[np.unique(np.linspace(0, len(rich) - 1, _N_SAMPLES).astype(int))]
        ]


@dataclass(frozen=True)
class Stain:
    """White and dark of an image.

    Attributes
    ----------
    white
        Red, green and blue of the background, or of the palest tissue where there is none.
    top
        Optical density in red that 1 % of the tissue exceeds. Haematoxylin absorbs red light, and eosin hardly does.
    n_pixels
        Pixels in a box whose sums are turned into densities.
    """

    white: np.ndarray
    top: float
    n_pixels: int

    def density(self, sums: np.ndarray) -> np.ndarray:
        """Optical density in red over `top`, float32, of sums of shape (3, height, width)."""
        return (self._table(0) / self.top).astype(np.float32)[sums[0]]

    def of_tissue(self, sums: np.ndarray) -> np.ndarray:
        """Optical density in red over `top` of the pixels that are tissue, shape (n,)."""
        each = [self._table(channel).astype(np.float32)[sums[channel]] for channel in range(3)]
        return each[0][sum(each[1:], each[0]) > 3 * _TISSUE_OD] / self.top

    def haematoxylin(self, sums: np.ndarray) -> np.ndarray:
        """Optical density of haematoxylin by colour deconvolution (Ruifrok & Johnston 2001), float32."""
        out = np.zeros(sums.shape[1:], np.float32)
        for channel, weight in enumerate(unmixing_matrix()[:, 0]):
            out += (self._table(channel) * weight).astype(np.float32)[sums[channel]]
        return out

    def _table(self, channel: int) -> np.ndarray:
        """Optical density of each sum."""
        means = np.arange(255 * self.n_pixels + 1) / self.n_pixels
        return _optical_density(means, self.white[channel])


def _steps(pixel_um: float) -> int:
    return max(1, int(_FINE_MPP / pixel_um + 1e-6))


def _optical_density(values: np.ndarray, white: np.ndarray | float) -> np.ndarray:
    return np.log10((np.asarray(white) + 1.0) / (values + 1.0))


def _white_point(pixels: np.ndarray) -> np.ndarray:
    """The typical colour of the brightest tenth of the pixels, of shape (3, n); black ones and white filler are not counted."""
    pixels = pixels[:, pixels.max(axis=0) > _BLACK]
    pixels = pixels[:, ~is_filler(pixels.T)]
    if not pixels.size:
        return np.full(3, 255.0)
    darkest = pixels.min(axis=0)
    bright = pixels[:, darkest >= np.percentile(darkest, _BRIGHT)]
    return np.percentile(bright, _WHITE, axis=1).clip(_LEAST_WHITE, 255.0)
