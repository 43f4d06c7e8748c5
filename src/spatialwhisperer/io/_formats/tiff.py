"""TIFF, BigTIFF and OME-TIFF, through tifffile. Tiles are decoded when they are needed."""

from __future__ import annotations

import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.elements.channels import are_colours, colour_order, on_white
from spatialwhisperer._access.elements.pixel_size import PixelSize, of_ome, of_resolution
from spatialwhisperer._messages import listing
from spatialwhisperer.io._formats.pixels import (
    FromPalette,
    Pixels,
    SlideFile,
    as_stored,
    from_cmyk,
    lazy,
    swaps_axes,
    turned,
    with_pyramid,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from spatialwhisperer.io._formats.pixels import Convert

_INCH_UM, _CENTIMETRE_UM = 25_400.0, 10_000.0
_RESOLUTION_UNITS_UM = {2: _INCH_UM, 3: _CENTIMETRE_UM}
_IMAGEJ_UNITS_UM = {
    "micron": 1.0,
    "um": 1.0,
    "µm": 1.0,
    "\\u00B5m": 1.0,
    "nm": 1e-3,
    "mm": 1e3,
    "cm": 1e4,
    "inch": _INCH_UM,
}
_TYPES = ("uint8", "uint16", "float16", "float32", "float64")
_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 274, 282, 283, 296
_PREMULTIPLIED, _ALPHA = 1, 2


class TiffPixels(Pixels):
    """One level of one image of a TIFF. The file is opened when pixels are read, once in each process."""

    def __init__(
        self, path: Path, page: int, level: int, size: tuple[int, int], dtype: Any, axes: str, convert: Convert
    ):
        super().__init__(*size, dtype, convert)
        self.path, self.page, self.level, self.axes = path, page, level, axes
        self._array: Any = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_array": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        box = {"Y": slice(top, bottom), "X": slice(left, right)}
        block = np.asarray(self._opened()[tuple(box.get(axis, slice(None)) for axis in self.axes)])
        samples = [i for i, axis in enumerate(self.axes) if axis not in "YX"]
        if not samples:
            return block[..., None]
        return np.moveaxis(block, samples[0], -1)

    def _opened(self) -> Any:
        with self._lock:
            if self._array is None:
                import tifffile
                import zarr

                store: Any = tifffile.imread(self.path, aszarr=True, series=self.page, level=self.level)
                # the store keeps the file open as long as these pixels exist
                weakref.finalize(self, store.close)
                self._array = zarr.open(store, mode="r")
            return self._array


def open_tiff(path: Path, page: int | None) -> SlideFile:
    """Open a TIFF.

    Raises
    ------
    ValueError
        If it is damaged, holds no colour image, or several and ``page`` is ``None``.
    """
    import tifffile

    try:
        file = tifffile.TiffFile(path)
        series = [one for one in file.series if _is_image(one)]
    except Exception as error:
        raise ValueError(f"{path} could not be read as a TIFF: {type(error).__name__}: {error}.") from error
    with file:
        chosen = _choose(path, series, page)
        levels = [level for level in chosen.levels if _is_image(level)]
        axes, first = _axes(path, chosen), chosen.keyframe
        for level in levels:
            _check_whole(path, file.filehandle.size, level)
        convert, remarks = _conversion(path, chosen, _channel_names(file, chosen))
        orientation = int(_tag(first, _ORIENTATION) or 1)
        arrays = [
            turned(lazy(*_level(path, file.series.index(chosen), number, level, axes, convert)), orientation)
            for number, level in enumerate(levels)
        ]
        if orientation != 1:
            remarks += (f"it was turned as its orientation {orientation} asks for",)
        pixel = _pixel_size(file, first, chosen)
        if pixel is not None and swaps_axes(orientation):
            pixel = PixelSize(pixel.y, pixel.x, pixel.rule)
    return SlideFile(tuple(arrays) if len(arrays) > 1 else with_pyramid(arrays[0]), pixel, remarks)


def _level(
    path: Path, page: int, number: int, level: Any, axes: str, convert: Convert
) -> tuple[TiffPixels, tuple[int, int]]:
    """The pixels of a level, and the edges of the tiles in which they are stored."""
    sizes = dict(zip(level.axes, level.shape, strict=True))
    dtype = np.uint8 if isinstance(convert, FromPalette) else level.dtype
    pixels = TiffPixels(path, page, number, (sizes["Y"], sizes["X"]), dtype, axes, convert)
    frame = level.keyframe
    tile = (frame.tilelength, frame.tilewidth) if frame.is_tiled else (1, sizes["X"])
    return pixels, tile


def _is_image(series: Any) -> bool:
    return "X" in series.axes and "Y" in series.axes and series.dtype is not None


def _choose(path: Path, series: list[Any], page: int | None) -> Any:
    """The image that is meant: the largest where the others are previews of it, else the one that is named."""
    if not series:
        raise ValueError(f"{path} holds no image.")
    if page is not None:
        if not 0 <= page < len(series):
            raise ValueError(f"page={page} does not exist: {path} holds {len(series)} images, counted from 0.")
        return series[page]
    areas = [_area(one) for one in series]
    largest = series[int(np.argmax(areas))]
    rivals = [i for i, area in enumerate(areas) if area > 0.5 * max(areas)]
    if len(rivals) > 1:
        sizes = ", ".join("{1} x {0}".format(*_size(series[i])) for i in rivals[:4])
        raise ValueError(
            f"{path} holds {len(rivals)} images of similar size ({sizes}, …). Choose one with page=…, from 0."
        )
    return largest


def _size(series: Any) -> tuple[int, int]:
    sizes = dict(zip(series.axes, series.shape, strict=True))
    return int(sizes["Y"]), int(sizes["X"])


def _area(series: Any) -> int:
    height, width = _size(series)
    return height * width


def _axes(path: Path, series: Any) -> str:
    """Axes of the array, such as YXS or CYX; axes of length 1 are part of it."""
    long = {axis: n for axis, n in zip(series.axes, series.shape, strict=True) if axis not in "YX" and n > 1}
    stacks = [axis for axis in long if axis not in "SC"]
    if stacks:
        what = ", ".join(f"{axis}: {long[axis]}" for axis in stacks)
        raise ValueError(
            f"{path} is a stack of images (axes {series.axes}, {what}), not one slide. Save the plane you mean as a TIFF of its own."
        )
    return str(series.axes)


def _check_whole(path: Path, size: int, level: Any) -> None:
    """Refuse a file that ends before its pixels do."""
    for page in level.pages:
        if page is None:
            continue
        offsets, counts = page.dataoffsets, page.databytecounts
        if len(offsets) and max(o + n for o, n in zip(offsets, counts, strict=False)) > size:
            raise ValueError(
                f"{path} is truncated: it ends at byte {size}, before its last tile. Copy or download it again."
            )


def _conversion(path: Path, series: Any, names: Sequence[str]) -> tuple[Convert, tuple[str, ...]]:
    """How the stored samples become RGB, and what to say about it. ``names`` are those of channels that are stored one by one."""
    frame = series.keyframe
    photometric = frame.photometric.name
    sizes = dict(zip(series.axes, series.shape, strict=True))
    samples = sizes.get("S", 1) if sizes.get("S", 1) > 1 else sizes.get("C", 1)
    if str(series.dtype) not in _TYPES:
        raise ValueError(
            f"{path} holds {series.dtype} values; a slide has uint8, uint16, or float in [0, 1]. Convert it first."
        )
    if photometric == "PALETTE":
        return FromPalette(frame.colormap), ("its palette was resolved",)
    if photometric == "SEPARATED" and samples == 4 and np.issubdtype(series.dtype, np.unsignedinteger):
        return from_cmyk, ("its CMYK inks were converted to RGB without a colour profile",)
    if samples not in (3, 4) or photometric not in ("RGB", "YCBCR", "MINISBLACK"):
        raise ValueError(
            f"{path} has {samples} channel(s) ({photometric.lower()}): a slide stained with H&E has three, red, green and blue. Read "
            "another file, or the image of the stain."
        )
    if samples == 4 and photometric == "MINISBLACK" and not are_colours(names):
        raise ValueError(
            f"{path} has four channels that are not said to be colours: it looks like fluorescence, not like H&E. Save the three "
            "colour channels as RGB."
        )
    if any(names):
        return _by_names(path, names)
    kinds = tuple(int(kind) for kind in frame.extrasamples or ())
    if samples == 4 and kinds and kinds[0] in (_PREMULTIPLIED, _ALPHA):
        how = partial(on_white, premultiplied=kinds[0] == _PREMULTIPLIED)
        return how, ("what is transparent was laid over white",)
    return as_stored, ()


def _by_names(path: Path, names: Sequence[str]) -> tuple[Convert, tuple[str, ...]]:
    """How channels that have names become RGB."""
    order = colour_order(names, len(names))
    if order is None:
        raise ValueError(
            f"{path} has channels that are not named as colours ({listing(names)}): it looks like fluorescence, not like H&E. Read another "
            "file, or the image of the stain. If they are colours, name them Red, Green and Blue in its OME-XML, which tifffile.tiffcomment "
            "reads and writes."
        )
    remarks = (
        ()
        if order == tuple(range(len(order)))
        else (f"its channels ({listing(names)}) were put in order by their names",)
    )
    if len(order) == 4:
        return partial(_laid_in_order, order=order), (*remarks, "what is transparent was laid over white")
    return partial(_in_order, order=order), remarks


def _in_order(block: np.ndarray, *, order: tuple[int, ...]) -> np.ndarray:
    return block[..., list(order)]


def _laid_in_order(block: np.ndarray, *, order: tuple[int, ...]) -> np.ndarray:
    return on_white(_in_order(block, order=order))


def _tag(frame: Any, code: int) -> Any:
    tag = frame.tags.get(code)
    return None if tag is None else tag.value


def _pixel_size(file: Any, frame: Any, series: Any) -> PixelSize | None:
    """Size of a pixel by OME, else by ImageJ, else by the resolution of the page."""
    stated = _ome_pixels(file, series)
    if stated is not None and (found := of_ome(dict(stated.attrib))) is not None:
        return found
    per_x, per_y = (_fraction(_tag(frame, code)) for code in (_X_RESOLUTION, _Y_RESOLUTION))
    if per_x is None or per_y is None:
        return None
    if file.is_imagej and (unit := _IMAGEJ_UNITS_UM.get(str((file.imagej_metadata or {}).get("unit")))):
        return of_resolution(per_x, per_y, unit, "the unit of ImageJ")
    unit_um = _RESOLUTION_UNITS_UM.get(int(_tag(frame, _RESOLUTION_UNIT) or 0))
    return None if unit_um is None else of_resolution(per_x, per_y, unit_um, "the resolution in the TIFF")


def _fraction(value: Any) -> float | None:
    try:
        over, under = value
        return over / under
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def _ome_pixels(file: Any, series: Any) -> Element | None:
    """The element ``Pixels`` of an image of OME-XML."""
    from xml.etree import ElementTree

    if not file.is_ome:
        return None
    try:
        root = ElementTree.fromstring(file.ome_metadata or "")
    except ElementTree.ParseError:
        return None
    found = [element for element in root.iter() if _local_name(element) == "Pixels"]
    return found[min(file.series.index(series), len(found) - 1)] if found else None


def _channel_names(file: Any, series: Any) -> list[str]:
    """Names by OME of channels that are stored one by one, "" where one has none. Samples of one channel, as of RGB, have no names."""
    pixels = _ome_pixels(file, series)
    if pixels is None:
        return []
    names = [str(element.attrib.get("Name", "")) for element in pixels if _local_name(element) == "Channel"]
    sizes = dict(zip(series.axes, series.shape, strict=True))
    return names if sizes.get("S", 1) == 1 and len(names) == sizes.get("C", 1) else []


def _local_name(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]
