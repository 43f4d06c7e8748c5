"""Pixels of a file as arrays of shape (3, y, x) that read what is asked for, and no more."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from spatialwhisperer._access.elements.halving import halved, halved_lazily

if TYPE_CHECKING:
    from collections.abc import Callable

    from spatialwhisperer._access.elements.pixel_size import PixelSize

    Convert = Callable[[np.ndarray], np.ndarray]

CHUNK_PX = 1024
_SMALLEST_LEVEL_PX = 1024
_TURNS: dict[int, Callable[[Any], Any]] = {
    1: lambda a: a,
    2: lambda a: a[:, :, ::-1],
    3: lambda a: a[:, ::-1, ::-1],
    4: lambda a: a[:, ::-1, :],
    5: lambda a: a.transpose(0, 2, 1),
    6: lambda a: a.transpose(0, 2, 1)[:, :, ::-1],
    7: lambda a: a.transpose(0, 2, 1)[:, ::-1, ::-1],
    8: lambda a: a.transpose(0, 2, 1)[:, ::-1, :],
}
"""What the orientations of EXIF and TIFF ask for, on arrays of shape (3, y, x)."""


@dataclass(frozen=True)
class SlideFile:
    """What a file holds.

    Attributes
    ----------
    levels
        Dask arrays of shape (3, y, x), finest first.
    pixel
        Size of a pixel of the finest level, or ``None``.
    remarks
        What was done to the pixels, for the user.
    """

    levels: tuple[Any, ...]
    pixel: PixelSize | None
    remarks: tuple[str, ...] = ()


class Pixels(ABC):
    """An image of a file, sliced like an array of shape (3, y, x).

    Attributes
    ----------
    shape, dtype, ndim
        As of an array.
    """

    ndim = 3

    def __init__(self, height: int, width: int, dtype: Any, convert: Convert) -> None:
        self.shape = (3, height, width)
        self.dtype = np.dtype(dtype)
        self._convert = convert

    def __getitem__(self, key: Any) -> np.ndarray:
        channel, y, x = key
        rows, columns = (range(size)[part] for part, size in zip((y, x), self.shape[1:], strict=True))
        if not len(rows) or not len(columns):
            return np.empty((3, len(rows), len(columns)), self.dtype)[channel]
        block = self._convert(self.read(min(rows), max(rows) + 1, min(columns), max(columns) + 1))
        return np.moveaxis(block, -1, 0)[channel, :: rows.step, :: columns.step]

    @abstractmethod
    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """Values of a box as they are stored, shape (bottom - top, right - left, samples)."""


def lazy(pixels: Pixels, tile: tuple[int, int] = (1, 1)) -> Any:
    """A dask array over the pixels, in chunks of whole tiles of the file."""
    import dask.array as da

    chunks = tuple(
        min(size, edge * max(1, round(CHUNK_PX / edge))) for size, edge in zip(pixels.shape[1:], tile, strict=True)
    )
    meta = np.empty((0, 0, 0), pixels.dtype)
    return da.from_array(pixels, chunks=(3, *chunks), name=f"slide-{uuid4().hex}", asarray=False, lock=False, meta=meta)


def turned(array: Any, orientation: int) -> Any:
    """An array of shape (3, y, x) as its orientation asks for; see EXIF. An orientation that does not exist changes nothing."""
    return _TURNS.get(orientation, _TURNS[1])(array)


def swaps_axes(orientation: int) -> bool:
    """Whether an orientation exchanges width and height."""
    return orientation in (5, 6, 7, 8)


class HalvedPixels(Pixels):
    """A picture in memory at half its size, made when it is first read and kept from then on."""

    def __init__(self, source: Pixels) -> None:
        _, height, width = source.shape
        super().__init__(height // 2, width // 2, source.dtype, as_stored)
        self.source = source
        self._halved: np.ndarray | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_halved": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        with self._lock:
            if self._halved is None:
                self._halved = halved(self.source)
        return self._halved[top:bottom, left:right]


def halves(pixels: Pixels) -> tuple[Pixels, ...]:
    """A picture in memory and coarser ones, each half as large, until both edges are small."""
    levels = [pixels]
    while max(levels[-1].shape[1:]) > 2 * _SMALLEST_LEVEL_PX:
        levels.append(HalvedPixels(levels[-1]))
    return tuple(levels)


def with_pyramid(array: Any) -> tuple[Any, ...]:
    """The array and coarser levels, each half as large, until both edges are small. Nothing is computed yet."""
    levels = [array]
    while max(levels[-1].shape[1:]) > 2 * _SMALLEST_LEVEL_PX:
        levels.append(halved_lazily(levels[-1], CHUNK_PX))
    return tuple(levels)


# ------------------------------------------------------------------------------------------------- colours


def as_stored(block: np.ndarray) -> np.ndarray:
    """The first three samples."""
    return block[..., :3]


def from_cmyk(block: np.ndarray) -> np.ndarray:
    """Inks of an unsigned type as RGB, without a colour profile."""
    top = np.iinfo(block.dtype).max
    paper = (top - block[..., :3].astype(np.uint64)) * (top - block[..., 3:4].astype(np.uint64))
    return ((paper + top // 2) // top).astype(block.dtype)


class FromPalette:
    """Indices as the colours of a palette of shape (3, n), uint16."""

    def __init__(self, palette: np.ndarray) -> None:
        self.colours = (np.asarray(palette).T >> 8).astype(np.uint8)

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Colour of each pixel."""
        return self.colours[block[..., 0]]
