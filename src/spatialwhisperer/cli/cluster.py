"""Slides that are annotated by several processes, on this machine or on a dask cluster."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from spatialwhisperer._messages import inform
from spatialwhisperer.cli.errors import UsageError, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

S = TypeVar("S")
T = TypeVar("T")

_PATIENCE_S = 30


@contextmanager
def started(typed: str | None) -> Iterator[Any]:
    """A client of the cluster that was typed; ``None`` where none was.

    Parameters
    ----------
    typed
        Number of processes on this machine, the address of a scheduler ("tcp://host:8786"), or the file that one wrote.

    Raises
    ------
    UsageError
        If no scheduler answers.
    """
    if typed is None:
        yield None
        return
    from distributed import Client, LocalCluster

    if typed.isdecimal():
        # features are computed on all cores of a process
        with (
            LocalCluster(
                n_workers=int(typed), threads_per_worker=1, dashboard_address=None, silence_logs=logging.ERROR
            ) as processes,
            Client(processes) as client,
        ):
            yield client
        return
    if "://" not in typed and not Path(typed).is_file():
        raise UsageError(
            f"--cluster must be a number, an address as tcp://host:8786, or the file of a scheduler; there is no file {typed!r}."
        )
    try:
        where = {"address": typed} if "://" in typed else {"scheduler_file": typed}
        client = Client(**where, timeout=_PATIENCE_S)
    except (OSError, ValueError, TimeoutError) as error:
        raise UsageError(f"--cluster: no scheduler answers at {typed!r} ({type(error).__name__}).") from error
    with client:
        inform(f"{len(client.scheduler_info()['workers'])} workers at {typed}")
        yield client


def distributed(
    client: Any, work: Callable[[S], T], items: Sequence[S], *, failed: Callable[[S, BaseException], T]
) -> Iterator[T]:
    """What comes of each item, in the order in which they are done.

    A process that dies takes along what else it was given, which dask counts as killed too. So those that were killed are done again,
    one at a time.

    Parameters
    ----------
    client
        The cluster.
    work
        What to do.
    items
        What to do it for.
    failed
        What comes of an item whose workers died, or which raised an error; the others go on.
    """
    from distributed.scheduler import KilledWorker

    from spatialwhisperer._compute.workers import on_workers

    killed: list[tuple[S, BaseException]] = []
    for i, end, error in on_workers(client, work, items, key=uuid4().hex):
        if isinstance(error, KilledWorker):
            killed.append((items[i], error))
        else:
            yield end if error is None else failed(items[i], error)  # type: ignore[misc]  # there is one without an error
    if len(killed) == 1:
        yield failed(*killed[0])
        return
    for item, _ in killed:
        for _, end, error in on_workers(client, work, [item], key=uuid4().hex):
            yield end if error is None else failed(item, error)  # type: ignore[misc]


def why_lost(error: BaseException) -> str:
    """Why there is no result of an item, in one line."""
    from distributed.scheduler import KilledWorker

    if not isinstance(error, KilledWorker):
        return one_line(error)
    return (
        "every process that took it died, which happens where the memory is full. Finished slides are kept: run the command again with "
        "fewer processes, or on a machine with more memory."
    )
