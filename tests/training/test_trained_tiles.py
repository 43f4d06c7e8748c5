"""Runs that train an image encoder on tiles, which are augmented and prepared by threads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from spatialwhisperer.encoders.base import Encoder
from spatialwhisperer.encoders.recipe import FeatureRecipe
from spatialwhisperer.models.configuration.augmentation import Augmentation
from spatialwhisperer.models.configuration.model import HeadConfig, ModalityConfig, ModelConfig
from spatialwhisperer.models.joint_space import JointSpace
from spatialwhisperer.training.augment import TileAugmenter
from spatialwhisperer.training.batches import Items
from spatialwhisperer.training.fit import Phase, fit_phase

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from spatialwhisperer.training.fit import Run

    Runs = Callable[..., Run]

N, PAIR = 24, ("image", "gene")


class Tower(Encoder):
    """A small network over tiles, which keeps the tiles of every batch."""

    def __init__(self) -> None:
        self.collated: list[np.ndarray] = []
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 6))

    def encode(self, inputs: Any, **options: Any) -> np.ndarray:
        raise NotImplementedError

    def module(self) -> torch.nn.Module:
        return torch.nn.Sequential(Scaled(), self.network)

    def collate(self, inputs: Any) -> torch.Tensor:
        self.collated.append(inputs)
        return torch.from_numpy(np.ascontiguousarray(inputs))


class Scaled(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float() / 255


@pytest.fixture(scope="module")
def items() -> Items:
    rng = np.random.default_rng(0)
    inputs = {
        "image": rng.integers(0, 255, (N, 3, 8, 8), dtype=np.uint8),
        "gene": rng.normal(size=(N, 5)).astype(np.float32),
    }
    return Items(inputs, {m: np.arange(N) for m in inputs}, np.arange(N), np.full(N, "a"))


def train(items: Items, run: Runs, *, kind: str = "u", validation: Items | None = None, **options: Any) -> Any:
    """The trained model, its encoder and its history."""
    tower, widths = Tower(), {"image": 6, "gene": 5}
    modalities = {
        m: ModalityConfig(FeatureRecipe(None, m), d, HeadConfig("linear_norm", d, 0.2), trained=m == "image")
        for m, d in widths.items()
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = JointSpace(ModelConfig(8, modalities), encoders={"image": tower})
    options = {"batch_size": 8, "max_epochs": 3, "augmentation": Augmentation()} | options
    phase = Phase("p", {PAIR: 1.0}, frozenset(PAIR), {"image": kind})
    history = fit_phase(model, items, validation, phase, run(unlocked={"image": kind}, **options))
    return model, tower, history


def same(a: Any, b: Any) -> bool:
    weights = zip(a[0].state_dict().values(), b[0].state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in weights) and bool(a[2].equals(b[2]))


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("spatialwhisperer")]


@pytest.mark.parametrize("augmentation", [None, Augmentation(rotation=10)])
def test_the_number_of_threads_changes_nothing(items: Items, run: Runs, augmentation: Any, tmp_path: Path) -> None:
    runs = [
        train(items, run, workers=n, augmentation=augmentation, folder=tmp_path / str(n), validation=items)
        for n in (0, 1, 3)
    ]
    assert same(runs[0], runs[1])
    assert same(runs[0], runs[2])
    assert not threads()


def test_augmentation_changes_training_and_not_validation(items: Items, run: Runs, tmp_path: Path) -> None:
    kept = items.subset(np.arange(8))
    plain = train(items, run, augmentation=None, folder=tmp_path / "a", workers=0, validation=kept)
    changed = train(items, run, folder=tmp_path / "b", workers=0, validation=kept)
    assert not same(plain, changed)
    tiles = items.inputs["image"]
    expected = {tile.tobytes() for tile in tiles}
    seen = [{tile.tobytes() for tile in batch} for batch in changed[1].collated]
    # three batches of training and then one of validation in each epoch
    assert len(seen) == 12
    for number, batch in enumerate(seen):
        assert (batch <= expected) == (number % 4 == 3)
    assert all({t.tobytes() for t in batch} <= expected for batch in plain[1].collated)
    epochs = [set.union(*seen[i : i + 3]) for i in (0, 4, 8)]
    assert not epochs[0] & epochs[1]
    for epoch, found in enumerate(epochs):
        assert found == {t.tobytes() for t in TileAugmenter(Augmentation(), 0)(tiles, epoch, np.arange(N))}


def test_an_encoder_that_is_frozen_in_a_phase_sees_tiles_as_they_are(items: Items, run: Runs) -> None:
    model, tower, _ = train(items, run, kind="u", workers=0, max_epochs=1)
    tower.collated.clear()
    phase = Phase("next", {PAIR: 1.0}, frozenset({"gene"}))
    fit_phase(model, items, None, phase, run(unlocked={"image": "u"}, augmentation=Augmentation(), batch_size=8))
    expected = {tile.tobytes() for tile in items.inputs["image"]}
    assert all({t.tobytes() for t in batch} <= expected for batch in tower.collated)


def stop_at(epoch: int, error: type[BaseException]) -> Any:
    from lightning.pytorch.callbacks import Callback

    class Stop(Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.current_epoch == epoch:
                raise error

    return Stop()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["U", "u"])
def test_an_interrupted_and_resumed_run_sees_the_same_tiles(items: Items, run: Runs, kind: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"kind": kind, "validation": items, "max_epochs": 4}
    whole = train(items, run, folder=tmp_path / "whole", workers=1, **options)
    with pytest.raises(KeyboardInterrupt):
        train(
            items,
            run,
            folder=tmp_path / "b",
            trainer={"callbacks": [stop_at(2, KeyboardInterrupt)]},
            workers=3,
            **options,
        )
    assert not threads()
    resumed = train(items, run, folder=tmp_path / "b", resume=True, workers=3, **options)
    assert same(whole, resumed)


def test_no_thread_stays_after_an_error(items: Items, run: Runs) -> None:
    with pytest.raises(RuntimeError):
        train(items, run, workers=3, trainer={"callbacks": [stop_at(0, RuntimeError)]})
    assert not threads()
    with pytest.raises(OSError, match="the disk is gone"):
        train(Items({**items.inputs, "image": Gone()}, items.index, items.row, items.group), run, workers=3)
    assert not threads()


class Gone:
    """Tiles that cannot be read."""

    shape, ndim, dtype = (N, 3, 8, 8), 4, np.dtype(np.uint8)

    def __getitem__(self, at: Any) -> np.ndarray:
        raise OSError("the disk is gone")


def test_captions_are_prepared_once(items: Items, run: Runs) -> None:
    """Each distinct caption once in a run, also with held-out items."""
    prepared: list[Any] = []

    class Words(Tower):
        def prepare(self, inputs: Any) -> list[int]:
            prepared.append(list(inputs))
            return [len(x) for x in inputs]

        def module(self) -> torch.nn.Module:
            return torch.nn.Linear(1, 6)

        def collate(self, inputs: Any) -> torch.Tensor:
            self.collated.append(inputs)
            return torch.tensor(inputs, dtype=torch.float32)[:, None]

    tower, captions = Words(), ["a", "bb", "ccc"]
    inputs = {"gene": items.inputs["gene"], "text": captions}
    given = Items(inputs, {"gene": np.arange(N), "text": np.arange(N) % 3}, np.arange(N), items.group)
    modalities = {
        m: ModalityConfig(FeatureRecipe(None, m), d, HeadConfig("linear_norm", d), trained=m == "text")
        for m, d in (("gene", 5), ("text", 6))
    }
    model = JointSpace(ModelConfig(8, modalities), encoders={"text": tower})
    pairs = {("gene", "text"): 1.0}
    phase = Phase("p", pairs, frozenset({"gene", "text"}), {"text": "u"})
    fit_phase(model, given, given, phase, run(pairs=pairs, unlocked={"text": "u"}, batch_size=8))
    assert prepared == [captions]
    assert all(set(batch) <= {1, 2, 3} for batch in tower.collated)
