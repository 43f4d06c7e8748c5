"""Files of slide scanners (SVS, NDPI, MRXS, …), through openslide."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.elements.channels import on_white
from spatialwhisperer._access.elements.pixel_size import of_openslide
from spatialwhisperer._messages import require
from spatialwhisperer.io._formats.pixels import Pixels, SlideFile, lazy

if TYPE_CHECKING:
    from pathlib import Path

SUFFIXES = (
    ".svs",
    ".svslide",
    ".ndpi",
    ".mrxs",
    ".scn",
    ".bif",
    ".vms",
    ".vmu",
    ".czi",
    ".dcm",
)
_EXTRA = "wsi"


class ScannerPixels(Pixels):
    """One level of a slide. The file is opened when pixels are read, once in each process."""

    def __init__(self, path: Path, level: int, size: tuple[int, int], downsample: tuple[float, float]) -> None:
        super().__init__(*size, np.uint8, on_white)
        self.path, self.level, self.downsample = path, level, downsample
        self._slide: Any = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_slide": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        with self._lock:
            if self._slide is None:
                self._slide = require("openslide", extra=_EXTRA).OpenSlide(str(self.path))
        down_y, down_x = self.downsample
        corner = (round(left * down_x), round(top * down_y))
        return np.asarray(self._slide.read_region(corner, self.level, (right - left, bottom - top)))


def open_scanner(path: Path) -> SlideFile:
    """Open a file of a slide scanner.

    Raises
    ------
    ImportError
        If openslide is not installed.
    ValueError
        If openslide cannot read it.
    """
    openslide = require("openslide", extra=_EXTRA)
    try:
        slide = openslide.OpenSlide(str(path))
        sizes, properties = slide.level_dimensions, dict(slide.properties)
        tiles = [
            tuple(int(properties.get(f"openslide.level[{i}].tile-{edge}", 512)) for edge in ("height", "width"))
            for i in range(len(sizes))
        ]
        slide.close()
    except openslide.OpenSlideError as error:
        raise ValueError(
            f"{path} could not be read by openslide: {error}. Convert it to OME-TIFF, for example with QuPath."
        ) from error
    width, height = sizes[0]
    levels = [
        lazy(ScannerPixels(path, i, (rows, columns), (height / rows, width / columns)), (tiles[i][0], tiles[i][1]))
        for i, (columns, rows) in enumerate(sizes)
    ]
    return SlideFile(tuple(levels), of_openslide(properties))
