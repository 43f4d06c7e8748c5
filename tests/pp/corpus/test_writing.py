"""Shards of a slide appear whole beside those that are there, which go when the record names the new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from spatialwhisperer.pp.corpus import writing
from spatialwhisperer.training.corpus.manifest import open_manifest
from spatialwhisperer.training.corpus.shards import Corpus, check_digests
from tests import corpora

if TYPE_CHECKING:
    from pathlib import Path

    import spatialwhisperer as sw


def cells() -> list[sw.pp.CorpusSource]:
    """Cells with all three modalities."""
    table = corpora.slide(9, 60, ["C1", "C2"], captions=["tumour", "stroma"])
    return [corpora.sources()[1].__class__("cells", table, licence="CC0")]


def content(folder: Path) -> dict[str, bytes]:
    found = [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock" and p.name != ".manifest.lock"]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A corpus of cells without their images."""
    return corpora.build(tmp_path / "c", cells(), image=None, shard_rows=30)


def test_an_error_while_a_slide_is_built_again_leaves_what_was_there(
    two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, slides = content(two / "shards"), open_manifest(two).slides
    fill, calls = writing._fill, []

    def fails(folder: Path, *given: Any) -> None:
        fill(folder, *given)
        calls.append(folder)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "_fill", fails)
    with pytest.raises(OSError, match="No space left"):
        corpora.build(two, cells(), shard_rows=30)
    assert content(two / "shards") == before
    assert open_manifest(two).slides == slides
    monkeypatch.undo()
    corpus = Corpus.open(corpora.build(two, cells(), shard_rows=30))
    assert {s.record.modalities for s in corpus.shards} == {("gene", "image", "text")}
    check_digests(two, corpus.manifest.shards)
    # nothing is left of the former shards, nor of those that were not finished
    named = {f"{s.path}/{file}" for s in corpus.manifest.shards for file in s.files}
    assert named == {f"shards/{path}" for path in content(two / "shards")}


def test_what_a_killed_process_left_goes_with_the_next_call(two: Path) -> None:
    before = content(two)
    (record,) = open_manifest(two).slides
    (left,) = writing.unnamed_folders("cells", "cells", record)
    (two / left / "gene-0000").mkdir(parents=True)
    (two / left / "gene-0000" / "part").write_text("half a shard")
    corpora.build(two, cells(), image=None, shard_rows=30)
    assert content(two) == before
    assert not (two / left).exists()


def test_a_corpus_that_was_built_in_two_steps_is_that_of_one(two: Path, tmp_path: Path) -> None:
    corpora.build(two, cells(), shard_rows=30)
    once = corpora.build(tmp_path / "once", cells(), shard_rows=30)
    assert open_manifest(two).digest == open_manifest(once).digest
    assert open_manifest(two).digest != open_manifest(corpora.build(tmp_path / "other", cells())).digest


@pytest.mark.parametrize(("value", "text"), [(-70000.0, "-70000"), (65600.0, "65600")])
def test_features_too_large_for_half_precision_are_refused(value: float, text: str, tmp_path: Path) -> None:
    given: Any = cells()
    folder = corpora.build(tmp_path / "c", given, image=None, dtype="float16")
    before = content(folder / "shards")
    given[0].data.obsm["X_image"][7, 2] = value
    with pytest.raises(ValueError, match=rf'image features of cells/cells reach {text}, .*65504.*dtype="float32"'):
        corpora.build(folder, given, dtype="float16")
    assert content(folder / "shards") == before
    given[0].data.obsm["X_image"][7, 2] = 65510.0
    given[0].data.obsm["X_image"][8, 1] = np.nan
    without, shard = Corpus.open(corpora.build(folder, given, dtype="float16")).shards
    assert (without.record.rows, shard.record.rows) == (1, 59)
    assert shard.block(0, 59).features["image"].max() == 65504
