"""Batches of a corpus hold the rows that the order names, standardised as features in memory are."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from spatialwhisperer.statistics.standardize import standardize, statistics
from spatialwhisperer.training.corpus.batches import CorpusItems, Standard
from spatialwhisperer.training.corpus.feed import CorpusFeed, training_statistics
from spatialwhisperer.training.corpus.order import CorpusBatches, streams_of
from tests import corpora

if TYPE_CHECKING:
    from pathlib import Path

    from spatialwhisperer.training.corpus.shards import Corpus

PAIRS = (("image", "gene"), ("gene", "text"))


def standards(corpus: Corpus, how: str) -> dict[str, Standard]:
    none = np.zeros(4, np.float32), np.ones(4, np.float32)
    out = {"text": Standard("none", *none)}
    for m in ("image", "gene"):
        out[m] = Standard(how, *training_statistics(corpus, m, corpora.DIMS[m], held_out=frozenset(), seed=0))
    return out


def batches_of(corpus: Corpus, how: str, epoch: int = 0, batch_size: int = 24) -> list[dict[str, Any]]:
    records = [shard.record for shard in corpus.shards]
    order = CorpusBatches(streams_of(records, PAIRS, keep=bool, balanced=True), batch_size, seed=0)
    order.set_epoch(epoch)
    items = CorpusItems(corpus.shards, corpora.DIMS, standards(corpus, how))
    try:
        return [items.batch(pieces, epoch) for pieces in order]
    finally:
        items.close()


def in_memory(how: str) -> dict[str, np.ndarray]:
    """Standardised features of all rows with image and genes, by modality."""
    slides = corpora.sources()[0].data
    cells = corpora.sources()[1].data
    out = {}
    for m, tables in (("image", [*slides.values()]), ("gene", [*slides.values(), cells])):
        x = np.concatenate([t.obsm[f"X_{m}"] for t in tables])
        section = np.concatenate([np.full(t.n_obs, i) for i, t in enumerate(tables)])
        mean, std = statistics(x)
        out[m] = standardize(x, how=how, mean=mean, std=std, sections=section)[:150]
    return out


@pytest.mark.parametrize("how", ["none", "global", "section"])
def test_a_batch_holds_standardised_features_of_its_rows(corpus: Corpus, how: str) -> None:
    expected = in_memory(how)
    found: dict[str, list[Any]] = {"image": [], "gene": []}
    for batch in batches_of(corpus, how):
        assert batch["image"]["at"].tolist() == list(range(12))
        assert batch["text"]["at"].tolist() == list(range(12, 24))
        assert (batch["image"]["id"][12:] == -1).all()
        assert (batch["text"]["id"][:12] == -1).all()
        for m in found:
            found[m] += list(batch[m]["x"].numpy()[:12])
    # every image–gene row once, in another order
    for m, rows in found.items():
        a, b = np.array(rows), expected[m]
        a, b = (x[np.lexsort(np.round(x, 3).T)] for x in (a, b))
        assert len(a) <= len(b)
        assert np.abs(a[:, None] - b[None]).max(axis=2).min(axis=1).max() < 1e-5


def test_rows_with_the_same_caption_have_one_number(corpus: Corpus) -> None:
    texts = {t: corpora.HashedText().encode([t])[0] for t in ("tumour", "stroma", "fat", "T cells")}
    number: dict[str, int] = {}
    for batch in batches_of(corpus, "none"):
        for i, x in zip(batch["text"]["at"].tolist(), batch["text"]["x"].numpy(), strict=True):
            (name,) = [t for t, y in texts.items() if np.array_equal(x, y)]
            assert number.setdefault(name, int(batch["text"]["id"][i])) == int(batch["text"]["id"][i])
    assert len(set(number.values())) == 4


def test_a_batch_does_not_depend_on_those_before_it(corpus: Corpus) -> None:
    whole = batches_of(corpus, "section")
    records = [shard.record for shard in corpus.shards]
    order = CorpusBatches(streams_of(records, PAIRS, keep=bool, balanced=True), 24, seed=0)
    last = list(order)[-1]
    items = pickle.loads(pickle.dumps(CorpusItems(corpus.shards, corpora.DIMS, standards(corpus, "section"))))
    alone = items.batch(last, 0)
    items.close()
    for m in corpora.DIMS:
        assert (alone[m]["x"] == whole[-1][m]["x"]).all()
        assert (alone[m]["id"] == whole[-1][m]["id"]).all()


def test_a_row_with_two_wordings_has_the_other_one_in_the_next_epoch(tmp_path: Path) -> None:
    from spatialwhisperer.training.corpus.shards import Corpus

    cells: Any = corpora.slide(1, 40, ["A"], image=False, captions=["tumour", "fat"])
    cells.obs["text_2"] = [f"{t}, in other words" for t in cells.obs["text"]]
    cells.obs.loc[cells.obs_names[:5], "text_2"] = None
    source = corpora.sources()[1].__class__("cells", cells, "CC0", text_key=["text", "text_2"])
    corpus = Corpus.open(corpora.build(tmp_path / "c", [source]))
    texts = {t: corpora.HashedText().encode([t])[0] for t in {*cells.obs["text"], *cells.obs["text_2"].dropna()}}

    def said(epoch: int) -> dict[int, str]:
        order = CorpusBatches(
            streams_of([s.record for s in corpus.shards], [PAIRS[1]], keep=bool, balanced=True), 40, seed=0
        )
        items = CorpusItems(
            corpus.shards,
            {"gene": 5, "text": 4},
            {m: Standard("none", np.zeros(1), np.ones(1)) for m in ("gene", "text")},
        )
        (batch,) = [items.batch(pieces, epoch) for pieces in order]
        items.close()
        found = [next(t for t, y in texts.items() if np.array_equal(x, y)) for x in batch["text"]["x"].numpy()]
        return dict(zip(batch["row"].tolist(), found, strict=True))

    first, second = said(0), said(1)
    assert sum(first[row] != second[row] for row in first) == 35
    assert all(first[row].split(",")[0] == second[row].split(",")[0] for row in first)


def test_two_windows_of_each_stream_are_in_memory(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    from spatialwhisperer.training.corpus import order as module

    monkeypatch.setattr(module, "WINDOW_BLOCKS", 1)
    records = [shard.record for shard in corpus.shards]
    order = CorpusBatches(streams_of(records, PAIRS, keep=bool, balanced=True), 8, seed=0)
    items = CorpusItems(corpus.shards, corpora.DIMS, standards(corpus, "none"))
    most = 0
    for pieces in order:
        items.batch(pieces, 0)
        most = max(most, len(items._windows))
    items.close()
    assert most <= 4


def test_statistics_leave_held_out_patients_out(corpus: Corpus) -> None:
    slides = corpora.sources()[0].data
    mean, std = training_statistics(corpus, "image", 6, held_out=frozenset({"P1"}), seed=0)
    expected = statistics(np.concatenate([slides[n].obsm["X_image"] for n in ("S0", "S2")]))
    assert np.allclose(mean, expected[0], atol=1e-6)
    assert np.allclose(std, expected[1], atol=1e-6)


def test_rows_of_held_out_patients_are_in_the_validation_batches_alone(corpus: Corpus) -> None:
    feed = CorpusFeed(corpus, corpora.DIMS, standards(corpus, "none"), PAIRS, frozenset({"P1", "C2"}), 16, True, 0)
    train, val = feed.loaders(feed.sampler(1), processes=1, pin=False)
    assert val is not None
    assert [loader.training for loader in (train, val)] == [True, False]
    seen = [{int(row) for batch in loader for row in batch["row"]} for loader in (train, val)]
    for loader in (train, val):
        loader.close()
    patient = np.concatenate([shard.patients(0, shard.record.rows) for shard in corpus.shards])
    assert {str(p) for p in patient[sorted(seen[0])]} == {"P0", "P2", "C1"}
    assert {str(p) for p in patient[sorted(seen[1])]} == {"P1", "C2"}
