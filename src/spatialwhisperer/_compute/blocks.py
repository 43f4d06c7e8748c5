"""Blocks of rows, and threads that each take one block after the other."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")

NUMBERS = 2**17
"""Numbers of a block that a thread takes at a time: they stay in its cache."""


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def blocks(rows: int, width: int, numbers: int = NUMBERS) -> list[slice]:
    """Consecutive rows of a matrix, with at most so many numbers in a block, and one row at least.

    Examples
    --------
    >>> from spatialwhisperer._compute.blocks import blocks
    >>> blocks(5, 10, 20)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    step = max(1, numbers // max(1, width))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def each(function: Callable[[T], R], parts: Sequence[T]) -> list[R]:
    """Results of all parts in their order, on all cores. The function gives up the interpreter's lock, or nothing is gained."""
    threads = min(cores(), len(parts))
    if threads < 2:
        return [function(part) for part in parts]
    with ThreadPoolExecutor(threads, thread_name_prefix="spatialwhisperer-blocks") as pool:
        return list(pool.map(function, parts))
