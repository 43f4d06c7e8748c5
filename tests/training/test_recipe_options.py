"""What the options of a recipe do to a run, by value."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from spatialwhisperer.training.batches import ShuffledBatches
from spatialwhisperer.training.fit import fit
from tests.training.conftest import RECIPE

if TYPE_CHECKING:
    from collections.abc import Callable

    from spatialwhisperer.models.joint_space import JointSpace
    from spatialwhisperer.training.batches import Items
    from spatialwhisperer.training.fit import Run

    Space = Callable[..., JointSpace]
    Runs = Callable[..., Run]

HOW: dict[str, Any] = {"schedule": "joint", "image_link": None}


class Watch(Callback):
    """Remembers the batches, the groups of the optimiser, and the weights after each epoch."""

    def __init__(self) -> None:
        self.rows: list[np.ndarray] = []
        self.groups: list[dict[str, Any]] = []
        self.weights: list[dict[str, torch.Tensor]] = []

    def __deepcopy__(self, memo: Any) -> Watch:
        return self

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        self.groups = [dict(group) for group in trainer.optimizers[0].param_groups]

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        self.rows.append(batch["row"].numpy())

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        self.weights.append({k: v.clone() for k, v in pl_module.model.state_dict().items()})


def same(model: JointSpace, weights: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(x, weights[name]) for name, x in model.state_dict().items())


@pytest.mark.parametrize(
    ("warmup", "total", "steps"), [(0.0, 100, 1), (0.1, 100, 10), (1, 100, 1), (10, 100, 10), (10, 4, 4)]
)
def test_a_warm_up_is_a_fraction_or_a_number_of_steps(warmup: float, total: int, steps: int) -> None:
    assert replace(RECIPE, warmup=warmup).warmup_steps(total) == steps


@pytest.mark.parametrize("warmup", [-0.1, 1.5, float("nan"), float("inf")])
def test_a_warm_up_that_is_neither_is_refused(warmup: float) -> None:
    with pytest.raises(ValueError, match="a fraction of the steps below 1, or a whole number of steps"):
        replace(RECIPE, warmup=warmup)


@pytest.mark.parametrize("name", ["text_loss", "refine", "decay", "last_batch", "mixture", "select"])
def test_an_unknown_choice_is_refused(name: str) -> None:
    change: dict[str, Any] = {name: "sometimes"}
    with pytest.raises(ValueError, match=f"{name} must be '.*' or '.*', not 'sometimes'"):
        replace(RECIPE, **change)


@pytest.mark.parametrize(
    ("n", "size", "ranks", "sizes"),
    [
        (50, 16, 1, [16, 16, 16, 2]),
        (49, 16, 1, [16, 16, 16]),
        (48, 16, 1, [16, 16, 16]),
        (21, 8, 2, [8, 2]),
        (18, 8, 2, [8]),
    ],
)
def test_the_last_batch_is_kept_unless_it_has_no_negative(n: int, size: int, ranks: int, sizes: list[int]) -> None:
    batches = ShuffledBatches(n, size, seed=0, world_size=ranks, keep_last=True)
    found = []
    for rank in range(ranks):
        batches.rank_of = partial(int, rank)
        found.append(list(batches))
        assert len(batches) == len(sizes)
    assert [len(batch) for batch in found[0]] == sizes
    together = np.concatenate([np.concatenate(of_rank) for of_rank in found])
    assert len(set(together)) == len(together)


def test_weight_decay_on_all_parameters_or_on_matrices(items: Items, space: Space, run: Runs) -> None:
    decayed = {}
    for decay in ("matrices", "all"):
        watch = Watch()
        fit(space(), items, None, run({"callbacks": watch}, weight_decay=0.1, decay=decay), **HOW)
        decayed[decay] = {p.ndim for group in watch.groups if group["weight_decay"] for p in group["params"]}
    assert decayed["matrices"] == {2}
    assert {1, 2} <= decayed["all"]


def test_a_natural_mixture_has_each_item_once(items: Items, space: Space, run: Runs) -> None:
    rows = {}
    for mixture in ("balanced", "natural"):
        watch = Watch()
        how = run({"callbacks": watch}, mixture=mixture, max_epochs=1)
        fit(space(), items, None, how, **HOW)
        rows[mixture] = np.concatenate(watch.rows)
    assert sorted(rows["natural"]) == list(range(48))
    # 32 items of images and genes, and 16 of captions twice
    assert len(rows["balanced"]) == 64
    assert (rows["balanced"] >= 32).sum() == 32


def test_the_best_epoch_is_that_of_the_lowest_validation_loss(items: Items, space: Space, run: Runs) -> None:
    watch, model = Watch(), space()
    # so fast that later epochs are worse
    how = run({"callbacks": watch}, select="best", learning_rate=0.3, max_epochs=8)
    history = fit(model, items, None, how, **HOW).history
    best = int(history["val_loss"].argmin())
    assert best < 7
    assert same(model, watch.weights[best])
    trained = set(np.concatenate(watch.rows))
    assert len(trained) == 48 - 10


def test_validation_groups_choose_where_they_are_named(items: Items, space: Space, run: Runs) -> None:
    watch, model = Watch(), space()
    held_out = items.subset(np.flatnonzero(items.group == "b"))
    train = items.subset(np.flatnonzero(items.group == "a"))
    how = run({"callbacks": watch}, select="best", learning_rate=0.3, max_epochs=8)
    history = fit(model, train, held_out, how, **HOW).history
    assert same(model, watch.weights[int(history["val_loss"].argmin())])
    assert set(np.concatenate(watch.rows)) == set(train.row)


def test_validation_groups_without_pairs_of_a_phase_choose_nothing_there(items: Items, space: Space, run: Runs) -> None:
    watch, model = Watch(), space()
    # one pair has no negative
    history = fit(model, items, items.subset(np.arange(1)), run({"callbacks": watch}, select="best"), **HOW).history
    assert same(model, watch.weights[int(history["val_loss"].argmin())])
    assert len(set(np.concatenate(watch.rows))) == 48 - 10


def test_a_resumed_run_ends_with_the_best_epoch_of_the_whole_run(items: Items, space: Space, run: Runs) -> None:
    class Stop(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
            if trainer.current_epoch == 4:
                raise KeyboardInterrupt

    own = {"select": "best", "learning_rate": 0.3, "max_epochs": 8}
    straight = space()
    fit(straight, items, None, run(**own), **HOW)
    how = run({"callbacks": Stop()}, **own)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(space(), items, None, how, **HOW)
    resumed = space()
    again = replace(how, resume=True, trainer=run(**own).trainer)
    fit(resumed, items, None, again, **HOW)
    assert same(resumed, straight.state_dict())


def test_too_few_pairs_to_choose_on_are_refused(items: Items, space: Space, run: Runs) -> None:
    with pytest.raises(ValueError, match="select='last'"):
        fit(space(), items.subset(np.arange(3)), None, run(select="best"), **HOW)
