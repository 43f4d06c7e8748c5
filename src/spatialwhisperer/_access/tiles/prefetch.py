"""Reading ahead in a thread, and batches of one size."""

from __future__ import annotations

from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

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
