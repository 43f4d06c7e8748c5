"""Whether x and y of the rows of a section were exchanged: the image tells, where the rows lie on tissue only one way round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialwhisperer._access.images import read_pixels
from spatialwhisperer._access.sections.positions import xy_columns
from spatialwhisperer._messages import warn

if TYPE_CHECKING:
    from spatialwhisperer._access.images import Level, RasterImage
    from spatialwhisperer._access.sections.section import Section

_FEWEST_ROWS = 30
_LONG_SIDE_PX = 600
_MOST_PX = 2**27
_STRIP_PX = 2**24
_SMOOTHED_PX = 5
_BLACK = 16
_BACKGROUND_QUANTILE = 0.05
_TISSUE_OD = 0.04
_MOST_OD = 0.15
_MOST_ON_TISSUE = 0.9
_LEAST_GAIN = 0.08
_LEAST_T = 4.0


@dataclass(frozen=True)
class BothWays:
    """Fractions of the rows that lie on the image and on tissue, as they are and with x and y exchanged.

    Attributes
    ----------
    off, off_swapped
        Fraction of the rows off the image.
    tissue, tissue_swapped
        Fraction on tissue; NaN where the image was not read.
    t
        By how many standard errors rows are darker with x and y exchanged.
    """

    off: float
    off_swapped: float
    tissue: float = float("nan")
    tissue_swapped: float = float("nan")
    t: float = 0.0

    @property
    def is_certain(self) -> bool:
        """Whether rows are off the image as they are, all on it when exchanged, and more of them on tissue then."""
        return self.off > 0 == self.off_swapped and self.tissue_swapped - self.tissue > _LEAST_GAIN

    @property
    def is_likely(self) -> bool:
        """Whether many rows are off the tissue as they are, and clearly more on it when exchanged."""
        better = self.tissue_swapped - self.tissue > _LEAST_GAIN and self.t > _LEAST_T
        return self.tissue < _MOST_ON_TISSUE and better


def check_axes(section: Section, stored: Any) -> None:
    """Refuse rows whose x and y were exchanged without doubt, and warn where it is likely.

    Parameters
    ----------
    section
        The section; one without an image, or with few rows, passes.
    stored
        Positions of the table (AnnData) as they are stored; ``None`` where they are those of an element.

    Raises
    ------
    ValueError
        If rows lie off the image as they are, and all on it with x and y exchanged.
    """
    if section.image is None or len(section.rows) < _FEWEST_ROWS:
        return
    found = both_ways(section.image, section.xy_px)
    if not (found.is_certain or found.is_likely):
        return
    text = (
        f"x and y of section {section.name!r} seem to be exchanged: {100 * found.tissue:.0f} % of the rows lie on tissue as they are, and "
        f"{100 * found.tissue_swapped:.0f} % with x and y exchanged (off the image: {100 * found.off:.0f} % and {100 * found.off_swapped:.0f} %). "
        f"Positions are x (column), y (row). {remedy(section.name, stored)}"
    )
    if found.is_certain:
        raise ValueError(text)
    warn(text)


def remedy(section: str, stored: Any) -> str:
    """The call that exchanges x and y."""
    if isinstance(stored, pd.DataFrame):
        # without names, which would tell x and y as before
        order = (xy_columns(stored) or [0, 1])[::-1]
        return f"Exchange them: adata.obsm['spatial'] = adata.obsm['spatial'].to_numpy()[:, {order}]."
    if stored is not None:
        return "Exchange them: adata.obsm['spatial'] = adata.obsm['spatial'][:, ::-1]."
    return (
        f"Exchange them: swap = Affine([[0, 1, 0], [1, 0, 0], [0, 0, 1]], ('x', 'y'), ('x', 'y')); old = "
        f"get_transformation(sdata[{section!r}], get_all=True); set_transformation(sdata[{section!r}], {{name: Sequence([swap, t]) for name, t "
        "in old.items()}, set_all=True), all from spatialdata.transformations."
    )


def both_ways(image: RasterImage, xy_px: np.ndarray) -> BothWays:
    """Compare positions in full-resolution pixels, shape (n, 2), with the same ones exchanged."""
    swapped = xy_px[:, ::-1]
    off, off_swapped = (float((~on_image(image, xy)).mean()) for xy in (xy_px, swapped))
    darkness = _darkness(image)
    if darkness is None:
        return BothWays(off, off_swapped)
    as_is, exchanged = (_at(darkness, image, xy) for xy in (xy_px, swapped))
    gain = np.minimum(exchanged, _MOST_OD) - np.minimum(as_is, _MOST_OD)
    error = gain.std() / np.sqrt(len(gain)) + 1e-9
    return BothWays(
        off,
        off_swapped,
        float((as_is > _TISSUE_OD).mean()),
        float((exchanged > _TISSUE_OD).mean()),
        float(gain.mean() / error),
    )


def on_image(image: RasterImage, xy_px: np.ndarray) -> np.ndarray:
    """Whether places in full-resolution pixels, shape (n, 2), lie on an image."""
    return ((xy_px >= 0) & (xy_px <= image.size_px)).all(axis=1)


def _darkness(image: RasterImage) -> np.ndarray | None:
    """Optical density above that of the background, of a small copy, shape (height, width); ``None`` where it costs much to read."""
    from scipy.ndimage import uniform_filter

    level = ([each for each in image.levels if max(each.pixels.shape[1:]) >= _LONG_SIDE_PX] or [image.levels[0]])[-1]
    _, height, width = level.pixels.shape
    if height * width > _MOST_PX:
        return None
    step = max(1, max(height, width) // _LONG_SIDE_PX)
    height, width = height // step * step, width // step * step
    rows = max(1, _STRIP_PX // (width * step)) * step
    strips = [_averages(level, top, min(top + rows, height), width, step) for top in range(0, height, rows)]
    small = np.concatenate(strips, axis=1)
    small[:, (small <= _BLACK).all(axis=0)] = 255
    density = -np.log10((small + 1) / 256).mean(axis=0)
    above = density - np.quantile(density, _BACKGROUND_QUANTILE)
    return np.asarray(uniform_filter(above, _SMOOTHED_PX, mode="nearest"))


def _averages(level: Level, top: int, bottom: int, width: int, step: int) -> np.ndarray:
    """Means over some pixels of each square of ``step`` pixels between two rows, shape (3, squares down, squares across)."""
    squares = read_pixels(level, 0, top, width, bottom).reshape(3, (bottom - top) // step, step, width // step, step)
    some = max(1, step // 8)
    return np.asarray(squares[:, :, ::some, :, ::some].mean(axis=(2, 4), dtype=np.float32))


def _at(darkness: np.ndarray, image: RasterImage, xy_px: np.ndarray) -> np.ndarray:
    """Darkness at places; 0 off the image."""
    on = on_image(image, xy_px)
    height, width = darkness.shape
    x, y = (xy_px[on] / image.size_px * [width, height]).astype(int).clip(0, [width - 1, height - 1]).T
    out = np.zeros(len(xy_px))
    out[on] = darkness[y, x]
    return out
