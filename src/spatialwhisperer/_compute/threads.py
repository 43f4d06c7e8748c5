"""Work on tiles and rows in threads, for kernels that release Python's global lock."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = TypeVar("Item")
Result = TypeVar("Result")


def on_all_cores(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return ``work(item)`` of each item, in their order, computed on all cores that this process may use.

    Parameters
    ----------
    work
        Depends on its item alone, so that results do not depend on how many threads there are.
    items
        What to work on. One item, or one core, is worked on without a thread.
    """
    threads = min(n_cores(), len(items))
    if threads < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads, thread_name_prefix="spatialwhisperer-cores") as pool:
        return list(pool.map(work, items))


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
