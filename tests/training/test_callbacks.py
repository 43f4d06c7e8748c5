from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch

import spatialwhisperer as sw
from spatialwhisperer.training.callbacks import Checkpoints, EpochBar, History, TimeLimit
from spatialwhisperer.training.resuming.ended import time_was_up

if TYPE_CHECKING:
    from pathlib import Path


def trainer(epoch: int = 0, **metrics: float) -> Any:
    """What the callbacks read of a Trainer."""
    return SimpleNamespace(
        is_global_zero=True,
        current_epoch=epoch,
        global_step=10 * (epoch + 1),
        max_epochs=5,
        callback_metrics={name: torch.tensor(value) for name, value in metrics.items()},
    )


def after(history: History, *losses: float) -> History:
    for epoch, loss in enumerate(losses, start=len(history.rows)):
        history.on_train_epoch_end(trainer(epoch, loss=loss), None)
    return history


EXPECTED = pd.DataFrame({"phase": ["p"] * 3, "epoch": [0, 1, 2], "step": [10, 20, 30], "loss": [3.0, 2.0, 1.0]})


# ------------------------------------------------------------------------------------------------- history


def test_the_history_has_one_row_for_each_epoch(tmp_path: Path) -> None:
    history = after(History("p", tmp_path / "new"), 3, 2, 1)
    pd.testing.assert_frame_equal(history.frame(), EXPECTED)
    history.on_train_end(trainer(), None)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "new" / "history.csv"), EXPECTED)
    pd.testing.assert_frame_equal(history.frame(), EXPECTED)


def test_a_resumed_history_continues_the_rows_of_the_checkpoint(tmp_path: Path) -> None:
    state = after(History("p", tmp_path), 3, 2).state_dict()
    resumed = History("p", tmp_path)
    resumed.load_state_dict(state)
    pd.testing.assert_frame_equal(after(resumed, 1).frame(), EXPECTED)
    assert len(state["rows"]) == 2


def test_a_resumed_phase_that_had_ended_does_not_read_what_a_killed_process_left(tmp_path: Path) -> None:
    state = after(History("p", tmp_path), 3, 2).state_dict()
    (tmp_path / "history.csv").write_bytes(b"")
    resumed = History("p", tmp_path)
    resumed.load_state_dict(state)
    assert resumed.frame()["loss"].tolist() == [3, 2]


def test_numbers_of_the_file_are_those_of_the_run(tmp_path: Path) -> None:
    history = after(History("p", tmp_path), 0.1 + 0.2, 1 / 3, 2.5066282746310002e-7)
    history.on_train_end(trainer(), None)
    assert History("p", tmp_path).frame()["loss"].tolist() == history.frame()["loss"].tolist()


def test_a_held_out_loss_stands_in_the_epochs_that_measured_it_alone(tmp_path: Path) -> None:
    history = History("p", tmp_path)
    for epoch, (measured, sanity) in enumerate([(True, True), (True, False), (False, False), (True, False)]):
        run = trainer(epoch, loss=1.0, val_loss=float(epoch), val_loss_a_b=2.0)
        run.sanity_checking = sanity
        if measured:
            history.on_validation_end(run, None)
        history.on_train_epoch_end(run, None)
    found = history.frame()
    np.testing.assert_array_equal(found["val_loss"], [np.nan, 1, np.nan, 3])
    np.testing.assert_array_equal(found["val_loss_a_b"], [np.nan, 2, np.nan, 2])
    assert found["loss"].tolist() == [1, 1, 1, 1]


def test_an_interrupted_run_writes_its_history(tmp_path: Path) -> None:
    History("p", tmp_path).on_exception(trainer(), None, KeyboardInterrupt())
    assert not (tmp_path / "history.csv").exists()
    after(History("p", tmp_path), 3, 2, 1).on_exception(trainer(), None, KeyboardInterrupt())
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "history.csv"), EXPECTED)


def test_other_ranks_write_nothing_and_read_the_history_of_the_first(tmp_path: Path) -> None:
    history, other = History("p", tmp_path), trainer()
    other.is_global_zero = False
    history.on_train_epoch_end(other, None)
    history.on_train_end(other, None)
    history.on_exception(other, None, ValueError())
    assert history.rows == []
    assert not (tmp_path / "history.csv").exists()
    after(History("p", tmp_path), 3, 2, 1).on_train_end(trainer(), None)
    pd.testing.assert_frame_equal(history.frame(), EXPECTED)


# ------------------------------------------------------------------------------------------------- bar, checkpoints


def test_the_bar_shows_epochs_and_loss(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tqdm import std

    # a bar is shown on terminals only
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    bar = EpochBar()
    with sw.settings.override(progress=True):
        bar.on_train_start(trainer(), None)
        assert isinstance(bar.bar, std.tqdm)
        for epoch in range(2):
            bar.on_train_epoch_end(trainer(epoch, loss=1.25), None)
        bar.teardown(trainer(), None, "fit")
    assert bar.bar.n == 2
    assert "2/5" in capsys.readouterr().err
    assert bar.bar.postfix == "loss 1.250"


def test_the_bar_of_a_resumed_run_begins_at_its_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    bar = EpochBar()
    with sw.settings.override(progress=True):
        bar.on_train_start(trainer(3), None)
        bar.teardown(trainer(), None, "fit")
    assert (bar.bar.n, bar.bar.total) == (3, 5)


def test_other_ranks_have_no_bar() -> None:
    bar, other = EpochBar(), trainer()
    other.is_global_zero = False
    bar.on_train_start(other, None)
    bar.on_train_epoch_end(other, None)
    bar.teardown(other, None, "fit")
    assert bar.bar is None


@pytest.mark.parametrize(("epochs", "saved"), [(4, 4), (19, 19), (25, 13), (300, 10)])
def test_there_are_about_ten_checkpoints_in_a_run(tmp_path: Path, epochs: int, saved: int) -> None:
    checkpoints, paths = Checkpoints(tmp_path, epochs), []
    for epoch in range(epochs):
        run = trainer(epoch)
        run.num_training_batches, run.save_checkpoint = 2, lambda path, weights_only: paths.append(path.name)  # noqa: ARG005
        checkpoints.on_train_epoch_start(run, None)
        for batch in range(2):
            checkpoints.on_train_batch_end(run, None, None, None, batch)
        checkpoints.on_train_epoch_end(run, None)
    checkpoints.on_train_end(run, None)
    assert len(paths) == saved
    assert paths[-1] == f"step-{10 * epochs:010d}.ckpt"


# ------------------------------------------------------------------------------------------------- limit of time


@pytest.mark.parametrize("hook", ["on_fit_start", "on_train_batch_end"])
@pytest.mark.parametrize(
    ("elapsed", "stopped", "first", "noted"),
    [(3599, False, True, False), (3600, False, True, True), (3600, True, True, False), (3600, False, False, False)],
)
def test_a_limit_of_time_is_noted_once_where_nothing_else_has_ended_the_phase(
    tmp_path: Path, hook: str, elapsed: float, stopped: bool, first: bool, noted: bool
) -> None:
    limit, run = TimeLimit({"hours": 1}, tmp_path), trainer()
    run.should_stop, run.is_global_zero, run.strategy = stopped, first, SimpleNamespace(broadcast=lambda x: x)
    limit.load_state_dict({"time_elapsed": {"train": elapsed}})
    getattr(limit, hook)(run, None)
    assert run.should_stop == (stopped or elapsed >= 3600)
    assert time_was_up(tmp_path) == noted
