"""The stains of one image: its white point, the colours of its stains, and how strong they are.

Estimated by the method of Macenko et al. 2009 (ISBI, 1107): the colours of haematoxylin and eosin are the extreme directions of the
optical densities of tissue, in the plane that holds most of their variance.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

import numpy as np

REFERENCE_STAINS = ((0.5626, 0.7201, 0.4062), (0.2159, 0.8012, 0.5581))
"""Optical density of haematoxylin and eosin in R, G and B, as Macenko et al. 2009 give them."""

REFERENCE_STRENGTHS = (0.856, 0.448)
"""99th percentile of haematoxylin and eosin in tissue, in decadic optical density, of the same reference."""

BLANK = 20
"""Pixels of this value or less in R, G and B are masked background."""

TISSUE_PIXEL, TISSUE_FRACTION = 0.06, 0.05
"""Mean optical density above which a pixel shows tissue, and the fraction of such pixels from which on a tile or piece does."""

# Ruifrok & Johnston 2001 (Anal Quant Cytol Histol 23:291): optical density of the stains in R, G and B
HAEMATOXYLIN = (0.650, 0.704, 0.286)
EOSIN = (0.072, 0.990, 0.105)

_WHITEST = 0.01
_TISSUE_OD = 0.1
_EXTREME = 1.0
_STRONGEST = 99.0
_FEWEST_UM2 = 20_000.0
_MOST_DEGREES = 25.0
_LEAST_DEGREES = 8.0
_MOST_FACTOR = 4.0
_LEAST_WHITE = 190.0
_PURE, _NEARLY_PURE, _MOST_NEARLY_PURE = 255, 250, 0.1
_BAND, _LEAST_PEAK = 15, 0.5


@dataclass(frozen=True)
class SlideStain:
    """White point, colours and strengths of the stains of one image.

    Attributes
    ----------
    white
        Intensity of the empty background in R, G and B, 0 to 255.
    stains
        Unit vectors of optical density in R, G and B: haematoxylin, then eosin.
    strengths
        99th percentile of haematoxylin and of eosin over tissue, in decadic optical density.
    source
        Whether the stains were estimated from the image, or are the reference because the image does not tell.
    """

    white: tuple[float, float, float]
    stains: tuple[tuple[float, float, float], tuple[float, float, float]]
    strengths: tuple[float, float]
    source: Literal["image", "reference"] = "image"

    @classmethod
    def reference(cls, white: tuple[float, float, float] = (255.0, 255.0, 255.0)) -> SlideStain:
        """The reference stains, on a background of a given colour."""
        h, e = (_unit(np.array(stain)) for stain in REFERENCE_STAINS)
        return cls(white, (_triple(h), _triple(e)), REFERENCE_STRENGTHS, "reference")

    @classmethod
    def estimate(cls, tiles: np.ndarray, *, mpp: float) -> SlideStain:
        """Estimate the stains from tiles that cover an image.

        Masked background and a pure white margin do not count. The estimate falls back on the reference stains, with the white point of
        the image, where there is too little tissue, or where what it finds are not the colours of haematoxylin and eosin.

        Parameters
        ----------
        tiles
            uint8 (n, 3, p, p) RGB.
        mpp
            Microns per pixel of the tiles.
        """
        rgb = tiles.transpose(0, 2, 3, 1).reshape(-1, 3)
        rgb = rgb[rgb.max(axis=1) > BLANK]
        if not len(rgb):
            return cls.reference()
        white = white_point(rgb[~is_filler(rgb)])
        density = optical_density(rgb, white)
        tissue = density[density.mean(axis=1) > _TISSUE_OD]
        if len(tissue) * mpp**2 < _FEWEST_UM2:
            return cls.reference(white)
        stains = _extremes(tissue)
        if stains is None:
            return cls.reference(white)
        h, e = stains
        amounts = tissue @ _inverse(h, e)
        strengths = np.percentile(amounts[:, :2], _STRONGEST, axis=0) / REFERENCE_STRENGTHS
        if not ((strengths > 1 / _MOST_FACTOR) & (strengths < _MOST_FACTOR)).all():
            return cls.reference(white)
        first, second = strengths * REFERENCE_STRENGTHS
        return cls(white, (_triple(h), _triple(e)), (float(first), float(second)))

    @cached_property
    def to_reference(self) -> np.ndarray:
        """Matrix that turns optical densities of the image into those of the reference, float32 (3, 3), applied from the right."""
        amounts = _inverse(*(np.array(stain) for stain in self.stains))
        factors = np.append(np.array(REFERENCE_STRENGTHS) / self.strengths, 1.0)
        return (amounts * factors @ _basis(*(_unit(np.array(stain)) for stain in REFERENCE_STAINS))).astype(np.float32)

    def normalize(self, tile: np.ndarray) -> np.ndarray:
        """Intensities of a tile as if it were of the reference stains on a white background.

        Parameters
        ----------
        tile
            uint8 (3, h, w) RGB. Masked background becomes white.

        Returns
        -------
        float32 (3, h, w), 0 to 255.
        """
        from spatialwhisperer.encoders.image._texture import kernels

        return kernels.restain(tile, self.densities, self.to_reference, BLANK)

    @cached_property
    def densities(self) -> np.ndarray:
        """Optical density of each of the 256 intensities in R, G and B, float32 (3, 256); 0 for the background and what is brighter."""
        return np.ascontiguousarray(optical_density(np.arange(256)[:, None], self.white).T)


@cache
def unmixing_matrix(
    haematoxylin: tuple[float, float, float] = HAEMATOXYLIN, eosin: tuple[float, float, float] = EOSIN
) -> np.ndarray:
    """Matrix from optical densities in R, G and B to haematoxylin, eosin and what is left, float32 (3, 3), applied from the right."""
    inverse = _inverse(_unit(np.array(haematoxylin)), _unit(np.array(eosin))).astype(np.float32)
    inverse.flags.writeable = False
    return inverse


def optical_density(rgb: np.ndarray, white: tuple[float, float, float]) -> np.ndarray:
    """Decadic optical density of intensities (n, 3), float32; 0 for the background and what is brighter."""
    background = np.array(white, np.float32) + 1
    return np.maximum(np.log10(background) - np.log10(rgb.astype(np.float32) + 1), 0).astype(np.float32)


def is_filler(rgb: np.ndarray) -> np.ndarray:
    """Which pixels (n, 3) are pure white that was laid around or under an image whose background is darker, Boolean (n,).

    Exports are padded with white, and transparent parts are laid over it. Both would be taken for the white point. A scanner that is
    exposed until its background is white gives such pixels too; they are no filler. The two differ in the other pixels, by the darkest of
    R, G and B: around filler hardly any of them is nearly white, and the background is a peak well below.
    """
    darkest = rgb.min(axis=1)
    pure = darkest == _PURE
    rest = darkest[~pure]
    if len(rest) in (0, len(rgb)):
        return np.zeros(len(rgb), bool)
    palest = rest[rest >= np.quantile(rest, 1 - _WHITEST)]
    background = np.median(palest)
    apart = np.mean(palest >= _NEARLY_PURE) < _MOST_NEARLY_PURE
    near, below = (np.count_nonzero((rest > top - _BAND) & (rest <= top)) for top in (background, background - _BAND))
    return pure & bool(apart and near >= _LEAST_PEAK * below)


def brightest(rgb: np.ndarray) -> np.ndarray:
    """Median of the brightest hundredth of the pixels (n, 3)."""
    darkest = rgb.min(axis=1)
    return np.median(rgb[darkest >= np.quantile(darkest, 1 - _WHITEST)], axis=0)


def white_point(rgb: np.ndarray) -> tuple[float, float, float]:
    """Median of the brightest hundredth of the pixels (n, 3); white where these are tissue, too dark for a background."""
    white = brightest(rgb)
    return _triple(white) if white.min() >= _LEAST_WHITE else (255.0, 255.0, 255.0)


def _extremes(tissue: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Directions of haematoxylin and eosin in optical densities (n, 3); ``None`` where they are not near those of the reference."""
    plane = np.linalg.eigh(np.cov(tissue.T.astype(np.float64)))[1][:, [2, 1]]
    plane = plane * np.where(plane.sum(axis=0) < 0, -1, 1)
    along = tissue @ plane
    angles = np.percentile(np.arctan2(along[:, 1], along[:, 0]), [_EXTREME, 100 - _EXTREME])
    first, second = (_unit(np.abs(plane @ [np.cos(a), np.sin(a)])) for a in angles)
    # haematoxylin absorbs more red
    h, e = (first, second) if first[0] > second[0] else (second, first)
    near = all(
        _degrees(found, _unit(np.array(known))) <= _MOST_DEGREES
        for found, known in zip((h, e), REFERENCE_STAINS, strict=True)
    )
    return (h, e) if near and _degrees(h, e) >= _LEAST_DEGREES else None


def _basis(h: np.ndarray, e: np.ndarray) -> np.ndarray:
    """Unit vectors of haematoxylin, eosin and the direction that is orthogonal to both, as rows."""
    return np.stack([h, e, _unit(np.cross(h, e))])


def _inverse(h: np.ndarray, e: np.ndarray) -> np.ndarray:
    return np.linalg.inv(_basis(h, e))


def _degrees(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ b, -1, 1))))


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v)


def _triple(v: np.ndarray) -> tuple[float, float, float]:
    return float(v[0]), float(v[1]), float(v[2])
