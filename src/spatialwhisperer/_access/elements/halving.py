"""Coarser copies of an image, each half as large as the one before, whose pixels are rounded means of four."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

_STRIP_PX = 256


def mean_of_four(block: np.ndarray) -> np.ndarray:
    """Mean of each square of 2 x 2 pixels, rounded; block of shape (3, y, x), both even."""
    wide = {1: np.uint16, 2: np.uint32}.get(block.dtype.itemsize, np.uint64) if block.dtype.kind == "u" else block.dtype
    rows = block[:, ::2].astype(wide)
    rows += block[:, 1::2]
    sums = rows[:, :, ::2] + rows[:, :, 1::2]
    if block.dtype.kind == "f":
        return sums / block.dtype.type(4)
    sums += 2
    return (sums // 4).astype(block.dtype)


def halved(source: Any) -> np.ndarray:
    """A picture at half its size, in memory; an odd last row or column is dropped.

    Parameters
    ----------
    source
        Array-like of shape (3, y, x). It is sliced in strips, so that no large copies are made.

    Returns
    -------
    Shape (y // 2, x // 2, 3).
    """
    height, width = (size // 2 for size in source.shape[1:])
    out = np.empty((height, width, 3), source.dtype)
    for start in range(0, height, _STRIP_PX):
        stop = min(start + _STRIP_PX, height)
        out[start:stop] = np.moveaxis(mean_of_four(source[:, 2 * start : 2 * stop, : 2 * width]), 0, -1)
    return out


def halved_lazily(array: Any, chunk_px: int) -> Any:
    """A dask array of shape (3, y, x) at half its size, of which nothing is computed yet."""
    even = array.rechunk({1: _even(array.chunks[1]), 2: _even(array.chunks[2])})
    chunks = [tuple(n for n in (size // 2 for size in sizes) if n) for sizes in even.chunks[1:]]
    height, width = (2 * sum(sizes) for sizes in chunks)
    small = even[:, :height, :width].map_blocks(mean_of_four, chunks=(even.chunks[0], *chunks), dtype=array.dtype)
    return small.rechunk({1: chunk_px, 2: chunk_px})


def _even(sizes: Sequence[int]) -> tuple[int, ...]:
    """Chunks of even sizes, but for the last one."""
    total, edge = sum(sizes), max(2, sizes[0] // 2 * 2)
    return tuple(min(edge, total - start) for start in range(0, total, edge))
