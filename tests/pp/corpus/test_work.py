"""The slides of a corpus on the workers of a cluster."""

from __future__ import annotations

import logging
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any

import anndata as ad
import pytest

import spatialwhisperer as sw
from spatialwhisperer.training.corpus.shards import Corpus
from tests import corpora

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    from distributed import Client

    with Client(
        processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
    ) as client:
        yield client


@pytest.fixture
def stored(tmp_path: Path) -> sw.pp.CorpusSource:
    """Three slides on the disk."""
    slides = corpora.sources()[0].data
    for name, table in slides.items():
        table.write_h5ad(tmp_path / f"{name}.h5ad")
    return sw.pp.CorpusSource("slides", {name: tmp_path / f"{name}.h5ad" for name in slides}, licence="CC0")


def shards(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.glob("shards/**/*") if p.is_file()}


@pytest.mark.slow
def test_a_cluster_builds_the_same_corpus(client: Any, stored: sw.pp.CorpusSource, tmp_path: Path) -> None:
    here = corpora.build(tmp_path / "here", [stored])
    there = corpora.build(tmp_path / "there", [stored], client=client)
    assert shards(there) == shards(here)
    assert len(shards(there)) > 3
    slides = [{s.name: s for s in Corpus.open(folder).manifest.slides} for folder in (here, there)]
    assert slides[0] == slides[1]


@pytest.mark.slow
def test_a_slide_that_fails_leaves_the_others_theirs(client: Any, stored: sw.pp.CorpusSource, tmp_path: Path) -> None:
    path, mended = stored.data["S1"], tmp_path / "mended"

    def open_slide() -> ad.AnnData:
        if current_thread() is not main_thread() and not mended.exists():
            raise OSError("The disk is away.")
        return ad.read_h5ad(path)

    given = sw.pp.CorpusSource("slides", {**stored.data, "S1": open_slide}, licence="CC0")
    with pytest.raises(RuntimeError, match=r"1 of 3 slides were not built.*slides/S1 \(OSError: The disk is away"):
        corpora.build(tmp_path / "c", [given], client=client)
    assert {s.name for s in Corpus.open(tmp_path / "c").manifest.slides} == {"S0", "S2"}
    mended.touch()
    corpora.build(tmp_path / "c", [given], client=client)
    assert {s.name for s in Corpus.open(tmp_path / "c").manifest.slides} == {"S0", "S1", "S2"}


def test_objects_in_memory_and_what_is_no_client_are_refused(client: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="source 'slides' holds objects in memory"):
        corpora.build(tmp_path / "c", client=client)
    with pytest.raises(TypeError, match=r"client must be a dask\.distributed\.Client, not int"):
        corpora.build(tmp_path / "c", client=3)
    assert not (tmp_path / "c").exists()
