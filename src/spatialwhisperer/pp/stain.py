"""Tissue and background, through squidpy. The only module that imports ``squidpy.experimental``."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._access.images import Level, RasterImage, as_spatialdata, find_image, read_pixels
from spatialwhisperer._annotations import numbers
from spatialwhisperer.encoders.image.stain import (
    BLANK,
    TISSUE_FRACTION,
    TISSUE_PIXEL,
    brightest,
    is_filler,
    optical_density,
    white_point,
)
from spatialwhisperer.statistics.counts import not_counts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from spatialdata import SpatialData

LONG_SIDE_PX = 1500
_STRIP_BYTES = 2**26
_BLACK_BORDER_FRACTION = 0.5
_SMALLEST_SPECIMEN = 0.002
_ALL_SPECIMENS = 10_000
_FLAT = 3.0
_BACKGROUND_PERCENTILE = 95
_DARK = 20
_LEAST_EXCESS = 0.05
_LESS_RED = 25
_FILLED = 0.5
_BAND, _LEAST_BACKGROUND = 15.0, 0.2


@dataclass(frozen=True)
class TissueMask:
    """Where the tissue is, at a coarse resolution.

    Attributes
    ----------
    mask
        Boolean array of shape (height, width) that covers the whole image.
    scale_x, scale_y
        Full-resolution pixels per pixel of the mask.
    """

    mask: np.ndarray
    scale_x: float
    scale_y: float

    @classmethod
    def over(cls, image: RasterImage, mask: np.ndarray) -> TissueMask:
        """Lay a mask over the whole of an image, whatever the resolution of the mask.

        Raises
        ------
        TypeError
            If the mask does not hold numbers.
        ValueError
            If it has another shape than the image, or holds something else than whole numbers from 0: which of two probabilities is tissue,
            the caller must say.
        """
        mask = numbers("A tissue mask", mask)
        if mask.ndim != 2 or 0 in mask.shape:
            raise ValueError(
                f"A tissue mask must have shape (height, width) and cover the whole image; found shape {mask.shape}."
            )
        width, height = image.size_px
        if abs(np.log((mask.shape[1] / mask.shape[0]) / (width / height))) > 0.1:
            raise ValueError(
                f"The tissue mask of shape {mask.shape} does not have the proportions of image {image.name!r} "
                f"({height:.0f} x {width:.0f} pixels). Pass a mask that covers the whole image, rows first."
            )
        if mask.dtype.kind not in "bu" and (problem := not_counts(mask.ravel())):
            raise ValueError(
                "A tissue mask holds True and False, or whole numbers of which 0 is the background; this one holds "
                f"{problem}. Threshold it first: tissue=mask > 0.5."
            )
        return cls(mask.astype(bool), width / mask.shape[1], height / mask.shape[0])

    def fraction(self, centres_px: np.ndarray, size_px: float | tuple[float, float]) -> np.ndarray:
        """Fraction of tissue in boxes around centres of shape (n, 2), shape (n,). Outside the image there is no tissue.

        Parameters
        ----------
        centres_px
            x and y of the centres in full-resolution pixels.
        size_px
            Edge of the boxes in full-resolution pixels, or their width and height.
        """
        total = np.zeros(tuple(n + 1 for n in self.mask.shape), np.int64)
        total[1:, 1:] = self.mask.cumsum(0, dtype=np.int64).cumsum(1)
        sizes = np.broadcast_to(size_px, 2)
        (x0, x1), (y0, y1) = (
            _cells(centres_px[:, axis], sizes[axis], scale) for axis, scale in enumerate((self.scale_x, self.scale_y))
        )
        area = (x1 - x0) * (y1 - y0)
        height, width = self.mask.shape
        x0, x1, y0, y1 = x0.clip(0, width), x1.clip(0, width), y0.clip(0, height), y1.clip(0, height)
        return (total[y1, x1] - total[y0, x1] - total[y1, x0] + total[y0, x0]) / area


def tissue_mask(data: AnnData | SpatialData, image_key: str) -> TissueMask:
    """Find the tissue of one image with Otsu's threshold of the green channel (:func:`squidpy.experimental.im.detect_tissue`).

    Haematoxylin and eosin both absorb green the most. What has none of their colours, such as marks of a black, blue or green pen, a dark
    margin or fiducial frames, is background and does not move the threshold (:func:`stain_darkness`). The image is read at a coarse
    level, so that the time does not depend on its size. Nothing is added to ``data``. A background that was masked black counts as
    background, as long as black fills most of the border of the image. So does a pure white margin.

    Parameters
    ----------
    data
        Object with the image.
    image_key
        Image of a SpatialData, library of an AnnData.

    Returns
    -------
    The mask and its scale. Connected areas below 0.2 % of the image are left out.

    Raises
    ------
    KeyError
        If there is no such image.

    Notes
    -----
    The threshold assumes that much of the image is background. Where half of it or more has the colour of the stains, all of that is
    tissue, so that its paler half does not count as background. Layers that are much paler than the rest of the tissue may fall below the
    threshold, and marks of a red pen count as tissue: make the mask yourself then, and pass it to :func:`spatialwhisperer.pp.tiles`.
    """
    image = find_image(data, image_key)
    raster = background_for_black(background_for_white(coarse_raster(image)))
    mask, has_stain = _detect(raster), stained(raster)
    return TissueMask.over(image, mask | has_stain if has_stain.mean() >= _FILLED else mask)


def stained(raster: np.ndarray) -> np.ndarray:
    """Which pixels are darker than the background and have the colour of haematoxylin or eosin, Boolean (height, width)."""
    red, green, blue = density = _density(raster)
    # both stains absorb more green than red and blue together, on average
    return (density.mean(axis=0) > TISSUE_PIXEL) & (green - (red + blue) / 2 >= _LEAST_EXCESS * green)


def _density(raster: np.ndarray) -> np.ndarray:
    """Optical density of uint8 (3, height, width) against the white point, float32; 0 where nothing is shown."""
    pixels = raster.reshape(3, -1).T
    shown = pixels.max(axis=1) > BLANK
    if not shown.any():
        return np.zeros(raster.shape, np.float32)
    return (optical_density(pixels, white_point(pixels[shown])) * shown[:, None]).T.reshape(raster.shape)


def stain_darkness(raster: np.ndarray) -> np.ndarray:
    """Green channel against that of the background, white where the colour is neither that of haematoxylin nor of eosin.

    Both stains absorb more green than red and blue together, on average. Dark pixels that do not are black or grey, or have less red than
    green and are blue or green. Brown ones, such as pigment, stay. An image in which nothing has the colour of the stains, such as a grey
    one, is taken as it is.

    Parameters
    ----------
    raster
        uint8 of shape (3, height, width).

    Returns
    -------
    uint8 of shape (height, width), 255 the background.
    """
    background = np.percentile(raster.reshape(3, -1), _BACKGROUND_PERCENTILE, axis=1).clip(1)
    red, green, blue = np.minimum(raster / background[:, None, None], 1) * 255
    absorbed = 255 - green
    excess = (red + blue) / 2 - green
    grey = (excess < _LEAST_EXCESS * absorbed) & (green - blue < _LEAST_EXCESS * absorbed)
    dark = absorbed > _DARK
    other = dark & (grey | (green - red > _LESS_RED))
    if (dark & ~other).mean() >= _SMALLEST_SPECIMEN:
        green = np.where(other, 255, green)
    return green.round().astype(np.uint8)


def coarse_raster(image: RasterImage) -> np.ndarray:
    """Read the whole image as uint8 of shape (3, height, width), at most `LONG_SIDE_PX` on the long side."""
    fine = [level for level in image.levels if max(level.pixels.shape[1:]) >= LONG_SIDE_PX]
    level = fine[-1] if fine else image.levels[0]
    _, height, width = level.pixels.shape
    step = max(1, -(-max(height, width) // LONG_SIDE_PX))
    rows = step * int(np.clip(_STRIP_BYTES // (3 * step * width), 1, 256))
    return np.concatenate([_averaged_strip(level, top, rows, step) for top in range(0, height, rows)], axis=1)


def _averaged_strip(level: Level, top: int, rows: int, step: int) -> np.ndarray:
    """Mean over squares of ``step`` pixels, for some rows of pixels; incomplete squares at the edges are kept."""
    _, height, width = level.pixels.shape
    strip = read_pixels(level, 0, top, width, min(height, top + rows))
    down, across = np.arange(0, strip.shape[1], step), np.arange(0, width, step)
    sums = np.add.reduceat(np.add.reduceat(strip, down, axis=1, dtype=np.uint32), across, axis=2)
    counts = np.diff([*down, strip.shape[1]])[:, None] * np.diff([*across, width])
    return (sums // counts).astype(np.uint8)


def background_for_black(raster: np.ndarray) -> np.ndarray:
    """Turn a background that was masked black into that of the rest, or white where no rest of it is seen; others stay as they are."""
    black = raster.max(axis=0) <= BLANK
    border = np.concatenate([black[0], black[-1], black[:, 0], black[:, -1]])
    if black.all() or border.mean() <= _BLACK_BORDER_FRACTION:
        return raster
    shown = raster[:, ~black].T
    background = np.array(white_point(shown)).round().astype(np.uint8)
    # the palest tissue is no background
    if np.mean(shown.min(axis=1) > background.min() - _BAND) < _LEAST_BACKGROUND:
        background[:] = 255
    return np.where(black, background[:, None, None], raster)


def background_for_white(raster: np.ndarray) -> np.ndarray:
    """Turn a pure white margin into background, which the threshold would else tell from it; other images are returned unchanged."""
    pixels = raster.reshape(3, -1).T
    filler = is_filler(pixels)
    if not filler.any():
        return raster
    background = brightest(pixels[~filler]).astype(np.uint8)
    return np.where(filler.reshape(raster.shape[1:]), background[:, None, None], raster)


def _detect(raster: np.ndarray) -> np.ndarray:
    if raster.std() < _FLAT:  # one colour: Otsu would take all of it for tissue
        return np.zeros(raster.shape[1:], bool)
    from squidpy.experimental.im import detect_tissue

    sdata, name = as_spatialdata(np.repeat(stain_darkness(raster)[None], 3, axis=0))
    with _quiet("spatialdata._logging"), warnings.catch_warnings():
        # of squidpy about scikit-image, which the caller can do nothing about
        warnings.filterwarnings(
            "ignore", message="Parameter `area_threshold`|Parameter `min_size`", category=FutureWarning
        )
        labels = detect_tissue(
            sdata,
            name,
            channel_format="rgb",
            min_specimen_area_frac=_SMALLEST_SPECIMEN,
            # without a number, a second threshold drops the smaller one of two pieces of tissue
            n_samples=_ALL_SPECIMENS,
            # it would take the background for the dark part where dark corners, such as those of a camera, say so
            corners_are_background=False,
            inplace=False,
        )
    return _without_background(np.asarray(labels), raster)


def _without_background(labels: np.ndarray, raster: np.ndarray) -> np.ndarray:
    """Where the pieces are that show tissue, by the rule for tiles: a threshold divides empty background too."""
    from scipy.ndimage import mean

    pieces = np.arange(1, labels.max(initial=0) + 1)
    fraction = mean(_density(raster).mean(axis=0) > TISSUE_PIXEL, labels, pieces)
    return np.concatenate([[False], np.asarray(fraction) >= TISSUE_FRACTION])[labels]


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _cells(centre: np.ndarray, size_px: float, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """First mask pixel under each interval and the one after the last; at least one pixel."""
    first = np.floor((centre - size_px / 2) / scale + 0.5).astype(np.int64)
    last = np.floor((centre + size_px / 2) / scale + 0.5).astype(np.int64)
    return first, np.maximum(last, first + 1)
