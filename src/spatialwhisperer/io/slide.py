"""A slide on disk as a SpatialData, read when its pixels are needed."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialwhisperer._access.elements.pyramid import slide_of
from spatialwhisperer._access.sections.scale import check_mpp, differ
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.values import check_whole
from spatialwhisperer._messages import inform, listing

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from spatialwhisperer._access.elements.pixel_size import PixelSize
    from spatialwhisperer.io._formats.pixels import SlideFile

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_IMAGES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".svs", ".ndpi", ".mrxs", ".scn")
_SMALLEST_PX = 16
_MPP_RULE = "mpp=…"


@checked
def read_slide(
    path: str | os.PathLike[str], *, mpp: float | None = None, name: str | None = None, page: int | None = None
) -> SpatialData:
    """Read an H&E slide from a file, as a pyramid whose pixels stay on disk until they are needed.

    PNG, JPEG, TIFF, BigTIFF and OME-TIFF are read by the package itself; SVS, NDPI, MRXS and other files of slide scanners through
    openslide (``pip install 'spatialwhisperer[wsi]'``). The result is what every function of the package takes:
    :func:`spatialwhisperer.tl.zero_shot_annotate` puts tiles on its tissue by itself, :func:`spatialwhisperer.pp.tiles` does so as you
    say.

    Parameters
    ----------
    path
        The file.
    mpp
        Microns per pixel; ``None`` takes what the file states.
    name
        Name of the image; ``None`` takes the name of the file.
    page
        Which image of a file that holds several, counted from 0; ``None`` takes the only one, or the slide beside its thumbnail and
        label.

    Returns
    -------
    A SpatialData with one image, shape (3, y, x), in these coordinate systems:

    ``"global"``
        Pixels of the full resolution.
    ``"microns"``
        Where the scale is known. It is taken from ``mpp``, else from ``PhysicalSizeX`` of OME, the unit of ImageJ, the resolution of a
        TIFF, PNG or JPEG (where it is that of a microscope, and not the 72 dpi of a screen) or ``mpp-x`` of openslide.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If openslide is needed and not installed.
    TypeError
        If ``path`` is no path.
    ValueError
        If this is a folder, a damaged or truncated file, a grey image, one whose channels are named after stains, a stack of images, or
        smaller than a tile; or if ``mpp`` and the file differ by more than 5 %.

    Notes
    -----
    Colours are RGB afterwards: channels of an OME-TIFF are put in order by their names where these are colours, palettes are resolved,
    CMYK is converted without a colour profile, and what is transparent is laid over white. Pictures are turned as their EXIF orientation asks for. 16-bit values of TIFF and PNG are kept. PNG and JPEG can only be
    decoded as a whole, which takes 3 bytes of memory per pixel (6 with 16 bits); a tiled TIFF with a pyramid of its own can be of any size.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import tifffile
    >>> import spatialwhisperer as sw
    >>> pixels = np.random.default_rng(0).integers(120, 255, (600, 800, 3), dtype=np.uint8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tifffile.imwrite(f"{folder}/slide.tif", pixels, photometric="rgb")
    ...     sdata = sw.io.read_slide(f"{folder}/slide.tif", mpp=0.5)
    ...     sdata["slide"].shape, sorted(sdata.coordinate_systems)
    ((3, 600, 800), ['global', 'microns'])
    """
    place = _file(path)
    if page is not None:
        check_whole("page", page, least=0)
    check_mpp(mpp)
    image = _image_name(place, name)
    opened = _open(place, page)
    _, height, width = opened.levels[0].shape
    if min(height, width) < _SMALLEST_PX:
        raise ValueError(f"{place} is an image of {width} x {height} pixels, too small to show tissue.")
    pixel = _settled(place, opened.pixel, mpp)
    scale = "its microns per pixel are not known: pass mpp=… here or later"
    if pixel is not None:
        scale = f"{pixel.scale.mpp:.4g} µm per pixel by {pixel.rule}"
    inform("; ".join([f"Read {place.name}, {width} x {height} pixels, {scale}", *opened.remarks]) + ".")
    return slide_of(opened.levels, image, pixel)


def levels_of(path: Path) -> tuple[Any, ...]:
    """Pixels of a slide on disk as lazy dask arrays (3, y, x), finest first, read as by :func:`read_slide`."""
    return _open(path, None).levels


def slides_in(folder: Path) -> list[Path]:
    """Image files in a folder, by the endings of their names, sorted. Hidden files are left out."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in _IMAGES and not p.name.startswith("."))


def _file(path: Any) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be the path of an image file, not {type(path).__name__}.")
    place = Path(path).expanduser()
    if place.is_dir():
        if (place / ".zgroup").exists() or (place / "zarr.json").exists():
            raise ValueError(
                f"{place} is a zarr store, not an image file. Read it with spatialdata.read_zarr({str(place)!r})."
            )
        inside = [p.name for p in slides_in(place)]
        raise ValueError(f"{place} is a folder. Name one image file in it (found: {listing(inside, 5)}).")
    if not place.exists():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    return place


def _open(place: Path, page: int | None) -> SlideFile:
    """Open the file with the module that reads its kind."""
    from spatialwhisperer.io._formats import picture, scanner, tiff

    if place.suffix.lower() in scanner.SUFFIXES:
        if page is not None:
            raise ValueError(f"page={page} applies to TIFF and pictures; {place.name} holds one slide. Leave it out.")
        return scanner.open_scanner(place)
    with place.open("rb") as file:
        start = file.read(4)
    if not start:
        raise ValueError(f"{place} is empty.")
    return tiff.open_tiff(place, page) if start in _TIFF else picture.open_picture(place, page)


def _settled(place: Path, found: PixelSize | None, mpp: float | None) -> PixelSize | None:
    """Size of a pixel by the caller and the file."""
    from spatialwhisperer._access.elements.pixel_size import PixelSize

    if mpp is None:
        return found
    if found is None:
        return PixelSize(mpp, mpp, _MPP_RULE)
    if differ(mpp, found.scale.mpp):
        raise ValueError(
            f"mpp={mpp:g} and {place.name} disagree: the file states {found.scale.mpp:.4g} µm per pixel by {found.rule}. Leave mpp out. "
            f"Or, if the file is wrong, read it without mpp and set another scale: "
            f'spatialdata.transformations.set_transformation(sdata["…"], Scale([{mpp:g}, {mpp:g}], axes=("x", "y")), "microns").'
        )
    return found.resized(mpp, _MPP_RULE)


def _image_name(place: Path, name: str | None) -> str:
    """Name of the image element: that of the caller, else that of the file with other characters than SpatialData takes replaced."""
    if name is None:
        stem = re.sub(r"\.ome$", "", place.stem, flags=re.IGNORECASE)
        return re.sub(r"[^\w.-]", "_", stem, flags=re.ASCII).lstrip("_.") or "slide"
    if not isinstance(name, str):
        raise TypeError(f"name must be text, not {name!r}.")
    if not re.fullmatch(r"(?!__)[\w.-]+", name) or not name.strip("."):
        raise ValueError(
            f'name must be made of letters, digits, "_", "-" and ".", as SpatialData stores no other; found {name!r}.'
        )
    return name
