"""PNG, JPEG and other pictures that can only be decoded as a whole. That happens when pixels are first read, and once."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.elements.channels import on_white
from spatialwhisperer._access.elements.pixel_size import PixelSize, of_resolution
from spatialwhisperer.io._formats.pixels import (
    Pixels,
    SlideFile,
    as_stored,
    halves,
    lazy,
    swaps_axes,
    turned,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ORIENTATION = 274
_INCH_UM = 25_400.0
_COLOURED = {"RGB", "RGBX", "RGBA", "RGBa", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV"}
_ONE_FRAME = ("JPEG", "MPO")
_TAIL = 2**16
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
_OPENING = threading.Lock()
_PNG_HEADER = 26
_GREY_AND_ALPHA = 4


class PicturePixels(Pixels):
    """A picture, decoded when it is first read and kept in memory from then on; as uint16 where all 16 bits of a PNG are wanted."""

    def __init__(self, path: Path, page: int, size: tuple[int, int], *, deep: bool = False) -> None:
        super().__init__(*size, np.uint16 if deep else np.uint8, as_stored)
        self.path, self.page, self.deep = path, page, deep
        self._decoded: np.ndarray | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_decoded": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        with self._lock:
            if self._decoded is None:
                self._decoded = _deep_rgb(self.path) if self.deep else self._by_pillow()
        return self._decoded[top:bottom, left:right]

    def _by_pillow(self) -> np.ndarray:
        with _opened(self.path) as image:
            image.seek(self.page)
            return _rgb(image)


def open_picture(path: Path, page: int | None) -> SlideFile:
    """Open a picture; its pixels are not decoded yet.

    Raises
    ------
    ValueError
        If it is damaged, is grey, or holds several frames and ``page`` is ``None``.
    """
    from PIL import UnidentifiedImageError

    try:
        with _opened(path) as image:
            kind, frames = str(image.format), int(getattr(image, "n_frames", 1))
            number = _frame(path, frames if kind not in _ONE_FRAME else 1, page)
            image.seek(number)
            mode, (width, height) = image.mode, image.size
            orientation = int(image.getexif().get(_ORIENTATION, 1))
            dpi = image.info.get("dpi")
    except (UnidentifiedImageError, OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"{path} could not be read as an image: {type(error).__name__}: {error}.") from error
    _check_end(path, kind)
    bits, colours = _png_header(path) if kind == "PNG" else (8, None)
    if bits == 16 and colours == _GREY_AND_ALPHA:
        # Pillow shows it as colours
        mode = "LA"
    if mode not in _COLOURED:
        raise ValueError(
            f"{path} is a grey image (mode {mode}): a slide stained with H&E has three channels, red, green and blue. Read the "
            "coloured image."
        )
    remarks = []
    if mode == "CMYK":
        remarks.append("its CMYK inks were converted to RGB without a colour profile")
    if mode in ("RGBA", "RGBa", "PA"):
        remarks.append("what is transparent was laid over white")
    if orientation in range(2, 9):
        remarks.append(f"it was turned as its EXIF orientation {orientation} asks for")
    # only the first frame of an animation can be decoded with all its bits
    deep = bits == 16 and frames == 1
    if bits == 16 and not deep:
        remarks.append("its 16-bit values were cut to 8 bits")
    pixels = PicturePixels(path, number, (height, width), deep=deep)
    levels = tuple(turned(lazy(one), orientation) for one in halves(pixels))
    pixel = None if dpi is None else of_resolution(dpi[0], dpi[1], _INCH_UM, f"the resolution in the {kind}")
    if pixel is not None and swaps_axes(orientation):
        pixel = PixelSize(pixel.y, pixel.x, pixel.rule)
    return SlideFile(levels, pixel, tuple(remarks))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file through Pillow, however large it is: a slide is no attack by its size."""
    from PIL import Image

    with _OPENING:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        yield image


def _frame(path: Path, frames: int, page: int | None) -> int:
    if page is None and frames > 1:
        raise ValueError(
            f"{path} is an animation or a stack of {frames} frames, not one slide. Choose one with page=…, from 0."
        )
    if page is not None and not 0 <= page < frames:
        raise ValueError(f"page={page} does not exist: {path} holds {frames} frame(s), counted from 0.")
    return page or 0


def _check_end(path: Path, kind: str) -> None:
    """Refuse a file that ends before its picture does."""
    end = _ENDS.get(kind)
    if end is None:
        return
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - _TAIL))
        if end not in file.read():
            raise ValueError(f"{path} is truncated: the end of the {kind} is missing. Copy or download it again.")


def _png_header(path: Path) -> tuple[int, int]:
    """Bits of a sample of a PNG, and its colour type."""
    with path.open("rb") as file:
        header = file.read(_PNG_HEADER)
    return header[-2], header[-1]


def _deep_rgb(path: Path) -> np.ndarray:
    """Decode a PNG of 16 bits as uint16, shape (height, width, 3), which Pillow cannot; what is transparent is laid over white."""
    import imagecodecs

    values = imagecodecs.png_decode(path.read_bytes())
    return on_white(values) if values.shape[-1] == 4 else values


def _rgb(image: Any) -> np.ndarray:
    """Decode as uint8, shape (height, width, 3); what is transparent is laid over white."""
    if image.mode in ("RGBA", "RGBa", "PA") or "transparency" in image.info:
        return on_white(np.asarray(image.convert("RGBA")))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
