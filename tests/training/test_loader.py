"""Batches that threads prepare."""

from __future__ import annotations

import gc
import pickle
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch

from spatialwhisperer.encoders.base import Encoder
from spatialwhisperer.models.configuration.augmentation import Augmentation
from spatialwhisperer.training.augment import TileAugmenter
from spatialwhisperer.training.batches import ItemBatches, Items, ShuffledBatches, WholeBatches
from spatialwhisperer.training.loader import BatchLoader, pinned, workers_of

N = 23


class Tower(Encoder):
    def encode(self, inputs: Any, **options: Any) -> np.ndarray:
        raise NotImplementedError


def items() -> Items:
    tiles = np.random.default_rng(0).integers(0, 255, (N, 3, 8, 8), dtype=np.uint8)
    genes = np.random.default_rng(1).normal(size=(N, 4)).astype(np.float32)
    index = {"image": np.arange(N)[::-1].copy(), "gene": np.arange(N)}
    return Items({"image": tiles, "gene": genes}, index, np.arange(N), np.zeros(N))


def dataset(augment: bool = True) -> ItemBatches:
    changes = {"image": TileAugmenter(Augmentation(), 0)} if augment else {}
    return ItemBatches(items(), {"image": Tower()}, augment=changes)


def same(a: list[Any], b: list[Any]) -> bool:
    parts = [
        torch.equal(x["image"]["x"], y["image"]["x"]) and torch.equal(x["gene"]["x"], y["gene"]["x"])
        for x, y in zip(a, b, strict=True)
    ]
    return all(parts)


def threads() -> set[str]:
    return {t.name for t in threading.enumerate() if t.name.startswith("spatialwhisperer-batches")}


def test_batches_do_not_depend_on_the_number_of_threads() -> None:
    sampler = ShuffledBatches(N, 5, seed=0)
    of = {workers: list(BatchLoader(dataset(), sampler, workers=workers)) for workers in (0, 1, 3)}
    assert [b["row"].tolist() for b in of[0]] == [positions.tolist() for positions in sampler]
    assert same(of[0], of[1])
    assert same(of[0], of[3])
    assert not threads()


def test_frozen_features_are_looked_up_in_this_thread() -> None:
    frozen = ItemBatches(items().with_pairs([("image", "gene")]), {"image": Tower()})
    loader = BatchLoader(frozen, ShuffledBatches(N, 5, seed=0))
    assert loader.num_workers == loader.workers == 0
    batches = iter(loader)
    next(batches)
    assert not threads()


def test_tiles_change_with_the_epoch_and_validation_stays() -> None:
    sampler, plain = ShuffledBatches(N, N, seed=0), WholeBatches(N, 5, seed=0)
    loader, held_out = BatchLoader(dataset(), sampler, workers=2), BatchLoader(dataset(False), plain, workers=2)
    (first,), (again,), before = list(loader), list(loader), list(held_out)
    sampler.set_epoch(1)
    (second,) = list(loader)
    assert same([first], [again])
    tiles = torch.from_numpy(items().inputs["image"])
    assert torch.equal(first["image"]["x"][:, :, :0], tiles[:, :, :0])
    assert not torch.equal(first["image"]["x"], second["image"]["x"])
    assert same(before, list(held_out))
    for batch in before:
        expected = tiles[batch["image"]["id"]]
        assert torch.equal(batch["image"]["x"][batch["image"]["expand"]], expected)


def test_the_epoch_is_that_of_the_first_batch() -> None:
    """The trainer opens the loader before it states the epoch."""
    sampler = ShuffledBatches(N, 5, seed=0)
    loader = BatchLoader(dataset(), sampler, workers=1)
    opened = iter(loader)
    sampler.set_epoch(4)
    late = list(opened)
    assert same(late, list(loader))


def drawn(loader: Any, opened: int = 0) -> torch.Tensor:
    """State of torch's generator after a pass over the loader, which is opened a few times more."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(opened):
            iter(loader)
        list(loader)
        return torch.get_rng_state()


@pytest.mark.parametrize("opened", [0, 2])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_draws_the_number_that_a_pass_of_any_loader_draws(workers: int, opened: int) -> None:
    from torch.utils.data import DataLoader

    sampler = WholeBatches(N, 5, seed=0)
    expected = drawn(DataLoader(dataset(False), sampler=sampler, batch_size=None))
    assert torch.equal(drawn(BatchLoader(dataset(), sampler, workers=workers), opened), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_over_held_out_batches_draws_nothing(workers: int) -> None:
    held_out = BatchLoader(dataset(False), WholeBatches(N, 5, seed=0), workers=workers, training=False)
    assert torch.equal(drawn(held_out), drawn([]))


def test_an_error_in_a_thread_reaches_the_caller_after_the_batches_before_it() -> None:
    class Breaks(ItemBatches):
        def batch(self, positions: np.ndarray, epoch: int) -> dict[str, Any]:
            if 7 in positions:
                raise ValueError("tile 7 cannot be read")
            return super().batch(positions, epoch)

    sampler = WholeBatches(N, 4, seed=0)
    place = next(i for i, positions in enumerate(sampler) if 7 in positions)
    loader = BatchLoader(Breaks(items(), {"image": Tower()}), sampler, workers=3)
    batches = iter(loader)
    for _ in range(place):
        next(batches)
    with pytest.raises(ValueError, match="tile 7 cannot be read"):
        next(batches)
    assert not threads()


@pytest.mark.parametrize("how", ["close", "forget", "interrupt"])
def test_no_thread_stays_after_a_run_that_ends_early(how: str) -> None:
    class Slow(ItemBatches):
        def batch(self, positions: np.ndarray, epoch: int) -> dict[str, Any]:
            time.sleep(0.02)
            return super().batch(positions, epoch)

    loader = BatchLoader(Slow(items(), {"image": Tower()}), ShuffledBatches(N, 2, seed=0), workers=3)
    batches = iter(loader)
    next(batches)
    assert threads()
    if how == "close":
        loader.close()
        loader.close()
    elif how == "forget":
        del batches
        gc.collect()
    else:
        with pytest.raises(KeyboardInterrupt):
            batches.throw(KeyboardInterrupt)
    assert not threads()


def test_no_more_than_a_few_batches_are_ahead() -> None:
    made: list[int] = []

    class Counts(ItemBatches):
        def batch(self, positions: np.ndarray, epoch: int) -> dict[str, Any]:
            made.append(len(positions))
            return super().batch(positions, epoch)

    loader = BatchLoader(Counts(items(), {"image": Tower()}), WholeBatches(N, 1, seed=0), workers=2)
    batches = iter(loader)
    for taken in range(1, 6):
        next(batches)
        time.sleep(0.02)
        assert len(made) <= taken + 3
    loader.close()


def test_a_loader_can_be_sent_to_another_process() -> None:
    loader = BatchLoader(dataset(), ShuffledBatches(N, 5, seed=0), workers=2)
    before = list(loader)
    assert same(list(pickle.loads(pickle.dumps(loader))), before)


def test_pinning_reaches_every_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: x + 1)
    got = pinned({"a": torch.zeros(2), "b": {"c": torch.zeros(1)}, "d": "text"})
    assert got["a"].tolist() == [1, 1]
    assert got["b"]["c"].tolist() == [1]
    assert got["d"] == "text"


def test_processes_share_the_cores() -> None:
    assert 1 <= workers_of(1) <= 4
    assert workers_of(1000) == 1
