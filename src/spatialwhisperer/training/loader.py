"""Batches that threads prepare while the model trains."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.utils.data import DataLoader

from spatialwhisperer._access.tiles.prefetch import in_order
from spatialwhisperer._compute.blocks import cores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.utils.data import Sampler

_MOST_WORKERS = 4


class BatchSource(Protocol):
    """Looks up batches by what a sampler yields."""

    def __getitem__(self, positions: Any) -> dict[str, Any]: ...

    def batch(self, positions: Any, epoch: int) -> dict[str, Any]:
        """Look up a batch in an epoch."""
        ...


class BatchLoader(DataLoader):
    """Loader of whole batches.

    Threads read, change and collate the batches ahead: NumPy, Numba and the decoders of image chunks release Python's global lock.
    Processes would have to be forked, which hangs with data in zarr, or spawned, which needs a script with a ``__main__`` guard and sends
    every batch through a pipe. Batches come in the order of the sampler, and do not depend on the number of threads.

    Parameters
    ----------
    dataset
        Looks up the batches.
    sampler
        Positions of the items of each batch.
    workers
        Number of threads; 0 looks each batch up when it is asked for, which is faster where that is an index into an array.
    pin
        Put the batches into pinned memory, from which they are copied to a CUDA device while it computes.
    training
        Whether these are the batches to train on. Each pass over them draws one number from torch's generator, as a pass of any loader
        does. A pass over held-out batches draws none: what is measured must not change the dropout of the steps that follow.
    """

    def __init__(
        self,
        dataset: BatchSource,
        sampler: Sampler[Any],
        *,
        workers: int = 0,
        pin: bool = False,
        training: bool = True,
    ) -> None:
        super().__init__(dataset, sampler=sampler, batch_size=None, num_workers=0)  # type: ignore[arg-type]
        self.items, self.workers, self.pin, self.training = dataset, workers, pin, training
        self._open: list[Any] = []

    def __iter__(self) -> Any:
        batches = self._batches()
        self._open = [*(one for one in self._open if one() is not None), weakref.ref(batches)]
        return batches

    def _batches(self) -> Iterator[Any]:
        # with the first batch: the trainer may open a loader more than once, and a resumed run sets its random state after that
        if self.training:
            torch.empty((), dtype=torch.int64).random_()
        # the trainer states the epoch after it has opened the loader
        epoch = getattr(self.sampler, "epoch", 0)

        def look_up(positions: Any) -> Any:
            batch = self.items.batch(positions, epoch)
            return pinned(batch) if self.pin else batch

        yield from in_order(look_up, self.sampler, workers=self.workers)

    def __getstate__(self) -> dict[str, Any]:
        # another process opens it for itself
        return {**self.__dict__, "_open": []}

    def close(self) -> None:
        """End all threads. What they are reading is finished first."""
        for one in self._open:
            batches = one()
            if batches is not None:
                batches.close()
        self._open = []


def pinned(batch: Any) -> Any:
    """The same tensors in pinned memory."""
    if isinstance(batch, dict):
        return {name: pinned(part) for name, part in batch.items()}
    return batch.pin_memory() if isinstance(batch, torch.Tensor) else batch


def workers_of(processes: int) -> int:
    """Number of threads that prepare batches, where some processes share this machine."""
    return max(1, min(_MOST_WORKERS, cores() // max(1, processes)))
