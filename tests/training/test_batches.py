from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from spatialwhisperer.encoders.towers import GeneTower
from spatialwhisperer.training.batches import ItemBatches, Items, ShuffledBatches


def items(n: int = 10) -> Items:
    """Rows 0-4 have image and gene, 5-9 gene and text."""
    rng = np.random.default_rng(0)
    inputs = {
        "image": rng.normal(size=(5, 3)).astype(np.float32),
        "gene": rng.normal(size=(n, 2)).astype(np.float32),
        "text": rng.normal(size=(2, 4)).astype(np.float32),
    }
    index = {
        "image": np.where(np.arange(n) < 5, np.arange(n), -1),
        "gene": np.arange(n),
        "text": np.where(np.arange(n) < 5, -1, np.arange(n) % 2),
    }
    return Items(inputs, index, np.arange(n), np.repeat(["a", "b"], n // 2))


def test_pairs_narrow_the_items() -> None:
    pairs = items().with_pairs([("image", "gene")])
    assert len(pairs) == 5
    assert sorted(pairs.index) == ["gene", "image"]
    assert items().count("image", "gene") == 5
    assert items().count("image", "text") == 0
    assert items().count("gene", "tile") == 0
    twice = items().subset(np.array([0, 0, 1]))
    assert twice.count("image", "gene") == 2


def test_a_batch_is_the_same_items_whatever_the_order() -> None:
    dataset = ItemBatches(items(), {})
    forward, backward = dataset[np.array([1, 7, 3])], dataset[np.array([3, 7, 1])]
    assert forward["image"]["at"].tolist() == backward["image"]["at"].tolist() == [0, 2]
    assert forward["image"]["id"].tolist() == [1, -1, 3]
    assert np.array_equal(forward["image"]["x"], dataset.items.inputs["image"][[1, 3]])
    assert np.array_equal(forward["gene"]["x"].flip(0), backward["gene"]["x"])
    assert forward["text"]["at"].tolist() == [1]


def test_towers_see_each_distinct_input_once_and_no_empty_batch() -> None:
    from dataclasses import replace

    import torch

    counts = csr_matrix(np.arange(20).reshape(10, 2).astype(np.float32))
    given = replace(items(), inputs=items().inputs | {"gene": counts})
    dataset = ItemBatches(given, {"gene": GeneTower(torch.nn.Identity())})
    part = dataset[np.array([4, 2, 4])]["gene"]
    assert part["x"].tolist() == [[4, 5], [8, 9]]
    assert part["x"][part["expand"]].tolist() == [[8, 9], [4, 5], [8, 9]]

    class Refuses(torch.nn.Module):
        def collate(self, texts: list[str]) -> None:
            raise AssertionError(f"asked to tokenise {texts}")

    captions = replace(items(), inputs=items().inputs | {"text": ["a", "b"]})
    assert len(ItemBatches(captions, {"text": Refuses()})[np.array([0, 1])]["text"]["at"]) == 0


def test_every_item_once_an_epoch_and_the_rest_dropped() -> None:
    sampler = ShuffledBatches(23, 5, seed=3)
    first = list(sampler)
    assert len(sampler) == len(first) == 4
    assert {len(b) for b in first} == {5}
    assert len(np.unique(np.concatenate(first))) == 20
    assert np.array_equal(np.concatenate(first), np.concatenate(list(sampler)))
    sampler.set_epoch(1)
    assert not np.array_equal(np.concatenate(first), np.concatenate(list(sampler)))
    assert np.concatenate(list(ShuffledBatches(6, 2, seed=0, shuffle=False))).tolist() == list(range(6))
    assert [len(b) for b in ShuffledBatches(3, 512, seed=0)] == [3]


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_an_epoch(world_size: int) -> None:
    n, per_rank = 40, 4
    whole = ShuffledBatches(n, per_rank * world_size, seed=1)
    ranks = []
    for rank in range(world_size):
        sampler = ShuffledBatches(n, per_rank, seed=1, world_size=world_size)
        sampler.rank_of = lambda rank=rank: rank
        ranks.append(list(sampler))
        assert {len(b) for b in ranks[-1]} == {per_rank}
    for step, batch in enumerate(whole):
        parts = [set(rank[step].tolist()) for rank in ranks]
        assert set.union(*parts) == set(batch.tolist())
        assert sum(map(len, parts)) == len(batch)


def test_strata_share_every_batch() -> None:
    """Few items of one kind beside many of another: half of a batch each, the few repeated."""
    strata = np.array([0] * 6 + [1] * 30)
    sampler = ShuffledBatches(36, 10, seed=0, strata=strata)
    batches = list(sampler)
    assert len(sampler) == len(batches) == 6
    assert all((strata[b] == 0).sum() == 5 for b in batches)
    everything = np.concatenate(batches)
    assert sorted(everything[strata[everything] == 1]) == list(range(6, 36))
    assert np.bincount(everything[strata[everything] == 0], minlength=6).tolist() == [5] * 6
    assert len(set(items().strata().tolist())) == 2
    for rank in range(2):
        sampler = ShuffledBatches(36, 10, seed=0, strata=strata, world_size=2)
        sampler.rank_of = lambda rank=rank: rank
        assert all((strata[b] == 0).sum() == 5 for b in sampler)


def test_a_batch_knows_every_caption_of_a_row() -> None:
    """A row with two captions is two items; either item holds both."""
    from dataclasses import replace

    two = replace(
        items().subset(np.array([0, 5, 6, 6])),
        row=np.array([0, 5, 6, 6]),
        index={"gene": np.array([0, 5, 6, 6]), "text": np.array([-1, 1, 0, 1])},
    )
    text = ItemBatches(two, {})[np.array([3, 0, 1, 2])]["text"]
    assert text["at"].tolist() == [0, 2, 3]
    # captions 0 and 1 first stand at positions 3 and 0 of the batch
    assert text["first"].tolist() == [3, 0]
    assert text["holds"].tolist() == [[True, True], [False, False], [False, True], [True, True]]
