"""Work that is distributed over the processes of a dask cluster."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from spatialwhisperer._compute.opened import keeping_opened
from spatialwhisperer._settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

T = TypeVar("T")

_SENT = ("backend", "batch_size", "compile", "device", "offline", "precision")
"""Settings of the process that asks, which hold in the workers too. Folders are those of each machine."""

# the cores of a worker are used by one piece of work: two at a time would need twice the memory
_ONE_AT_A_TIME = Lock()
_KEPT: dict[str, dict[Hashable, Any]] = {}


def check_client(client: Any) -> None:
    """Refuse what is no client of dask.distributed.

    Raises
    ------
    TypeError
        If it is none.
    """
    if not (hasattr(client, "submit") and hasattr(client, "scheduler_info")):
        raise TypeError(f"client must be a dask.distributed.Client, not {type(client).__name__}.")


def on_workers(
    client: Any, work: Callable[[Any], T], items: Sequence[Any], *, key: str
) -> Iterator[tuple[int, T | None, BaseException | None]]:
    """Do a piece of work for each item on the workers of a cluster.

    Models and encoders are opened once in each worker. Work of a worker that dies is done by another one.

    Parameters
    ----------
    client
        A ``dask.distributed.Client``.
    work
        What to do; it is sent once to each worker.
    items
        What to do it for.
    key
        Text that no other call has: what was opened for it is not used by other calls.

    Yields
    ------
    The place of an item, what came of it, and its error or ``None``, in the order in which they are done.
    """
    from distributed import as_completed

    sent = {name: getattr(settings, name) for name in _SENT}
    # as a task of its own it is computed again where the worker that held it dies
    held = client.submit(_same, work, key=f"spatialwhisperer-work-{key}", pure=False)
    futures = {
        client.submit(_one, held, item, key, sent, key=f"spatialwhisperer-slide-{i}-{key}", pure=False): i
        for i, item in enumerate(items)
    }
    try:
        for future in as_completed(futures):
            error = None if future.status == "finished" else future.exception()
            yield futures[future], future.result() if error is None else None, error
    finally:
        client.cancel([*futures, held], force=True)


def _same(work: Any) -> Any:
    return work


def _one(work: Callable[[Any], T], item: Any, key: str, sent: dict[str, Any]) -> T:
    import dask

    with _ONE_AT_A_TIME:
        if key not in _KEPT:
            _KEPT.clear()
        # chunks of an image would be sent to the cluster, and wait there for the work that waits for them
        with (
            dask.config.set(scheduler="threads"),
            settings.override(verbose=False, progress=False, **sent),
            keeping_opened(_KEPT.setdefault(key, {})),
        ):
            return work(item)
