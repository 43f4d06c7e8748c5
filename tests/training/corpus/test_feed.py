"""What a corpus feeds a training run with: which rows, of which sections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import spatialwhisperer as sw
from spatialwhisperer.training.corpus.batches import Standard
from spatialwhisperer.training.corpus.feed import CorpusFeed
from spatialwhisperer.training.corpus.shards import Corpus
from tests import corpora

if TYPE_CHECKING:
    from pathlib import Path

PAIRS = (("image", "gene"), ("gene", "text"))


def feed(corpus: Corpus, *held_out: str) -> CorpusFeed:
    return CorpusFeed(corpus, corpora.DIMS, {}, PAIRS, frozenset(held_out), 16, True, 0)


def test_rows_of_held_out_patients_are_not_counted(corpus: Corpus) -> None:
    assert feed(corpus).pair_rows() == {("image", "gene"): 150, ("gene", "text"): 90}
    assert feed(corpus, "P1", "C2").pair_rows() == {("image", "gene"): 100, ("gene", "text"): 45}
    assert feed(corpus, "C1", "C2").pair_rows() == {("image", "gene"): 150, ("gene", "text"): 0}


def test_validation_batches_hold_about_as_many_rows_of_each_kind_as_batches_to_train_on(corpus: Corpus) -> None:
    """A contrastive loss grows with the number of negatives."""
    kinds = np.concatenate([[i] * shard.record.rows for i, shard in enumerate(corpus.shards)])
    of_kind = np.array([shard.record.modalities == ("gene", "image") for shard in corpus.shards])[kinds]
    # at most 8: 50 rows of P1 are 7 batches, 45 of C2 are 6
    for held_out, expected in ((("P1",), [7, 0]), (("C2",), [0, 7]), (("P1", "C2"), [7, 7])):
        one = feed(corpus, *held_out)
        one.standards = {m: Standard("none", np.zeros(d), np.ones(d)) for m, d in corpora.DIMS.items()}
        for loader, wanted in zip(one.loaders(one.sampler(1), processes=1, pin=False), ([8, 8], expected), strict=True):
            assert loader is not None
            for batch in loader:
                inside = of_kind[batch["row"].numpy()]
                assert [int(inside.sum()), int((~inside).sum())] == wanted
            loader.close()


def test_sections_without_a_training_patient_are_not_named(tmp_path: Path) -> None:
    table: Any = corpora.slide(3, 600, ["A", "B"])
    rng = np.random.default_rng(0)
    # patient A is in the first two sections, B in the last two
    table.obs["section"] = np.where(table.obs["patient"] == "A", rng.integers(0, 2, 600), rng.integers(1, 3, 600))
    table.obs["section"] = [f"s{i}" for i in table.obs["section"]]
    table.obsm["spatial"] = rng.uniform(0, 1000, (600, 2))
    given = sw.pp.CorpusSource("slides", {"S": table, "T": corpora.slide(4, 40, ["B"])}, licence="CC0")
    corpus = Corpus.open(corpora.build(tmp_path / "c", [given], text=None))
    assert feed(corpus).sections() == ["slides/S:s0", "slides/S:s1", "slides/S:s2", "slides/T:all"]
    assert feed(corpus, "B").sections() == ["slides/S:s0", "slides/S:s1"]
    assert feed(corpus, "A").sections() == ["slides/S:s1", "slides/S:s2", "slides/T:all"]
