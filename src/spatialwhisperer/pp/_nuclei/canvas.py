"""An image at the resolution at which nuclei are looked for, read part by part, and the reference of its stain."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._access.images import read_pixels
from spatialwhisperer.encoders.image.stain_texture import unmixing_matrix
from spatialwhisperer.pp.stain import TissueMask, coarse_raster

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from spatialwhisperer._access.images import RasterImage

COARSEST_MPP = 0.75
"""Microns per pixel above which nuclei are not looked for."""

_FINE_MPP = 0.5
_BLACK = 20
_WHOLE_PX = 2**22
_SAMPLE_PX, _N_SAMPLES = 256, 64
_TISSUE_OD, _LEAST_TISSUE = 0.05, 0.1
_BRIGHT, _WHITE, _DARKEST = 90, 60, 99
_LEAST_WHITE = 120.0
_FEWEST_PX = 500
_DENSITY, _PALEST, _DARKEST_DENSITY = 0.7, 0.3, 1.5


class Canvas:
    """An image, averaged over squares of whole pixels as long as these are at most 0.5 µm wide.

    The finest level of a pyramid is read, so that a flat image and a pyramid give the same pixels. Black pixels (at most 20 in red,
    green and blue) are masked background, and become white.

    Attributes
    ----------
    step
        Pixels of the finest level along a pixel of the canvas.
    mpp
        Microns per pixel of the canvas.
    shape
        Height and width.
    scale
        Full-resolution pixels per pixel of the canvas, along x and y.
    """

    def __init__(self, image: RasterImage, mpp: float) -> None:
        self.image, self._level = image, image.levels[0]
        own = mpp * float(np.sqrt(self._level.scale_x * self._level.scale_y))
        if own > COARSEST_MPP:
            raise ValueError(
                f"Nuclei are found at {COARSEST_MPP:g} µm per pixel or finer, and image {image.name!r} has {own:.3g}. Read the slide at "
                "its full resolution (sw.io.read_slide), or correct mpp=…."
            )
        self.step = max(1, int(_FINE_MPP / own + 1e-6))
        self.mpp = own * self.step
        _, height, width = self._level.pixels.shape
        self.shape = (-(-height // self.step), -(-width // self.step))
        self.scale = (self._level.scale_x * self.step, self._level.scale_y * self.step)

    def read(self, top: int, left: int, bottom: int, right: int) -> np.ndarray:
        """Sums of red, green and blue over the pixels of each square, uint16, shape (3, bottom - top, right - left)."""
        _, height, width = self._level.pixels.shape
        step = self.step
        block = read_pixels(self._level, left * step, top * step, min(right * step, width), min(bottom * step, height))
        black = block.max(axis=0) <= _BLACK
        if black.any():
            block = np.where(black, np.uint8(255), block)
        if step == 1:
            return block.astype(np.uint16)
        # the last squares may reach beyond the image
        rows, columns = (
            (b - a) * step - n for a, b, n in zip((top, left), (bottom, right), block.shape[1:], strict=True)
        )
        block = np.pad(block, ((0, 0), (0, rows), (0, columns)), mode="edge") if rows or columns else block
        return block.reshape(3, bottom - top, step, right - left, step).sum(axis=(2, 4), dtype=np.uint16)

    @cached_property
    def stain(self) -> Stain:
        """The reference of the stain, from the whole image or 64 squares of tissue."""
        height, width = self.shape
        if height * width <= _WHOLE_PX:
            whole = self.read(0, 0, height, width)
            means = (whole / np.float32(self.step**2)).reshape(3, -1)
            return self._stain(_white_point(means[:, means.max(axis=0) > _BLACK]), [whole])
        raster = coarse_raster(self.image)
        seen = raster.max(axis=0) > _BLACK
        white = _white_point(raster[:, seen])
        tissue = (_optical_density(raster, white[:, None, None]).mean(axis=0) > _TISSUE_OD) & seen
        return self._stain(white, self._samples(tissue))

    def _stain(self, white: np.ndarray, samples: Iterable[np.ndarray]) -> Stain:
        plain = Stain(white, 1.0, self.step)
        values = np.concatenate([np.empty(0, np.float32), *(plain.of_tissue(sums) for sums in samples)])
        top = float(np.percentile(values, _DARKEST)) if len(values) >= _FEWEST_PX else _DENSITY
        return Stain(white, float(np.clip(top, _PALEST, _DARKEST_DENSITY)), self.step)

    def _samples(self, tissue: np.ndarray) -> Iterator[np.ndarray]:
        """Squares that hold tissue, evenly chosen; the mask covers the whole image."""
        edge = _SAMPLE_PX
        starts = [np.arange(0, max(length - edge, 1), edge) for length in self.shape]
        y, x = (grid.ravel() for grid in np.meshgrid(*starts, indexing="ij"))
        centres = np.column_stack([x + edge / 2, y + edge / 2]) * self.scale
        fraction = TissueMask.over(self.image, tissue).fraction(centres, edge * self.scale[0])
        rich = np.flatnonzero(fraction >= _LEAST_TISSUE)
        chosen = np.unique(np.linspace(0, max(len(rich) - 1, 0), _N_SAMPLES).astype(int))
        for k in rich[chosen] if len(rich) else ():
            yield self.read(y[k], x[k], min(y[k] + edge, self.shape[0]), min(x[k] + edge, self.shape[1]))


@dataclass(frozen=True)
class Stain:
    """White and dark of an image.

    Attributes
    ----------
    white
        Red, green and blue of the background, or of the palest tissue where there is none.
    top
        Optical density in red that 1 % of the tissue exceeds. Haematoxylin absorbs red light, and eosin hardly does.
    step
        Pixels along a square whose sums are turned into densities.
    """

    white: np.ndarray
    top: float
    step: int

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
        means = np.arange(255 * self.step**2 + 1) / self.step**2
        return _optical_density(means, self.white[channel])


def _optical_density(values: np.ndarray, white: np.ndarray | float) -> np.ndarray:
    return np.log10((np.asarray(white) + 1.0) / (values + 1.0))


def _white_point(pixels: np.ndarray) -> np.ndarray:
    """The typical colour of the brightest tenth of the pixels, of shape (3, n)."""
    if not pixels.size:
        return np.full(3, 255.0)
    darkest = pixels.min(axis=0)
    bright = pixels[:, darkest >= np.percentile(darkest, _BRIGHT)]
    return np.percentile(bright, _WHITE, axis=1).clip(_LEAST_WHITE, 255.0)
