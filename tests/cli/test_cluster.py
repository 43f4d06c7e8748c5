"""Slides that are distributed over processes: one whose process dies does not stop the others."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from spatialwhisperer.cli import cluster
from spatialwhisperer.cli.annotate import _Labelling
from spatialwhisperer.cli.parser import make_parser
from spatialwhisperer.cli.slides.jobs import Job
from spatialwhisperer.cli.slides.sources import Source
from spatialwhisperer.models import default_model

distributed = pytest.importorskip("distributed")


def work(item: str) -> str:
    if item == "too large":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "wrong":
        raise ValueError("its own words")
    return f"{item} is done"


def failed(item: str, error: BaseException) -> str:
    return f"{item}: {cluster.why_lost(error)}"


def test_an_item_with_an_error_does_not_stop_the_others() -> None:
    with (
        distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None) as threads,
        distributed.Client(threads) as client,
    ):
        ends = list(cluster.distributed(client, work, ["wrong", "a", "b"], failed=failed))
    assert sorted(ends) == ["a is done", "b is done", "wrong: its own words"]


@pytest.mark.slow
def test_an_item_that_kills_its_process_does_not_stop_the_others() -> None:
    items = ["a", "too large", "b", "c"]
    with cluster.started("2") as client:
        ends = sorted(cluster.distributed(client, work, items, failed=failed))
    assert ends[:3] == ["a is done", "b is done", "c is done"]
    assert ends[3].startswith("too large: every process that took it died, which happens where the memory is full.")


def test_a_slide_whose_process_died_is_a_failed_one_of_its_name() -> None:
    error = distributed.scheduler.KilledWorker("slide-0", None, 3)
    job = Job(Source(Path("huge.tif"), "image"), Path("huge.zarr"), None, None)
    typed = ["annotate", "huge.tif", "--out", "huge.zarr"]
    end = _Labelling(make_parser().parse_args(typed), default_model()).lost(job, error)
    assert end.kind == "failed"
    assert end.lines[0][0].startswith("spatialwhisperer: error: huge.tif: every process that took it died")
    assert end.lines[0][1]
    with pytest.raises(distributed.scheduler.KilledWorker):
        _Labelling(make_parser().parse_args([*typed, "--debug"]), default_model()).lost(job, error)
