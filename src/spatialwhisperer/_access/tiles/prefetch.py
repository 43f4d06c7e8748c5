"""Reading ahead in threads, and batches of one size."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from concurrent.futures import Future

S = TypeVar("S")
T = TypeVar("T")
_WAIT_S = 0.1


def prefetch(items: Iterable[T], depth: int = 2) -> Generator[T, None, None]:
    """Iterate in another thread, at most ``depth`` items ahead.

    Close the generator (``contextlib.closing``), so that the thread ends with the loop even after an error. An exception in the thread
    is raised in the caller, after the items that came before it.
    """
    queue: Queue[tuple[bool, T | BaseException | None]] = Queue(depth)
    stop = Event()

    def put(entry: tuple[bool, T | BaseException | None]) -> bool:
        while not stop.is_set():
            try:
                queue.put(entry, timeout=_WAIT_S)
            except Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    return
        except BaseException as error:  # noqa: BLE001 - raised again in the thread of the caller
            put((False, error))
        else:
            put((False, None))

    thread = Thread(target=work, name="spatialwhisperer-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            try:
                # with a timeout Ctrl-C works on every platform
                more, item = queue.get(timeout=_WAIT_S)
            except Empty:
                continue
            if not more:
                if isinstance(item, BaseException):
                    raise item
                return
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()


def in_order(function: Callable[[S], T], items: Iterable[S], *, workers: int) -> Generator[T, None, None]:
    """Apply a function to items in several threads, and yield the results in the order of the items.

    At most ``workers + 1`` results are ahead. Close the generator, so that the threads end with the loop; calls that have begun are
    finished first. An exception of a call is raised in the caller, after the results that came before it.

    Parameters
    ----------
    function
        Function of one item, which several threads may call at a time.
    items
        The items; they are iterated in the thread of the caller.
    workers
        Number of threads; 0 calls the function in the thread of the caller.
    """
    if not workers:
        yield from map(function, items)
        return
    waiting: deque[Future[T]] = deque()
    left = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="spatialwhisperer-batches")
    try:
        while True:
            while len(waiting) <= workers:
                try:
                    item = next(left)
                except StopIteration:
                    break
                waiting.append(pool.submit(function, item))
            if not waiting:
                return
            first = waiting.popleft()
            # with a timeout Ctrl-C works on every platform
            while not wait([first], timeout=_WAIT_S).done:
                pass
            yield first.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def batches(pieces: Iterable[tuple[np.ndarray, np.ndarray]], size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Regroup ``(rows, tiles)`` into batches of ``size``; the last one may be smaller."""
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    count = 0
    for rows, tiles in pieces:
        start = 0
        while start < len(rows):
            take = slice(start, start + size - count)
            waiting.append((rows[take], tiles[take]))
            count += len(waiting[-1][0])
            start = take.stop
            if count == size:
                yield _joined(waiting)
                waiting, count = [], 0
    if waiting:
        yield _joined(waiting)


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([tiles for _, tiles in parts])
