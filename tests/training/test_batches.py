from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from spatialwhisperer.encoders.base import Encoder
from spatialwhisperer.training.batches import ItemBatches, Items, ShuffledBatches, WholeBatches
from spatialwhisperer.training.text.wordings import Wordings


class Collating(Encoder):
    """An encoder that is trained; it keeps what it was asked to collate."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def encode(self, inputs: Any, **options: Any) -> np.ndarray:
        raise NotImplementedError

    def collate(self, inputs: Any) -> Any:
        self.asked.append(inputs)
        return torch.as_tensor(inputs.toarray()) if hasattr(inputs, "toarray") else list(inputs)


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


# ------------------------------------------------------------------------------------------------- items


def test_pairs_narrow_the_items() -> None:
    pairs = items().with_pairs([("image", "gene")])
    assert len(pairs) == 5
    assert sorted(pairs.index) == ["gene", "image"]
    assert pairs.inputs["gene"] is not None
    assert "text" not in pairs.inputs


def test_distinct_pairs_are_counted() -> None:
    assert items().count("image", "gene") == 5
    assert items().count("image", "text") == 0
    assert items().count("gene", "tile") == 0
    twice = items().subset(np.array([0, 0, 1]))
    assert twice.count("image", "gene") == 2


def test_items_of_the_same_modalities_are_of_one_stratum() -> None:
    strata = items().strata()
    assert len(set(strata[:5])) == len(set(strata[5:])) == 1
    assert strata[0] != strata[5]


# ------------------------------------------------------------------------------------------------- batches


def test_a_batch_is_the_same_items_whatever_the_order() -> None:
    dataset = ItemBatches(items(), {})
    forward, backward = dataset[np.array([1, 7, 3])], dataset[np.array([3, 7, 1])]
    assert forward["image"]["at"].tolist() == backward["image"]["at"].tolist() == [0, 2]
    assert forward["image"]["id"].tolist() == [1, -1, 3]
    assert np.array_equal(forward["image"]["x"], dataset.items.inputs["image"][[1, 3]])
    assert np.array_equal(forward["gene"]["x"].flip(0), backward["gene"]["x"])
    assert forward["text"]["at"].tolist() == [1]


def test_a_trained_encoder_gets_each_distinct_input_once() -> None:
    counts = csr_matrix(np.arange(20).reshape(10, 2).astype(np.float32))
    given = replace(items(), inputs={**items().inputs, "gene": counts})
    part = ItemBatches(given, {"gene": Collating()})[np.array([4, 2, 4])]["gene"]
    assert part["x"].tolist() == [[4, 5], [8, 9]]
    assert part["x"][part["expand"]].tolist() == [[8, 9], [4, 5], [8, 9]]


def test_a_trained_encoder_gets_captions_as_a_list_and_no_empty_batch() -> None:
    encoder = Collating()
    captions = replace(items(), inputs={**items().inputs, "text": ["a", "b"]})
    dataset = ItemBatches(captions, {"text": encoder})
    assert len(dataset[np.array([0, 1])]["text"]["at"]) == 0
    assert encoder.asked == []
    assert dataset[np.array([7, 9, 0])]["text"]["x"] == ["b"]


def test_a_batch_holds_the_neighbours_of_its_rows() -> None:
    neighbours, offsets = (
        np.array([[0, 2, -1], [1, 0, 2], [2, -1, -1]]),
        np.random.default_rng(0).normal(size=(3, 3, 2)),
    )
    x = np.arange(6, dtype=np.float32).reshape(3, 2) + 1
    context = {"gene": {"neighbours": neighbours, "offsets": offsets}}
    given = Items({"gene": x}, {"gene": np.array([2, 0, 1])}, np.arange(3), np.zeros(3), context)
    part = ItemBatches(given, {})[np.array([1, 2])]["gene"]
    assert part["context"]["mask"].tolist() == [[True, True, False], [True, True, True]]
    assert part["x"].tolist() == [[[1, 2], [5, 6], [0, 0]], [[3, 4], [1, 2], [5, 6]]]
    assert np.array_equal(part["context"]["offsets"], offsets[[0, 1]])


def test_a_batch_holds_the_array_positions_of_its_rows() -> None:
    positions = np.array([[4, 1], [7, 2], [0, 0]])
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    given = Items(
        {"gene": x}, {"gene": np.array([2, 0])}, np.arange(2), np.zeros(2), {"gene": {"positions": positions}}
    )
    part = ItemBatches(given, {})[np.array([1, 0])]["gene"]
    assert part["x"].tolist() == [[0, 1], [4, 5]]
    assert part["context"]["positions"].tolist() == [[4, 1], [0, 0]]


def test_values_follow_their_items_through_batches() -> None:
    """A decoder gets the value of the row that the image belongs to; without images it gets none."""
    rng = np.random.default_rng(0)
    values = csr_matrix(np.arange(12, dtype=np.float32).reshape(4, 3))
    index = {"image": np.array([0, 1, -1, 2]), "gene": np.arange(4), "text": np.array([-1, 0, 0, -1])}
    inputs = {"image": rng.normal(size=(3, 2)), "gene": rng.normal(size=(4, 2)), "text": rng.normal(size=(1, 2))}
    given = Items(inputs, index, np.arange(4), np.arange(4), values=values, value_index=np.array([3, -1, 1, 0]))
    batch = ItemBatches(given, {})[np.array([3, 2, 1, 0])]["values"]
    assert batch["at"].tolist() == [0, 3]
    assert batch["y"].tolist() == [[0, 1, 2], [9, 10, 11]]
    kept = ItemBatches(given.subset(np.array([0, 3])), {})[np.array([0])]["values"]
    assert kept["y"].tolist() == [[9, 10, 11]]
    language = given.with_pairs([("gene", "text")])
    assert "values" not in ItemBatches(language, {})[np.arange(len(language))]


def test_a_batch_holds_every_caption_of_a_row() -> None:
    """A row with two captions is two items; either item holds both."""
    two = replace(
        items().subset(np.array([0, 5, 6, 6])),
        row=np.array([0, 5, 6, 6]),
        index={"gene": np.array([0, 5, 6, 6]), "text": np.array([-1, 1, 0, 1])},
    )
    text = ItemBatches(two, {})[np.array([3, 0, 1, 2])]["text"]
    assert text["at"].tolist() == [0, 2, 3]
    assert text["captions"].tolist() == [[0, 1], [-1, -1], [1, -1], [0, 1]]


# ------------------------------------------------------------------------------------------------- the order


def test_an_epoch_has_every_item_once_and_drops_the_rest() -> None:
    sampler = ShuffledBatches(23, 5, seed=3)
    first = list(sampler)
    assert len(sampler) == len(first) == 4
    assert {len(b) for b in first} == {5}
    assert len(np.unique(np.concatenate(first))) == 20
    assert np.array_equal(np.concatenate(first), np.concatenate(list(sampler)))
    sampler.set_epoch(1)
    assert not np.array_equal(np.concatenate(first), np.concatenate(list(sampler)))
    assert [len(b) for b in ShuffledBatches(3, 512, seed=0)] == [3]


@pytest.mark.parametrize(("n", "size", "sizes"), [(10, 4, {3, 4}), (8, 4, {4}), (3, 4, {3}), (13, 6, {4, 5})])
def test_validation_holds_every_item_once_in_batches_of_nearly_one_size(n: int, size: int, sizes: set[int]) -> None:
    sampler = WholeBatches(n, size, seed=0)
    batches = list(sampler)
    assert len(sampler) == len(batches)
    assert {len(b) for b in batches} == sizes
    assert sorted(np.concatenate(batches)) == list(range(n))
    assert all(np.array_equal(a, b) for a, b in zip(batches, sampler, strict=True))


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_divide_every_batch(world_size: int) -> None:
    n, per_rank = 40, 4
    whole = ShuffledBatches(n, per_rank * world_size, seed=1)
    ranks = []
    for rank in range(world_size):
        sampler = ShuffledBatches(n, per_rank, seed=1, world_size=world_size)
        sampler.rank_of = partial(int, rank)
        ranks.append(list(sampler))
        assert {len(b) for b in ranks[-1]} == {per_rank}
    for step, batch in enumerate(whole):
        parts = [set(rank[step].tolist()) for rank in ranks]
        assert set.union(*parts) == set(batch.tolist())
        assert sum(map(len, parts)) == len(batch)


def test_every_batch_holds_the_strata_in_equal_parts() -> None:
    """Few items of one kind beside many of another: half of a batch each, the few repeated."""
    strata = np.array([0] * 6 + [1] * 30)
    sampler = ShuffledBatches(36, 10, seed=0, strata=strata)
    batches = list(sampler)
    assert len(sampler) == len(batches) == 6
    assert all((strata[b] == 0).sum() == 5 for b in batches)
    everything = np.concatenate(batches)
    assert sorted(everything[strata[everything] == 1]) == list(range(6, 36))
    assert np.bincount(everything[strata[everything] == 0], minlength=6).tolist() == [5] * 6
    for rank in range(2):
        sampler = ShuffledBatches(36, 10, seed=0, strata=strata, world_size=2)
        sampler.rank_of = partial(int, rank)
        assert all((strata[b] == 0).sum() == 5 for b in sampler)


def test_an_item_has_the_next_wording_of_its_caption_in_every_epoch() -> None:
    wordings = Wordings(2, np.array([2, 3]), np.array([0, 0]), np.zeros(2, bool))
    index = {"gene": np.arange(4), "text": np.array([0, 0, 1, -1])}
    inputs = {"gene": np.zeros((4, 1)), "text": np.arange(4.0)[:, None]}
    given = Items(inputs, index, np.arange(4), np.zeros(4), wordings=wordings)
    batches = ItemBatches(given, {})
    for epoch, expected in enumerate([[0, 2, 1], [2, 3, 1], [3, 0, 1], [0, 2, 1]]):
        batch = batches.batch(np.arange(4), epoch)["text"]
        assert batch["x"].flatten().tolist() == expected
        assert batch["id"].tolist() == [0, 0, 1, -1]
