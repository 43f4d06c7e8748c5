from __future__ import annotations

import threading
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

import spatialwhisperer as sw
from spatialwhisperer.training.trainer import (
    SILENCE,
    checked_options,
    ending_together,
    limit_silence,
    optimiser_steps,
    own_callbacks,
    trainer_options,
)


@pytest.fixture
def no_device() -> Any:
    """Settings that leave the device open."""
    with sw.settings.override(device=None):
        yield


# ------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("epochs", r"no argument 'epochs'\. Did you mean max_epochs\? Pass it as sw\.tl\.train\(…, max_epochs=…\)"),
        ("device", r"no argument 'device'\. Did you mean devices\?$"),
        ("precison", "Did you mean precision"),
        ("root_dir", r"Did you mean default_root_dir\? Pass it as sw\.tl\.train\(…, folder=…\)"),
        ("zzz", r"no argument 'zzz'\. It has accelerator, strategy, devices"),
    ],
)
def test_an_unknown_argument_is_refused_with_the_nearest_name(name: str, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        trainer_options({name: 3})


@pytest.mark.parametrize(("name", "place"), [("max_epochs", "max_epochs"), ("default_root_dir", "folder")])
def test_an_argument_of_train_is_refused_with_the_place_where_it_belongs(name: str, place: str) -> None:
    with pytest.raises(TypeError, match=rf"trainer has '{name}'; pass it as sw\.tl\.train\(…, {place}=…\) instead"):
        trainer_options({name: 3})


def test_every_argument_of_the_trainer_is_known() -> None:
    import inspect

    from lightning.pytorch import Trainer

    names = set(inspect.signature(Trainer.__init__).parameters) - {"self", "max_epochs", "default_root_dir"}
    assert len(names) > 30
    assert names <= set(trainer_options(dict.fromkeys(names)))


@pytest.mark.parametrize(
    ("precision", "reason"),
    [("16-true", "epsilon of Adam is zero in float16"), ("transformer-engine", "no layers of"), ("half", "Choose one")],
)
def test_a_precision_that_models_cannot_be_trained_in_is_refused(precision: str, reason: str) -> None:
    message = (
        rf"cannot be trained with trainer={{'precision': '{precision}'}}\..*{reason}.*32-true, 64-true, bf16-mixed"
    )
    with pytest.raises(ValueError, match=message):
        trainer_options({"precision": precision})


@pytest.mark.parametrize(
    "precision", [None, 32, "32", "64-true", 64, "bf16-mixed", "bf16", "16-mixed", 16, "bf16-true"]
)
def test_other_precisions_are_those_of_the_trainer(precision: Any) -> None:
    from lightning.pytorch import Trainer

    options = trainer_options({"accelerator": "cpu", "precision": precision})
    assert options["precision"] == precision
    assert Trainer(**options).precision


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"overfit_batches": 1}, r"cannot be trained with trainer={'overfit_batches': 1}\. It takes another loader"),
        ({"overfit_batches": 0.5}, "give limit_train_batches"),
        ({"barebones": True}, r"trainer={'barebones': True}\. It trains without callbacks"),
        ({"enable_checkpointing": False}, r"{'enable_checkpointing': False}.* without folder=… keeps no checkpoints"),
        ({"limit_train_batches": 0}, r"{'limit_train_batches': 0} makes no training step"),
        ({"limit_train_batches": 0.0}, "makes no training step"),
        ({"max_steps": 0}, r"{'max_steps': 0} makes no training step"),
        ({"accumulate_grad_batches": 0}, "makes no training step"),
    ],
)
def test_what_models_cannot_be_trained_with_is_refused_by_name(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trainer_options(given)


def test_the_same_arguments_are_taken_where_they_change_nothing() -> None:
    trainer_options({"overfit_batches": 0.0, "barebones": False, "enable_checkpointing": True, "max_steps": -1})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"callbacks": [1]}, r"'callbacks': …} takes objects of .*\.Callback, not int: 1"),
        ({"callbacks": "x"}, "takes objects of .*Callback, not str: 'x'"),
        ({"logger": 3}, "'logger': …} takes objects of .*Logger, not int: 3"),
    ],
)
def test_callbacks_and_loggers_are_objects_of_lightning(given: dict[str, Any], message: str) -> None:
    from lightning.pytorch.callbacks import Timer
    from lightning.pytorch.loggers import CSVLogger

    with pytest.raises(TypeError, match=message):
        trainer_options(given)
    timer, logger = Timer("00:00:01:00"), CSVLogger(".")
    trainer_options({"callbacks": timer, "logger": logger})
    trainer_options({"callbacks": [timer], "logger": [logger]})
    trainer_options({"callbacks": None, "logger": True})


def test_each_phase_has_its_own_copies_of_the_callbacks() -> None:
    from lightning.pytorch.callbacks import EarlyStopping

    given = EarlyStopping("loss", patience=3)
    first, second = own_callbacks(given)[0], own_callbacks([given])[0]
    first.wait_count = 2
    assert (given.wait_count, second.wait_count, second.patience) == (0, 0, 3)
    assert own_callbacks(None) == []


def test_a_callback_that_cannot_be_copied_is_refused_with_the_remedy() -> None:
    from lightning.pytorch.callbacks import Callback

    class Waits(Callback):
        def __init__(self) -> None:
            self.event = threading.Event()

    class Shared(Waits):
        def __deepcopy__(self, memo: Any) -> Shared:
            return self

    with pytest.raises(
        TypeError, match=r"has a Waits that cannot be copied .*__deepcopy__\(self, memo\) that returns self"
    ):
        trainer_options({"callbacks": [Waits()]})
    shared = Shared()
    trainer_options({"callbacks": shared})
    assert own_callbacks(shared) == [shared]


# ------------------------------------------------------------------------------------------------- this machine


@pytest.mark.parametrize(
    "given",
    [{"devices": 0}, {"devices": []}, {"max_time": "x"}, {"limit_train_batches": 1.5}, {"strategy": "x"}],
)
def test_what_lightning_refuses_is_refused_before_the_data_are_read(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"Lightning's Trainer refuses trainer={{.*'{next(iter(given))}': .+}}: .+"):
        checked_options({"accelerator": "cpu", **given})


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("accelerator", ["cuda", "gpu"])
def test_an_accelerator_that_is_not_there_is_refused(accelerator: str) -> None:
    if accelerator == "gpu" and torch.backends.mps.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match=rf"refuses trainer={{'accelerator': '{accelerator}'}}"):
        checked_options({"accelerator": accelerator})
    with (
        sw.settings.override(device="cuda"),
        pytest.raises(ValueError, match=r"settings\.device='cuda' is not available"),
    ):
        checked_options(None)


def test_what_lightning_takes_is_returned_unchanged(capfd: pytest.CaptureFixture[str]) -> None:
    from lightning.pytorch.callbacks import Timer
    from lightning.pytorch.strategies import DDPStrategy

    callbacks: list[Any] = [Timer("00:00:01:00")]
    strategy = DDPStrategy()
    given = {"accelerator": "cpu", "callbacks": callbacks, "strategy": strategy, "devices": 2}
    assert checked_options(given) == trainer_options(given)
    assert len(callbacks) == 1
    assert strategy.accelerator is None
    assert capfd.readouterr().err == ""


# ------------------------------------------------------------------------------------------------- values


def test_what_the_caller_says_comes_before_the_defaults() -> None:
    given = {"devices": 2, "strategy": "ddp", "logger": True, "precision": "16-mixed", "accumulate_grad_batches": 3}
    assert given.items() <= trainer_options(given).items()
    assert "accumulate_grad_batches" not in trainer_options(None)


def test_the_arguments_of_the_caller_are_not_changed() -> None:
    given = {"accelerator": "cpu"}
    trainer_options(given)
    assert given == {"accelerator": "cpu"}


def test_a_trainer_takes_the_defaults() -> None:
    from lightning.pytorch import Trainer

    assert Trainer(max_epochs=1, **trainer_options({"accelerator": "cpu"})).num_devices == 1


@pytest.mark.parametrize(
    ("device", "accelerator", "devices"),
    [("cpu", "cpu", 1), ("cuda", "gpu", 1), ("cuda:0", "gpu", [0]), ("cuda:1", "gpu", [1]), ("mps", "mps", 1)],
)
def test_the_settings_choose_the_device(device: str, accelerator: str, devices: Any) -> None:
    with sw.settings.override(device=device):
        options = trainer_options(None)
        assert (options["accelerator"], options["devices"]) == (accelerator, devices)
        assert options["precision"] == ("bf16-mixed" if accelerator == "gpu" else "32-true")
        # the caller's own accelerator comes first
        assert trainer_options({"accelerator": "tpu"})["accelerator"] == "tpu"


@pytest.mark.usefixtures("no_device")
@pytest.mark.parametrize("cuda", [False, True])
def test_without_a_setting_lightning_chooses(cuda: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    options = trainer_options(None)
    assert (options["accelerator"], options["devices"]) == ("auto", 1)
    assert options["precision"] == ("bf16-mixed" if cuda else "32-true")


# ------------------------------------------------------------------------------------------------- steps


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 30),
        ({"accumulate_grad_batches": 4}, 9),
        ({"accumulate_grad_batches": 40}, 3),
        ({"limit_train_batches": 4}, 12),
        ({"limit_train_batches": 40}, 30),
        ({"limit_train_batches": 0.55}, 15),
        ({"limit_train_batches": 5, "accumulate_grad_batches": 2}, 9),
        ({"max_steps": 7}, 7),
        ({"max_steps": 70}, 30),
    ],
)
def test_steps_of_the_optimiser_are_counted(options: dict[str, Any], expected: int) -> None:
    from lightning.pytorch import Trainer

    trainer = Trainer(max_epochs=3, **trainer_options({"accelerator": "cpu", **options}))
    assert optimiser_steps(trainer, 10) == expected


def test_a_schedule_of_accumulation_is_counted() -> None:
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import GradientAccumulationScheduler

    scheduler = GradientAccumulationScheduler({0: 1, 2: 5})
    trainer = Trainer(max_epochs=4, **trainer_options({"accelerator": "cpu", "callbacks": [scheduler]}))
    assert optimiser_steps(trainer, 10) == 10 + 10 + 2 + 2


# ------------------------------------------------------------------------------------------------- several processes


def test_a_named_strategy_waits_ten_minutes_for_a_process_and_an_object_as_long_as_it_says() -> None:
    from lightning.pytorch import Trainer
    from lightning.pytorch.strategies import DDPStrategy

    def waits(strategy: Any, devices: int = 2) -> timedelta:
        trainer = Trainer(**trainer_options({"accelerator": "cpu", "devices": devices, "strategy": strategy}))
        limit_silence(trainer, strategy)
        return getattr(trainer.strategy, "_timeout", timedelta(0))

    assert timedelta(minutes=10) == SILENCE == waits("ddp_fork") == waits("ddp_spawn") == waits("auto")
    assert waits(DDPStrategy(start_method="fork", timeout=timedelta(seconds=7))) == timedelta(seconds=7)
    assert waits("auto", devices=1) == timedelta(0)


GLOO = "[pair.cc:545] /gloo/transport: Connection closed by peer"


@pytest.mark.parametrize(
    "error",
    [
        ProcessExitedException("process 1 terminated with signal SIGKILL", 1, 7, -9, "SIGKILL"),
        ProcessRaisedException(f"Traceback\n  in step\nRuntimeError: {GLOO}", 0, 7),
        RuntimeError(GLOO),
        torch.distributed.DistStoreError("Timed out after 9 seconds waiting for clients."),
    ],
)
def test_a_process_that_is_gone_is_said_in_own_words(error: Exception) -> None:
    with pytest.raises(RuntimeError, match=r"^One of the 2 processes .* is gone.*\n.*resume=True") as raised:
        with ending_together(SimpleNamespace(world_size=2)):
            raise error
    assert str(error).splitlines()[-1] in str(raised.value)
    with pytest.raises(type(error)) as same, ending_together(SimpleNamespace(world_size=1)):
        raise error
    assert same.value is error


@pytest.mark.parametrize(
    "error",
    [
        ProcessRaisedException(f"RuntimeError: {GLOO}\nValueError: a label is missing", 0, 7),
        RuntimeError("the reader timed out"),
        ValueError("gloo: connection closed"),
        torch.distributed.DistBackendError("two processes on one device"),
    ],
)
def test_other_errors_of_a_process_stay_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, ending_together(SimpleNamespace(world_size=2)):
        raise error
    assert raised.value is error
