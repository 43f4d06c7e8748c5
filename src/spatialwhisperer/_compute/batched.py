"""Rows that are computed batch by batch, on one device or on several at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spatialwhisperer._settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

_ROWS: ContextVar[int | None] = ContextVar("rows of a batch", default=None)


class Computing(NamedTuple):
    """A device, and what computes a batch (k, …) on it, a tensor (k, d)."""

    device: torch.device
    function: Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def batches_of(rows: int) -> Iterator[None]:
    """Let encoders take so many rows in one forward pass inside the block, instead of ``settings.batch_size``."""
    token = _ROWS.set(rows)
    try:
        yield
    finally:
        _ROWS.reset(token)


def batch_rows() -> int:
    """Number of rows in one forward pass of an encoder."""
    return _ROWS.get() or settings.batch_size


def by_batches(rows: np.ndarray, size: int, computing: Sequence[Computing]) -> np.ndarray:
    """Compute rows batch by batch, float32 (n, d) in the order of the rows.

    Each device takes the next batch when it is done with one, in a thread of its own where there are several. On CUDA the next batch is
    copied while one is computed.

    Parameters
    ----------
    rows
        Array (n, …). Without rows one empty batch is computed.
    size
        Rows of a batch; the last one may be smaller.
    computing
        The devices.
    """
    parts = _Parts([rows[start : start + size] for start in range(0, max(len(rows), 1), size)])
    if len(computing) == 1:
        _compute(parts, computing[0])
    else:
        with ThreadPoolExecutor(len(computing), thread_name_prefix="spatialwhisperer-devices") as pool:
            for running in [pool.submit(_compute, parts, one) for one in computing]:
                running.result()
    return np.concatenate([parts.done[i] for i in range(len(parts.done))])


class _Parts:
    """Batches that threads take one by one, and what came of them."""

    def __init__(self, parts: list[np.ndarray]) -> None:
        self._left = iter(list(enumerate(parts)))
        self._lock = Lock()
        self.done: dict[int, np.ndarray] = {}

    def take(self) -> tuple[int, np.ndarray] | None:
        """The next batch with its place; ``None`` where none is left."""
        with self._lock:
            return next(self._left, None)

    def stop(self) -> None:
        """Leave no batch to other threads."""
        with self._lock:
            self._left = iter([])


def _compute(parts: _Parts, computing: Computing) -> None:
    import torch

    cuda = computing.device.type == "cuda"
    try:
        with torch.inference_mode(), torch.cuda.device(computing.device) if cuda else nullcontext():
            copies = torch.cuda.Stream() if cuda else None
            coming = _next(parts, computing.device, copies)
            while coming is not None:
                place, batch = coming
                _wait_for(batch, copies)
                result = computing.function(batch)
                # the device computes while this thread gets the next batch ready
                coming = _next(parts, computing.device, copies)
                parts.done[place] = result.float().cpu().numpy()
    except BaseException:
        parts.stop()
        raise


def _next(parts: _Parts, device: torch.device, copies: torch.cuda.Stream | None) -> tuple[int, torch.Tensor] | None:
    """The next batch with its place, on its way to the device."""
    import torch

    taken = parts.take()
    if taken is None:
        return None
    place, part = taken
    batch = torch.from_numpy(np.ascontiguousarray(part))
    if copies is None:
        return place, batch.to(device)
    # only from pinned memory is a copy made while the device computes
    with torch.cuda.stream(copies):
        return place, batch.pin_memory().to(device, non_blocking=True)


def _wait_for(batch: torch.Tensor, copies: torch.cuda.Stream | None) -> None:
    """Let what is computed next on the device wait for a copy that is under way."""
    import torch

    if copies is not None:
        computing = torch.cuda.current_stream()
        computing.wait_stream(copies)
        # its memory, which belongs to the stream of the copies, is not used again before the computation is done
        batch.record_stream(computing)
