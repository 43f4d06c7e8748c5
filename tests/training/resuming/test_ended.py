from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch

from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer.training.fit import fit
from spatialwhisperer.training.resuming.ended import NAME, Ended, forget_ended, read_ended

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from spatialwhisperer.models.joint_space import JointSpace
    from spatialwhisperer.training.batches import Items
    from spatialwhisperer.training.fit import Run

    Space = Callable[..., JointSpace]
    Runs = Callable[..., Run]

JOINT: dict[str, Any] = {"schedule": "joint", "image_link": None}
SEQUENTIAL: dict[str, Any] = {"schedule": "sequential", "image_link": "contrastive"}


def same(a: JointSpace, b: JointSpace) -> bool:
    """Whether all weights are equal."""
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def ended(rows: int = 3, epochs: int = 3, max_time: str | None = None) -> Ended:
    losses: dict[str, list[Any]] = {"phase": ["p"] * rows, "epoch": list(range(rows)), "loss": [0.1 + 0.2] * rows}
    return Ended(epochs, max_time, {"w": torch.arange(3.0)}, losses)


def stopped(patience: int = 1) -> Any:
    """Early stopping that ends a phase after two epochs: no loss falls by a hundred."""
    from lightning.pytorch.callbacks import EarlyStopping

    return EarlyStopping("loss", patience=patience, min_delta=100.0)


# ------------------------------------------------------------------------------------------------- the file


def test_a_phase_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_ended(tmp_path) is None
    one = ended(max_time="{'hours': 1}")
    one.write(tmp_path / "phase")
    found = read_ended(tmp_path / "phase")
    assert found is not None
    assert (found.epochs, found.max_time) == (3, "{'hours': 1}")
    assert torch.equal(found.weights["w"], one.weights["w"])
    pd.testing.assert_frame_equal(found.history, one.history, check_exact=True)
    forget_ended(tmp_path / "phase")
    assert list((tmp_path / "phase").iterdir()) == []
    forget_ended(tmp_path / "phase")


def test_weights_are_not_copied_to_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copied(*_: Any) -> None:
        raise AssertionError("a tensor was copied")

    monkeypatch.setattr(torch.Tensor, "__deepcopy__", copied)
    ended().write(tmp_path)
    assert (tmp_path / NAME).is_file()


def test_a_damaged_file_is_passed_over_with_a_warning(tmp_path: Path) -> None:
    ended().write(tmp_path)
    (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes()[:-9])
    with pytest.warns(SpatialWhispererWarning, match=r"ended.pt is not .* Training continues from the last checkpoint"):
        assert read_ended(tmp_path) is None


@pytest.mark.parametrize(
    ("rows", "up", "epochs", "max_time", "several", "expected"),
    [
        (3, None, 3, None, False, True),
        (3, None, 4, None, False, False),  # more epochs continue a run that had all of its own
        (3, "1 h", 3, "2 h", False, True),
        (2, None, 3, None, False, True),
        (2, None, 4, None, False, True),  # a run that was stopped early would be so with more epochs
        (2, None, 3, "2 h", False, True),  # and with more time
        (2, "1 h", 3, "1 h", False, True),
        (2, "1 h", 3, "2 h", False, False),  # more time continues a run whose time was up
        (2, "1 h", 3, None, False, False),
        (2, "1 h", 3, "2 h", True, True),
    ],
)
def test_a_phase_stays_where_the_run_from_its_start_would_have_ended_it(
    rows: int, up: str | None, epochs: int, max_time: str | None, several: bool, expected: bool
) -> None:
    assert ended(rows, max_time=up).stays(epochs, max_time, several_phases=several) is expected


# ------------------------------------------------------------------------------------------------- a resumed run


@pytest.mark.parametrize("kind", ["early", "steps", "averaged"])
def test_a_run_that_had_ended_stays_as_it_is(items: Items, space: Space, run: Runs, kind: str) -> None:
    from lightning.pytorch.callbacks import StochasticWeightAveraging

    given: dict[str, Any] = {
        "early": {"callbacks": stopped()},
        "steps": {"max_steps": 6},
        "averaged": {"callbacks": StochasticWeightAveraging(swa_lrs=1e-3, swa_epoch_start=0.4)},
    }[kind]
    model, again = space(), space()
    history = fit(model, items, None, run(given, max_epochs=4), **JOINT).history
    assert len(history) == (4 if kind == "averaged" else 2)
    repeated = fit(again, items, None, run(given, max_epochs=4, resume=True), **JOINT).history
    pd.testing.assert_frame_equal(repeated, history, check_exact=True)
    assert same(model, again)
    assert not again.training
    assert all(p.requires_grad for p in again.parameters())


def test_a_run_killed_in_the_second_phase_keeps_the_first_one_that_was_stopped_early(
    items: Items, space: Space, run: Runs, tmp_path: Path
) -> None:
    from lightning.pytorch.callbacks import Callback

    class Stop(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if "image" in pl_module.train_heads and trainer.current_epoch == 1:
                raise KeyboardInterrupt

    whole, model = space(dropout=0.3), space(dropout=0.3)
    how: dict[str, Any] = {"max_epochs": 6}
    expected = fit(whole, items, None, run({"callbacks": stopped(2)}, **how), **SEQUENTIAL).history
    assert expected["phase"].value_counts().to_dict() == {"gene-text": 3, "image-gene": 3}
    killed = run({"callbacks": [stopped(2), Stop()]}, folder=tmp_path / "killed", **how)
    with pytest.raises(KeyboardInterrupt):
        fit(space(dropout=0.3), items, None, killed, **SEQUENTIAL)
    resumed = run({"callbacks": stopped(2)}, folder=tmp_path / "killed", resume=True, **how)
    history = fit(model, items, None, resumed, **SEQUENTIAL).history
    pd.testing.assert_frame_equal(history, expected, check_exact=True)
    assert same(model, whole)


def test_a_run_whose_time_was_up_continues_with_more_time(
    items: Items, space: Space, run: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning.pytorch.callbacks import Timer

    whole, model = space(), space()
    expected = fit(whole, items, None, run(max_epochs=3, folder=run().folder / "whole"), **JOINT).history
    with monkeypatch.context() as patch:
        # an hour has passed after the second epoch
        seen: list[int] = []
        patch.setattr(Timer, "time_elapsed", lambda *_: 3600.0 * (len(seen) >= 8))
        patch.setattr(Timer, "on_train_batch_start", lambda *_: seen.append(1), raising=False)
        short = fit(space(), items, None, run({"max_time": {"hours": 1}}, max_epochs=3), **JOINT).history
    assert len(short) == 2
    longer = run({"max_time": {"hours": 9}}, max_epochs=3, resume=True)
    history = fit(model, items, None, longer, **JOINT).history
    pd.testing.assert_frame_equal(history, expected, check_exact=True)
    assert same(model, whole)


def test_more_time_does_not_continue_a_run_that_something_else_has_ended(items: Items, space: Space, run: Runs) -> None:
    model, again = space(), space()
    history = fit(
        model, items, None, run({"callbacks": stopped(), "max_time": {"hours": 1}}, max_epochs=4), **JOINT
    ).history
    assert len(history) == 2
    longer = run({"callbacks": stopped(), "max_time": {"hours": 2}}, max_epochs=4, resume=True)
    repeated = fit(again, items, None, longer, **JOINT).history
    pd.testing.assert_frame_equal(repeated, history, check_exact=True)
    assert same(model, again)


def test_more_epochs_are_refused_after_the_end_as_before_it(items: Items, space: Space, run: Runs) -> None:
    fit(space(), items, None, run({"callbacks": stopped()}, max_epochs=4), **JOINT)
    for epochs, message in ((5, "depends on the number of epochs"), (3, "cannot be continued to fewer")):
        again = run({"callbacks": stopped()}, max_epochs=epochs, resume=True)
        with pytest.raises(ValueError, match=message):
            fit(space(), items, None, again, **JOINT)


def test_a_run_that_continues_has_not_ended(items: Items, space: Space, run: Runs) -> None:
    """A run with more epochs that is killed after the first of them goes on, and is not the one that had ended."""
    from lightning.pytorch.callbacks import Callback

    class Stop(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
            if trainer.current_epoch == 3:
                raise KeyboardInterrupt

    constant: dict[str, Any] = {"schedule": "constant", "warmup": 0.0}
    fit(space(), items, None, run(max_epochs=2, **constant), **JOINT)
    with pytest.raises(KeyboardInterrupt):
        fit(space(), items, None, run({"callbacks": Stop()}, max_epochs=4, resume=True, **constant), **JOINT)
    assert read_ended(run().folder / "joint") is None
    history = fit(space(), items, None, run(max_epochs=4, resume=True, **constant), **JOINT).history
    assert np.array_equal(history["epoch"], np.arange(4))
