"""A look at the intensities of an image before tiles are read: whether its values use the range that their type states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._access.images import load_block, load_blocks
from spatialwhisperer._messages import warn

if TYPE_CHECKING:
    from spatialwhisperer._access.images import Level, RasterImage
    from spatialwhisperer._access.sections.section import Section

_WHOLE_PX = 2**21
_WINDOW_PX = 256
_N_WINDOWS = 9
_PLACES = (0.2, 0.5, 0.8)
_12_BIT = 4095
_DARK = 0.25
_BLACK_FRACTION = 0.05
_BLACK_TILE = 0.5
_EVERY_PX = 4


def check_intensity(section: Section) -> None:
    """Refuse an image that holds nothing or other numbers than its type states, and warn of one that is dark or black in part.

    The coarsest level of the image is read, or where that is large up to nine windows of it: around rows of the section, or all over
    the image where it has none.

    Parameters
    ----------
    section
        The section; one without an image passes.

    Raises
    ------
    ValueError
        If all values are NaN or 0, or 12-bit values are stored as 16-bit ones.
    """
    if section.image is None:
        return
    values = _sample(section.image, section.xy_px)
    where = f"Image {section.image.name!r} of section {section.name!r}"
    again = "A chunk is missing or was never written: read or write the image again."
    if values.dtype.kind == "f" and np.isnan(values).all():
        raise ValueError(f"{where} holds nothing but NaN where it was looked at. {again}")
    top = float(np.nanmax(values))
    if top == 0:
        raise ValueError(f"{where} is black (0) wherever it was looked at. {again}")
    full = float(np.iinfo(values.dtype).max) if values.dtype.kind == "u" else 1.0
    if values.dtype == np.uint16 and top <= _12_BIT:
        bits = max(8, int(top).bit_length())
        shifted = "pixels" if bits == 8 else f"(pixels // {2 ** (bits - 8)})"
        raise ValueError(
            f"{where} is uint16 and its values reach {top:g} of 65535, so it would be read as almost black: these are {bits}-bit values. "
            f"Store it as 8-bit: {shifted}.astype('uint8')."
        )
    if top < _DARK * full:
        warn(
            f"{where} is dark: its values reach {top:g} of {full:g}. Features of H&E need the full range; stretch the image first."
        )
    black = float((values == 0).all(axis=0).mean())
    if black > _BLACK_FRACTION:
        warn(
            f"{100 * black:.0f} % of the pixels of {where[0].lower()}{where[1:]} are exactly black (0), which no stained tissue is. A chunk is "
            "missing, or the border was filled with black: features of tiles there say nothing. Fill it with white, or drop the rows."
        )


class BlackTiles:
    """Counts tiles of which most is exactly black: a chunk may be missing in the level that is read, and in no other.

    Attributes
    ----------
    n, black
        Tiles that were looked at, and those of them that are black.
    first
        Row of the first black one.
    """

    def __init__(self) -> None:
        self.n = self.black = 0
        self.first: int | None = None

    def look(self, rows: np.ndarray, tiles: np.ndarray) -> None:
        """Count tiles, uint8, shape (k, 3, y, x), of rows of the table."""
        some = tiles[:, :, ::_EVERY_PX, ::_EVERY_PX]
        black = (some == 0).all(axis=1).mean(axis=(1, 2)) > _BLACK_TILE
        self.n, self.black = self.n + len(black), self.black + int(black.sum())
        if self.first is None and black.any():
            self.first = int(rows[black][0])

    @property
    def _what(self) -> str:
        return f"{self.black} of {self.n} tiles (such as that of row {self.first}) are exactly black (0), which no stained tissue is"

    def check(self) -> None:
        """Refuse tiles that are all black.

        Raises
        ------
        ValueError
            If all tiles are black.
        """
        if self.black and self.black == self.n:
            raise ValueError(f"{self._what}. A chunk is missing or was never written: read or write the image again.")

    def report(self) -> None:
        """Warn of black tiles, if there are any."""
        if not self.black:
            return
        warn(
            f"{self._what}. A chunk of the image is missing, or was filled with black: what is computed of these tiles says nothing."
        )


def _sample(image: RasterImage, xy_px: np.ndarray) -> np.ndarray:
    """Stored values of some pixels, shape (3, n)."""
    level = image.levels[-1]
    _, height, width = level.pixels.shape
    if height * width <= _WHOLE_PX:
        return load_block(level, slice(0, height), slice(0, width)).reshape(3, -1)
    places = xy_px[np.isfinite(xy_px).all(axis=1)]
    if not len(places):
        places = np.array([(x * image.size_px[0], y * image.size_px[1]) for y in _PLACES for x in _PLACES])
    some = np.unique(np.linspace(0, max(len(places) - 1, 0), _N_WINDOWS).astype(int))
    blocks = load_blocks(level, [_window(level, *place) for place in places[some]])
    return np.concatenate([block.reshape(3, -1) for block in blocks], axis=1)


def _window(level: Level, x: float, y: float) -> tuple[slice, slice]:
    """Rows and columns around a place in full-resolution pixels, as far as the image reaches."""
    _, height, width = level.pixels.shape
    left, top = (
        int(np.clip(at / scale - _WINDOW_PX / 2, 0, max(length - _WINDOW_PX, 0)))
        for at, scale, length in ((x, level.scale_x, width), (y, level.scale_y, height))
    )
    return slice(top, min(top + _WINDOW_PX, height)), slice(left, min(left + _WINDOW_PX, width))
