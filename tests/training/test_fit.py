from __future__ import annotations

import logging
import os
import random
import signal
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch

from spatialwhisperer.training import fit as module
from spatialwhisperer.training.closed_form import TEXT_PENALTY
from spatialwhisperer.training.fit import Phase, fit, fit_phase, in_closed_form
from spatialwhisperer.training.trainer import checked_options

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from spatialwhisperer.models.joint_space import JointSpace
    from spatialwhisperer.training.batches import Items
    from spatialwhisperer.training.fit import Run

    Space = Callable[..., JointSpace]
    Runs = Callable[..., Run]

SCHEDULES = [("joint", None), ("sequential", "contrastive")]


def same(a: JointSpace, b: JointSpace, atol: float = 0.0) -> bool:
    """Whether all weights are equal."""
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.allclose(x, y, rtol=0, atol=atol) for x, y in pairs)


def stop_at(epoch: int) -> Any:
    """A callback that interrupts the training."""
    from lightning.pytorch.callbacks import Callback

    class Stop(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
            if trainer.current_epoch == epoch:
                raise KeyboardInterrupt

    return Stop()


# ------------------------------------------------------------------------------------------------- schedules


def test_the_joint_schedule_trains_all_pairs_together(items: Items, space: Space, run: Runs) -> None:
    model = space()
    fitted = fit(model, items, None, run(max_epochs=8, learning_rate=3e-2), schedule="joint", image_link=None)
    assert set(fitted.history["phase"]) == {"joint"}
    # an epoch passes once through the larger stratum of 32 items, half a batch at a time
    assert fitted.history["step"].tolist() == [4 * (e + 1) for e in range(8)]
    for pair in ("image_gene", "gene_text"):
        assert fitted.history[f"loss_{pair}"].iloc[-1] < 0.7 * fitted.history[f"loss_{pair}"].iloc[0]
    assert len(fitted.penalties) == 0
    assert not model.training
    assert all(p.requires_grad and p.device.type == "cpu" for p in model.parameters())


def test_the_sequential_schedule_links_images_to_a_fixed_embedding(items: Items, space: Space, run: Runs) -> None:
    first, both = space(), space()
    phase = Phase("gene-text", {("gene", "text"): 1.0}, frozenset({"gene", "text"}))
    fit_phase(first, items, None, phase, run(folder=run().folder / "alone"))
    fitted = fit(both, items, None, run(), schedule="sequential", image_link="contrastive")
    assert fitted.history["phase"].tolist() == ["gene-text"] * 3 + ["image-gene"] * 3
    for modality in ("gene", "text"):
        weights = zip(first.heads[modality].parameters(), both.heads[modality].parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in weights)
    weights = zip(first.heads["image"].parameters(), both.heads["image"].parameters(), strict=True)
    assert not any(torch.equal(a, b) for a, b in weights)


def test_a_ridge_link_follows_the_training_of_the_other_heads(items: Items, space: Space, run: Runs) -> None:
    model = space()
    fitted = fit(model, items, None, run(), schedule="sequential", image_link="ridge")
    assert fitted.history["phase"].tolist() == ["gene-text"] * 3 + ["image-gene"]
    assert set(fitted.penalties) == {"ridge_alpha"}
    assert model.config.modalities["image"].head.kind == "linear"


def test_a_recipe_in_closed_form_trains_nothing(items: Items, space: Space, run: Runs) -> None:
    model = space()
    fitted = fit(model, items, None, run(closed_form=True), schedule="sequential", image_link="ridge")
    assert fitted.history["phase"].tolist() == ["gene-text", "image-gene"]
    assert fitted.history["step"].tolist() == [0, 0]
    assert fitted.penalties["text_penalty"] == TEXT_PENALTY
    assert {m.head.kind for m in model.config.modalities.values()} == {"linear"}
    assert not run().folder.exists()


def test_only_frozen_features_with_a_ridge_link_are_solved_in_closed_form(run: Runs) -> None:
    closed, plain = run(closed_form=True).recipe, run().recipe
    assert in_closed_form(closed, "ridge", {})
    assert not in_closed_form(closed, "contrastive", {})
    assert not in_closed_form(closed, "ridge", {"image": "U"})
    assert not in_closed_form(plain, "ridge", {})


def test_the_sequential_schedule_needs_a_bridge(items: Items, space: Space, run: Runs) -> None:
    with pytest.raises(ValueError, match="needs a modality that is part of all pairs. Use schedule='joint'"):
        fit(space(), items, None, run(bridge=None), schedule="sequential", image_link="ridge")


def test_the_loss_is_the_weighted_mean_over_the_pairs(items: Items, space: Space, run: Runs) -> None:
    pairs = {("image", "gene"): 3.0, ("gene", "text"): 1.0}
    history = fit(space(), items, None, run(pairs=pairs), schedule="joint", image_link=None).history
    # every batch holds both pairs, so the identity holds for the means over an epoch too
    expected = (3 * history["loss_image_gene"] + history["loss_gene_text"]) / 4
    assert np.allclose(history["loss"], expected, atol=1e-5)


# ------------------------------------------------------------------------------------------------- epochs and validation


@pytest.mark.parametrize(
    ("options", "expected"), [({"min_steps": 12}, 3), ({"min_steps": 17}, 5), ({"min_steps": 17, "max_epochs": 1}, 1)]
)
def test_small_data_are_trained_for_the_steps_of_the_recipe(
    items: Items, space: Space, run: Runs, options: dict[str, int], expected: int
) -> None:
    """Four steps make an epoch, and the recipe has three epochs; a number of epochs that is asked for comes first."""
    history = fit(space(), items, None, run(**options), schedule="joint", image_link=None).history
    assert history["epoch"].tolist() == list(range(expected))


def test_epochs_are_raised_for_steps_of_the_optimiser(items: Items, space: Space, run: Runs) -> None:
    """Of four batches that are accumulated in pairs, two steps make an epoch."""
    how = run({"accumulate_grad_batches": 2}, min_steps=9)
    history = fit(space(), items, None, how, schedule="joint", image_link=None).history
    assert history["step"].tolist() == [2, 4, 6, 8, 10]


@pytest.mark.parametrize(
    ("trainer", "measured"),
    [
        ({}, [0, 1, 2]),
        ({"check_val_every_n_epoch": 2}, [1]),
        ({"num_sanity_val_steps": 2}, [0, 1, 2]),
        ({"val_check_interval": 1}, [0, 1, 2]),
    ],
)
def test_held_out_items_give_a_validation_loss_and_change_nothing(
    items: Items, space: Space, run: Runs, trainer: dict[str, int], measured: list[int]
) -> None:
    own, other = items.subset(np.flatnonzero(items.group == "a")), items.subset(np.flatnonzero(items.group == "b"))
    # with dropout, a number that is drawn for the held-out items would change the steps that follow
    plain, validated = space(dropout=0.3), space(dropout=0.3)
    without = fit(plain, own, None, run(folder=run().folder / "1"), schedule="joint", image_link=None).history
    how = run(trainer, folder=run().folder / "2")
    history = fit(validated, own, other, how, schedule="joint", image_link=None).history
    assert {"val_loss", "val_loss_image_gene", "val_loss_gene_text"} <= set(history)
    assert np.flatnonzero(history["val_loss"].notna()).tolist() == measured
    assert "val_loss" not in without
    assert same(plain, validated)
    assert np.array_equal(without["loss"], history["loss"])


def test_loaders_that_are_opened_again_change_nothing(items: Items, space: Space, run: Runs, tmp_path: Path) -> None:
    plain, again = space(dropout=0.3), space(dropout=0.3)
    fit(plain, items, None, run(folder=tmp_path / "1"), schedule="joint", image_link=None)
    often = {"reload_dataloaders_every_n_epochs": 1}
    stopping = run({**often, "callbacks": stop_at(2)}, folder=tmp_path / "2")
    with pytest.raises(KeyboardInterrupt):
        fit(space(dropout=0.3), items, None, stopping, schedule="joint", image_link=None)
    fit(again, items, None, run(often, folder=tmp_path / "2", resume=True), schedule="joint", image_link=None)
    assert same(plain, again)


@pytest.mark.parametrize("closed_form", [False, True])
def test_a_link_in_closed_form_has_an_error_on_held_out_items(
    items: Items, space: Space, run: Runs, closed_form: bool
) -> None:
    own, other = items.subset(np.flatnonzero(items.group == "a")), items.subset(np.flatnonzero(items.group == "b"))
    how = run(closed_form=closed_form)
    history = fit(space(), own, other, how, schedule="sequential", image_link="ridge").history
    assert history["val_loss"].notna().all()
    assert history["phase"].iloc[-1] == "image-gene"


def test_a_phase_without_held_out_pairs_has_no_validation_loss(items: Items, space: Space, run: Runs) -> None:
    images = items.subset(np.arange(8))
    history = fit(space(), items, images, run(), schedule="sequential", image_link="contrastive").history
    assert history.set_index("phase")["val_loss"].notna().groupby(level=0).all().to_dict() == {
        "gene-text": False,
        "image-gene": True,
    }


def test_a_phase_that_ends_before_its_first_step_is_an_error(items: Items, space: Space, run: Runs) -> None:
    limited = run({"max_time": {"seconds": 0}})
    with pytest.raises(ValueError, match=r"'joint' ended before its first step.*trainer={'max_time': {'seconds': 0}}"):
        fit(space(), items, None, limited, schedule="joint", image_link=None)
    history = fit(space(), items, None, run({"max_steps": 1}), schedule="joint", image_link=None).history
    assert history["step"].tolist() == [1]


# ------------------------------------------------------------------------------------------------- the process


@pytest.mark.parametrize(("schedule", "link"), SCHEDULES)
def test_the_seed_decides(items: Items, space: Space, run: Runs, schedule: str, link: str | None) -> None:
    models = []
    for number, seed in enumerate((4, 4, 5)):
        torch.manual_seed(number)
        models.append(space())
        options = run(random_state=seed, folder=run().folder / str(number))
        fit(models[-1], items, None, options, schedule=schedule, image_link=link)
    assert same(models[0], models[1])
    assert not same(models[0], models[2])


@pytest.mark.parametrize(("schedule", "link"), [*SCHEDULES, ("sequential", "ridge")])
@pytest.mark.parametrize("closed_form", [False, True])
def test_the_process_keeps_its_random_state(
    items: Items, space: Space, run: Runs, schedule: str, link: str | None, closed_form: bool
) -> None:
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    options = run(max_epochs=1, closed_form=closed_form)
    fit(space(heads={"gene": "bn_shortcut"}), items, None, options, schedule=schedule, image_link=link)
    after = random.getstate(), np.random.get_state()[1], torch.get_rng_state()  # noqa: NPY002
    assert before[0] == after[0]
    assert np.array_equal(before[1], after[1])
    assert torch.equal(before[2], after[2])


def test_the_process_keeps_its_switches(items: Items, space: Space, run: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deterministic run is so, and what follows it is not."""
    from lightning.pytorch.callbacks import Callback

    seen: list[tuple[bool, bool, str | None]] = []

    class Look(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
            seen.append(switches())

    def switches() -> tuple[bool, bool, str | None]:
        on = torch.are_deterministic_algorithms_enabled()
        return on, torch.backends.cudnn.benchmark, os.environ.get("CUBLAS_WORKSPACE_CONFIG")

    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    before = switches()
    given = {"deterministic": True, "benchmark": True, "callbacks": Look()}
    checked_options(given)
    assert switches() == before
    fit(space(), items, None, run(given, max_epochs=1), schedule="joint", image_link=None)
    assert seen == [(True, True, ":4096:8")]
    assert switches() == before == (False, False, None)


def test_switches_of_the_user_stay_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        checked_options({"deterministic": True})
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    finally:
        torch.use_deterministic_algorithms(False)


def test_lightning_is_silent_and_its_loggers_are_left_as_they_were(
    items: Items, space: Space, run: Runs, capfd: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(space(), items, None, run(), schedule="joint", image_link=None)
    assert "GPU available" not in capfd.readouterr().err
    assert log.level == level


@pytest.mark.parametrize("level", [logging.DEBUG, logging.ERROR])
def test_loggers_of_the_user_are_left_as_they_were(items: Items, space: Space, run: Runs, level: int) -> None:
    logs = [logging.getLogger(n) for n in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "mine")]
    before = [log.level for log in logs]
    handler = logging.NullHandler()
    try:
        for log in logs:
            log.setLevel(level)
            log.addHandler(handler)
        state = [(log.level, log.disabled, log.propagate, list(log.handlers)) for log in logs]
        fit(space(), items, None, run(max_epochs=1), schedule="joint", image_link=None)
        with pytest.raises(KeyboardInterrupt):
            fit(space(), items, None, run({"callbacks": stop_at(0)}), schedule="joint", image_link=None)
        assert [(log.level, log.disabled, log.propagate, list(log.handlers)) for log in logs] == state
    finally:
        for log, old in zip(logs, before, strict=True):
            log.setLevel(old)
            log.removeHandler(handler)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 1),
        ({"devices": 2}, 2),
        ({"devices": "2", "num_nodes": 3}, 6),
        ({"devices": "auto"}, 1),
    ],
)
def test_processes_are_counted_as_lightning_does(options: dict[str, Any], expected: int) -> None:
    import lightning.pytorch

    assert module._world_size(lightning.pytorch, {"accelerator": "cpu", "strategy": "ddp", **options}) == expected


def test_early_stopping_begins_anew_in_each_phase_and_each_run(items: Items, space: Space, run: Runs) -> None:
    from lightning.pytorch.callbacks import EarlyStopping

    # no loss falls by a hundred, so that every phase ends two epochs after its first
    stopping = EarlyStopping("loss", patience=2, min_delta=100.0)
    for number in range(2):
        how = run({"callbacks": [stopping]}, max_epochs=8, folder=run().folder / str(number))
        history = fit(space(), items, None, how, schedule="sequential", image_link="contrastive").history
        assert history["phase"].tolist() == ["gene-text"] * 3 + ["image-gene"] * 3


# ------------------------------------------------------------------------------------------------- interruption


@pytest.mark.parametrize(("schedule", "link"), SCHEDULES)
def test_an_interrupted_run_continues(
    items: Items, space: Space, run: Runs, schedule: str, link: str | None, tmp_path: Path
) -> None:
    whole, model = space(), space()
    expected = fit(whole, items, None, run(max_epochs=4), schedule=schedule, image_link=link).history
    folder, handler = tmp_path / "stopped", signal.getsignal(signal.SIGINT)
    stopping = run({"callbacks": stop_at(3)}, max_epochs=4, folder=folder)
    with pytest.raises(KeyboardInterrupt, match="resume=True"):
        fit(model, items, None, stopping, schedule=schedule, image_link=link)
    assert signal.getsignal(signal.SIGINT) is handler
    first = "joint" if schedule == "joint" else "gene-text"
    assert len(pd.read_csv(folder / first / "history.csv")) == 3
    model = space()
    fitted = fit(model, items, None, run(max_epochs=4, folder=folder, resume=True), schedule=schedule, image_link=link)
    pd.testing.assert_frame_equal(fitted.history, expected, check_exact=True)
    assert same(model, whole)


def test_a_run_that_was_killed_continues_its_history(items: Items, space: Space, run: Runs, tmp_path: Path) -> None:
    """A process that is killed has no time to write its history; the checkpoint holds it."""
    expected = fit(space(), items, None, run(max_epochs=4), schedule="joint", image_link=None).history
    folder = tmp_path / "killed"
    stopping = run({"callbacks": [stop_at(3)]}, max_epochs=4, folder=folder)
    with pytest.raises(KeyboardInterrupt):
        fit(space(), items, None, stopping, schedule="joint", image_link=None)
    (folder / "joint" / "history.csv").unlink()
    resumed = run(max_epochs=4, folder=folder, resume=True)
    history = fit(space(), items, None, resumed, schedule="joint", image_link=None).history
    pd.testing.assert_frame_equal(history, expected, check_exact=True)


def test_the_last_checkpoint_is_that_of_the_last_step(items: Items, space: Space, run: Runs) -> None:
    """21 epochs are no multiple of the two between checkpoints."""
    model, again = space(), space()
    history = fit(model, items, None, run(max_epochs=21), schedule="joint", image_link=None).history
    names = sorted(path.name for path in (run().folder / "joint").glob("*.ckpt"))
    assert names == ["step-0000000080.ckpt", "step-0000000084.ckpt"]
    checkpoint = torch.load(run().folder / "joint" / names[-1], weights_only=True)
    assert checkpoint["global_step"] == history["step"].iloc[-1] == 84
    for name, value in model.state_dict().items():
        assert torch.equal(checkpoint["state_dict"][f"model.{name}"], value)
    # a finished run that is resumed stays as it is
    resumed = fit(again, items, None, run(max_epochs=21, resume=True), schedule="joint", image_link=None).history
    assert same(model, again)
    pd.testing.assert_frame_equal(history, resumed)
