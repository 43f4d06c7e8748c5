"""Slides that are annotated by several processes, on this machine or on a dask cluster."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from spatialwhisperer._messages import inform
from spatialwhisperer.cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

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


def distributed(client: Any, work: Callable[[Any], T], items: Sequence[Any]) -> Iterator[T]:
    """What comes of each item, in the order in which they are done.

    Raises
    ------
    Exception
        That of an item whose worker died again and again, or which raised one.
    """
    from spatialwhisperer._compute.workers import on_workers

    for _, end, error in on_workers(client, work, items, key=uuid4().hex):
        if error is not None:
            raise error
        yield end  # type: ignore[misc]  # there is one where there is no error
