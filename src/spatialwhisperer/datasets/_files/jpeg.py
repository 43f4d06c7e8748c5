"""A JPEG as lazy dask arrays: the file is decoded when pixels are asked for, and the last decoded ones are kept."""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.elements.halving import halved

if TYPE_CHECKING:
    from collections.abc import Iterator

    import dask.array as da

_LOCK = Lock()


@contextmanager
def _unlimited() -> Iterator[None]:
    # sections are larger than PIL's guard against decompression bombs, a limit that PIL keeps per process
    from PIL import Image

    with _LOCK:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def size(path: Path) -> tuple[int, int]:
    """Width and height, from the header alone."""
    from PIL import Image, UnidentifiedImageError

    with _unlimited():
        try:
            with Image.open(path) as image:
                return image.size
        except UnidentifiedImageError as error:
            raise ValueError(f"{path} is not an image that can be read; get the file again.") from error


def lazy(path: Path, *, chunk_px: int) -> da.Array:
    """Return a (3, h, w) uint8 dask array; a JPEG has no blocks, so the first one read decodes the whole file."""
    return pyramid(path, chunk_px=chunk_px, n=1)[0]


def pyramid(path: Path, *, chunk_px: int, n: int) -> list[da.Array]:
    """Return ``n`` levels as (3, h, w) uint8 dask arrays, finest first; pixels of each are rounded means of four of the one before."""
    import dask.array as da
    from dask.array.core import normalize_chunks

    path = Path(path).resolve()
    width, height = size(path)
    return [
        da.map_blocks(
            _block,
            path=str(path),
            stamp=path.stat().st_mtime_ns,
            level=level,
            chunks=normalize_chunks((3, chunk_px, chunk_px), shape=(3, height >> level, width >> level)),
            dtype=np.uint8,
            meta=np.empty((0, 0, 0), dtype=np.uint8),
        )
        for level in range(n)
    ]


def _block(path: str, stamp: int, level: int, block_info: Any = None) -> np.ndarray:
    (_, _), (top, bottom), (left, right) = block_info[None]["array-location"]
    with _unlimited():  # the lock keeps a second thread from decoding the same file
        pixels = _reduced(path, stamp, level) if level else _decoded(path, stamp)
    return np.ascontiguousarray(pixels[top:bottom, left:right].transpose(2, 0, 1))


@lru_cache(maxsize=2)
def _decoded(path: str, _stamp: int) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


# all levels of two sections
@lru_cache(maxsize=8)
def _reduced(path: str, stamp: int, level: int) -> np.ndarray:
    finer = _decoded(path, stamp) if level == 1 else _reduced(path, stamp, level - 1)
    return halved(np.moveaxis(finer, -1, 0))
