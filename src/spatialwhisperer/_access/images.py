"""Images with their pyramid levels, read block by block as uint8 RGB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.contract import libraries_of, scale_factor
from spatialwhisperer._access.elements.channels import colour_order, laid_on_white
from spatialwhisperer._access.elements.decoded import decoded_once
from spatialwhisperer._access.tables import is_spatialdata
from spatialwhisperer._checks.values import positive
from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

XY = ("x", "y")
_STRIP_PX = 2**24
_CHANNELS = (3, 4)
_SAME_SIZE = 0.05
_LOCAL_SCHEDULERS = ("threads", "threading", "synchronous", "sync", "single-threaded")


@dataclass(frozen=True)
class Level:
    """One level of an image pyramid.

    Attributes
    ----------
    pixels
        Array-like of shape (channel, y, x), sliced lazily.
    scale_x, scale_y
        Full-resolution pixels per pixel of this level.
    order
        Positions of red, green, blue and, where there is one, alpha among the channels.
    """

    pixels: Any
    scale_x: float
    scale_y: float
    order: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True)
class RasterImage:
    """An image with its pyramid.

    Attributes
    ----------
    name
        Element name in a SpatialData, library in an AnnData.
    levels
        Finest level first. ``levels[0]`` may be coarser than full resolution (scanpy's ``hires``). Levels that dask would compute
        from a finer one each time are left out: to read that is faster.
    size_px
        Width and height in full-resolution pixels.
    """

    name: str
    levels: tuple[Level, ...]
    size_px: tuple[float, float]


def read_pixels(
    level: Level, x0: int, y0: int, x1: int, y1: int, *, fill: int = 255, threads: bool = True
) -> np.ndarray:
    """Read a box of a level as uint8 RGB.

    Parameters
    ----------
    level
        The level.
    x0, y0, x1, y1
        Box in pixels of that level; what lies outside the image is filled.
    fill
        Value of the pixels outside the image; 255 is white.
    threads
        Let dask decode several chunks at a time; otherwise the calling thread decodes them.

    Returns
    -------
    uint8, shape (3, y1 - y0, x1 - x0). Read-only where it may be a view of the image itself.
    """
    return read_boxes(level, [(x0, y0, x1, y1)], fill=fill, threads=threads)[0]


def read_boxes(
    level: Level, boxes: Sequence[tuple[int, int, int, int]], *, fill: int = 255, threads: bool = True
) -> list[np.ndarray]:
    """Read boxes of a level as `read_pixels` does, all at once: a chunk that several lie in is decoded or computed once."""
    _, height, width = level.pixels.shape
    inside = [(max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)) for x0, y0, x1, y1 in boxes]
    there = [i for i, (left, top, right, bottom) in enumerate(inside) if bottom > top and right > left]
    places = [(slice(inside[i][1], inside[i][3]), slice(inside[i][0], inside[i][2])) for i in there]
    blocks = dict(zip(there, load_blocks(level, places, threads=threads), strict=True))
    found = []
    for i, (box, (left, top, right, bottom)) in enumerate(zip(boxes, inside, strict=True)):
        if i in blocks and box == inside[i]:
            whole = _as_uint8(blocks[i]).view()
            whole.flags.writeable = False
            found.append(whole)
            continue
        x0, y0, x1, y1 = box
        out = np.full((3, y1 - y0, x1 - x0), fill, np.uint8)
        if i in blocks:
            out[:, top - y0 : bottom - y0, left - x0 : right - x0] = _as_uint8(blocks[i])
        found.append(out)
    return found


def read_thinned(level: Level, x0: int, y0: int, x1: int, y1: int, step: int) -> np.ndarray:
    """Every ``step``-th pixel of a box across and down, uint8 of shape (3, y, x), read in strips so that memory stays small."""
    rows = step * max(1, _STRIP_PX // (step * max(1, x1 - x0)))
    strips = [
        read_pixels(level, x0, top, x1, min(top + rows, y1))[:, ::step, ::step]
        for top in range(y0, max(y1, y0 + 1), rows)
    ]
    return np.concatenate(strips, axis=1)


def as_spatialdata(pixels: np.ndarray) -> tuple[SpatialData, str]:
    """An RGB image, uint8, shape (3, y, x), as a SpatialData, and its name there, for functions that take nothing else."""
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel

    name = "image"
    image = Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=["r", "g", "b"])
    return SpatialData(images={name: image}), name


def load_block(level: Level, y: slice, x: slice, *, threads: bool = True) -> np.ndarray:
    """Red, green and blue of a box of a level as they are stored, shape (3, height, width). What is transparent is laid over white.

    Raises
    ------
    ValueError
        If they cannot be read.
    """
    return load_blocks(level, [(y, x)], threads=threads)[0]


def load_blocks(level: Level, places: Sequence[tuple[slice, slice]], *, threads: bool = True) -> list[np.ndarray]:
    """Several boxes, as `load_block` reads one."""
    if not places:
        return []
    try:
        blocks = _computed([level.pixels[: len(level.order), y, x] for y, x in places], threads=threads)
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(
            f"{_place(level, *places[0])} {'' if len(places) == 1 else f'or {len(places) - 1} other boxes '}could not be read: "
            f"{type(error).__name__}: {error}. A chunk is damaged or missing, or the file was moved: write or read the image again."
        ) from error
    return [_checked(level, block, *place) for block, place in zip(blocks, places, strict=True)]


def _checked(level: Level, block: np.ndarray, y: slice, x: slice) -> np.ndarray:
    """A block in the order red, green, blue, if it has the shape that was asked for."""
    if block.shape[1:] != (y.stop - y.start, x.stop - x.start):
        raise ValueError(
            f"{_place(level, y, x)} have the wrong shape, {block.shape}: the image states other sizes than its chunks hold. Write it "
            "again."
        )
    if level.order != tuple(range(len(level.order))):
        block = block[list(level.order)]
    return block if len(level.order) == 3 else laid_on_white(block)


def _computed(blocks: list[Any], *, threads: bool) -> list[np.ndarray]:
    if not hasattr(blocks[0], "compute"):
        return [np.asarray(block) for block in blocks]
    import dask

    # with a distributed client as the default scheduler, every block would be sent over the network
    chosen = dask.config.get("scheduler", None)
    scheduler = "synchronous" if not threads else chosen if chosen in _LOCAL_SCHEDULERS else "threads"
    return [np.asarray(block) for block in dask.compute(*blocks, scheduler=scheduler)]


def _place(level: Level, y: slice, x: slice) -> str:
    _, height, width = level.pixels.shape
    return f"Pixels x {x.start} to {x.stop}, y {y.start} to {y.stop} of an image level of {width} x {height}"


def _as_uint8(block: np.ndarray) -> np.ndarray:
    if block.dtype == np.uint8:
        return block
    if block.dtype == np.uint16:
        return (block // 257).astype(np.uint8)
    if np.issubdtype(block.dtype, np.floating):
        top = float(np.nanmax(block, initial=0.0))
        if top > 1.0 + 1e-3:
            raise ValueError(
                f"A float image must hold values in [0, 1]; found {top:g}. Store it as uint8, or divide it by its maximum."
            )
        return np.rint(np.nan_to_num(block, nan=1.0).clip(0, 1) * 255).astype(np.uint8)
    raise ValueError(f"An image must be uint8, uint16 or float in [0, 1], not {block.dtype}.")


def raster_images(data: AnnData | SpatialData) -> dict[str, RasterImage]:
    """All RGB images by name: image elements of a SpatialData, or libraries in ``.uns["spatial"]`` of an AnnData."""
    return {name: find_image(data, name) for name in rgb_names(data)}


def rgb_names(data: AnnData | SpatialData) -> list[str]:
    """Names of the RGB and RGBA images; others, such as fluorescence and stacks along z, are left out.

    Libraries of an AnnData are named by their images with a scale factor. Whether they can be read is said where one is chosen.
    """
    if is_spatialdata(data):
        return [str(name) for name, element in data.images.items() if _is_rgb(element)]
    return [name for name, entry in libraries_of(data).items() if _with_factor(entry)]


def find_image(data: AnnData | SpatialData, name: str) -> RasterImage:
    """One image by name.

    Raises
    ------
    KeyError
        If there is no such image, or nothing says its scale factor.
    ValueError
        If it is not an RGB or RGBA image. Three channels are taken as red, green and blue whatever their names.
    """
    if is_spatialdata(data):
        if name not in data.images:
            raise KeyError(f"There is no image {name!r} (found: {listing(data.images)}).")
        return _from_element(name, data.images[name])
    levels = _library_levels(name, libraries_of(data).get(name, {}))
    if not levels:
        if without := missing_factor(data, name):
            raise KeyError(without)
        raise KeyError(f"There is no image {name!r} (found: {listing(rgb_names(data))}).")
    return _raster(name, levels)


def _raster(name: str, levels: list[Level]) -> RasterImage:
    levels = sorted(levels, key=lambda level: level.scale_x)
    channels, height, width = levels[0].pixels.shape
    if channels not in _CHANNELS:
        raise ValueError(
            f"Image {name!r} has {channels} channels; an H&E image must have 3 (RGB) or 4 (RGBA). "
            "Name the H&E image with image_key=…."
        )
    return RasterImage(name, tuple(levels), (width * levels[0].scale_x, height * levels[0].scale_y))


def _scales(element: Any) -> list[Any]:
    """DataArrays of an image element, one per level of its pyramid."""
    if hasattr(element, "children"):  # a multiscale DataTree
        return [next(iter(element[key].ds.data_vars.values())) for key in element.children]
    return [element]


def image_size(element: Any) -> tuple[int, int]:
    """Width and height of an image element in pixels."""
    finest = _scales(element)[0]
    return finest.sizes["x"], finest.sizes["y"]


def _is_rgb(element: Any) -> bool:
    """Whether an image is flat, and its channels are colours or numbers by their names (fluorescence names its stains)."""
    finest = _scales(element)[0]
    return "z" not in finest.sizes and _colours_of(finest) is not None


def _colours_of(array: Any) -> tuple[int, ...] | None:
    names = array.coords["c"].values if "c" in array.coords else ()
    return colour_order(names, array.sizes["c"])


def _from_element(name: str, element: Any) -> RasterImage:
    scales = _scales(element)
    if "z" in scales[0].sizes:
        raise ValueError(
            f"Image {name!r} is a stack along z; an H&E image must be flat, with the axes c, y and x. Name the H&E image with "
            "image_key=…."
        )
    arrays = [array.transpose("c", "y", "x").data for array in scales]
    n_channels, height, width = arrays[0].shape
    order = _colours_of(scales[0]) or (0, 1, 2)
    if n_channels == 4 and len(order) == 3:
        raise ValueError(
            f"Image {name!r} has the channels {listing(scales[0].coords['c'].values)}; an H&E image must have 3 (RGB) or 4 (RGBA). Name "
            "the H&E image with image_key=…."
        )
    stored = [array for i, array in enumerate(arrays) if not any(_computed_from(array, finer) for finer in arrays[:i])]
    sizes = [(width / array.shape[2], height / array.shape[1]) for array in stored]
    return _raster(name, [Level(decoded_once(a, name), *size, order) for a, size in zip(stored, sizes, strict=True)])


def _computed_from(array: Any, source: Any) -> bool:
    """Whether dask makes an array from another one."""
    return getattr(source, "name", None) in getattr(getattr(array, "dask", None), "layers", ())


def _library_levels(library: str, entry: Mapping[str, Any]) -> list[Level]:
    """The images of a library, the largest first. Smaller ones that are no RGB are left out: the call does not rest on them."""
    levels: dict[str, Level] = {}
    images = _with_factor(entry)
    for key, (image, factor) in sorted(images.items(), key=lambda one: np.prod(np.shape(one[1][0])[:2]), reverse=True):
        try:
            level = _library_level(f"image {key!r} of library {library!r}", image, factor)
        except ValueError:
            if not levels:
                raise
            continue
        if not levels or len(level.pixels) in _CHANNELS:
            levels[key] = level
    _check_one_size(library, levels)
    return list(levels.values())


def _check_one_size(library: str, levels: Mapping[str, Level]) -> None:
    """Refuse images of a library whose scale factors make slides of different sizes of them: one of these factors is wrong."""
    sizes = {
        key: (level.pixels.shape[2] * level.scale_x, level.pixels.shape[1] * level.scale_y)
        for key, level in levels.items()
    }
    finest = next(iter(sizes.values()), (0.0, 0.0))
    for key, size in sizes.items():
        rounding = 2 * levels[key].scale_x
        if any(abs(a - b) > max(rounding, _SAME_SIZE * a) for a, b in zip(finest, size, strict=True)):
            stated = "; ".join(f"{name!r} {w:.0f} × {h:.0f}" for name, (w, h) in sizes.items())
            raise ValueError(
                f"The images of library {library!r} are one picture, and their scale factors make different slides of them, in "
                f"full-resolution pixels: {stated}. Correct .uns['spatial'][{library!r}]['scalefactors'] (the length of an image over that "
                "of the full-resolution image), or delete the image that is not of this slide."
            )


def _with_factor(entry: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Images of a library that state a scale factor, and the factor, both as they are stored."""
    images = entry.get("images", {})
    factors = {key: 1.0 if key == "fullres" else scale_factor(entry, f"tissue_{key}_scalef") for key in images}
    return {key: (images[key], factor) for key, factor in factors.items() if factor is not None}


def missing_factor(data: AnnData | SpatialData, library: str | None = None) -> str:
    """Which images of a library are not read because none of them states a scale factor, and what to store, as text.

    Parameters
    ----------
    data
        The object.
    library
        The library; ``None`` takes the first that holds such images.

    Returns
    -------
    A sentence or two; empty where there are none.
    """
    libraries = {} if is_spatialdata(data) else libraries_of(data)
    if library is None:
        return next((text for name in libraries if (text := missing_factor(data, name))), "")
    entry = libraries.get(library, {})
    images = [str(key) for key, image in entry.get("images", {}).items() if _has_colours(image)]
    if not images or _with_factor(entry):
        return ""
    what = "image" if len(images) == 1 else "images"
    return (
        f"Library {library!r} holds the {what} {listing(map(repr, images))} without a scale factor, so that nothing says where the rows lie in "
        f"it. Store the length of the image over that of the full-resolution image as "
        f"adata.uns['spatial'][{library!r}]['scalefactors']['tissue_{images[0]}_scalef']: 1 where .obsm['spatial'] is in pixels of this image."
    )


def _has_colours(image: Any) -> bool:
    shape = np.shape(image)
    return len(shape) == 3 and shape[-1] in _CHANNELS and 0 not in shape


def _library_level(name: str, image: Any, factor: Any) -> Level:
    factor = positive(f"The scale factor of {name}", factor)
    image = np.asarray(image)
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"I{name[1:]} has shape {image.shape}; expected (height, width, 3).")
    order = (0, 1, 2, 3) if image.shape[-1] == 4 else (0, 1, 2)
    return Level(np.moveaxis(image, -1, 0), 1 / factor, 1 / factor, order)
