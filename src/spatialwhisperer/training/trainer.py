"""Arguments of Lightning's Trainer: checked before any work starts, with our defaults for what the caller leaves open.

Beside them, what happens to several processes that train together when one of them is gone.
"""

from __future__ import annotations

import copy
import inspect
import logging
import os
import warnings
from contextlib import contextmanager
from datetime import timedelta
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

import torch

from spatialwhisperer._messages import import_torch_stack, listing
from spatialwhisperer._settings import settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SILENCE = timedelta(minutes=10)
"""How long a process waits for the others where the caller names a strategy; Lightning's own limit is 30 minutes."""

_OWN = {
    "max_epochs": "sw.tl.train(…, max_epochs=…)",
    "default_root_dir": "sw.tl.train(…, folder=…)",
}
"""Arguments of the Trainer that are arguments of `train`, and how to pass them there."""

_PRECISIONS = ("32-true", "64-true", "bf16-mixed", "16-mixed", "bf16-true", "32", "64", "bf16", "16")
"""Precisions of the Trainer that models can be trained in, with Lightning's short names."""

_REFUSED = {
    "16-true": "The epsilon of Adam is zero in float16, so that weights become NaN.",
    "transformer-engine": "The heads are no layers of the Transformer Engine.",
    "transformer-engine-float16": "The heads are no layers of the Transformer Engine.",
}

_NOISE = (
    "does not have many workers",
    "have no `val_dataloader`",
    "isinstance(treespec, LeafSpec)",
    "eval mode",
    "checkpoint directory",
    "logging interval",
)
"""Words of Lightning's hints, which do not apply to batches that are looked up in memory."""

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""Variable of the environment that a deterministic Trainer sets."""

_GONE = ("connection closed", "connection reset", "connection refused", "broken pipe", "timed out", "timeout")
"""Words of the errors of torch.distributed for a process that does not answer."""

_SIMILAR = 0.6
"""Names that are less similar than this are not suggested."""


_UNUSABLE = {
    "overfit_batches": "It takes another loader; give limit_train_batches=… and no validation.",
    "barebones": "It trains without callbacks, which collect the losses and save the checkpoints.",
}
"""Arguments that the Trainer takes, and why a model cannot be trained with them."""

_STEPPING = ("max_steps", "limit_train_batches", "accumulate_grad_batches")
"""Arguments of which 0 makes no step."""


def checked_options(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The same as `trainer_options`, for which Lightning has made a Trainer on this machine.

    Raises
    ------
    TypeError, ValueError
        As `trainer_options` does, and where Lightning refuses a value, or this machine lacks a device.
    """
    options = trainer_options(given)
    if dict(given or {}).get("accelerator", "auto") == "auto":
        settings.resolve_device()
    pytorch = import_torch_stack("lightning.pytorch")
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    # a strategy that the caller has made belongs to the Trainer of the run
    tried = {k: v for k, v in options.items() if k != "callbacks" and (k != "strategy" or isinstance(v, str))}
    try:
        with quiet(), flags_restored(), warnings.catch_warnings():
            # the Trainer of the run says them again
            warnings.simplefilter("ignore")
            pytorch.Trainer(max_epochs=1, **tried)
    except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
        shown = ", ".join(f"{name!r}: {value!r}" for name, value in dict(given or {}).items())
        raise ValueError(f"Lightning's Trainer refuses trainer={{{shown}}}: {error}") from error
    return options


def trainer_options(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Check the arguments of the caller and add our defaults.

    Parameters
    ----------
    given
        Arguments of ``lightning.pytorch.Trainer`` by name; ``None`` gives none.

    Returns
    -------
    Arguments for the Trainer. The accelerator is that of ``settings.device``, and the precision on CUDA is bfloat16, where the caller
    passes no other.

    Raises
    ------
    TypeError
        If the Trainer has no argument of a name, or it is an argument of `train`; if a callback is no Callback, or a logger no Logger;
        or if a callback cannot be copied.
    ValueError
        If models cannot be trained with an argument, or no step would be made.
    """
    given = dict(given or {})
    trainer = import_torch_stack("lightning.pytorch").Trainer
    known = [name for name in inspect.signature(trainer.__init__).parameters if name != "self"]
    for name in given:
        _check_name(name, known)
    _check_precision(given.get("precision"))
    _check_usable(given)
    _check_objects(given)
    accelerator: Any = given.pop("accelerator", "auto")
    devices: int | list[int] = 1
    if accelerator == "auto" and settings.device is not None:
        device = torch.device(settings.device)
        accelerator = "gpu" if device.type == "cuda" else device.type
        if accelerator == "gpu" and device.index is not None:
            # a list names devices, a number counts them
            devices = [device.index]
    cuda = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    ours = {
        "accelerator": accelerator,
        "devices": devices,
        "strategy": "auto",
        "precision": "bf16-mixed" if cuda else "32-true",
        "logger": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
    }
    return ours | given


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's hints, which do not apply to batches that are looked up in memory."""
    loggers = [logging.getLogger(n) for n in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero")]
    levels = [log.level for log in loggers]
    with warnings.catch_warnings():
        for text in _NOISE:
            warnings.filterwarnings("ignore", message=f".*{text}.*".replace("(", r"\(").replace(")", r"\)"))
        try:
            for log in loggers:
                log.setLevel(logging.WARNING)
            yield
        finally:
            for log, level in zip(loggers, levels, strict=True):
                log.setLevel(level)


@contextmanager
def flags_restored() -> Iterator[None]:
    """Leave the switches of the process as they were: a Trainer with ``deterministic`` or ``benchmark`` sets them and keeps them."""
    deterministic, warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    benchmark, workspace = torch.backends.cudnn.benchmark, os.environ.get(_WORKSPACE)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warns)
        torch.backends.cudnn.benchmark = benchmark
        if workspace is None:
            os.environ.pop(_WORKSPACE, None)
        else:
            os.environ[_WORKSPACE] = workspace


def own_callbacks(given: Any) -> list[Any]:
    """Copies of the caller's callbacks as they were given, for one phase of training.

    A callback such as early stopping remembers the best loss of the phase that it has seen, and would end the next one with it.

    Parameters
    ----------
    given
        One callback, several, or ``None``.

    Raises
    ------
    TypeError
        If one cannot be copied.
    """
    return [_copied(callback) for callback in listed(given)]


def listed(given: Any) -> list[Any]:
    """An argument of the Trainer that is one object, several, or ``None``, as a list."""
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]


def _copied(callback: Any) -> Any:
    try:
        return copy.deepcopy(callback)
    # what is copied is the caller's, and so is the error
    except Exception as error:
        raise TypeError(
            f"trainer={{'callbacks': …}} has a {type(callback).__name__} that cannot be copied ({error}). Each phase of training and each "
            "held-out patient begins with a copy. Let the callback make what it needs in its method setup(), or give it a method "
            "__deepcopy__(self, memo) that returns self if phases may share it."
        ) from error


def optimiser_steps(trainer: Any, batches: int) -> int:
    """Number of optimiser steps of a run.

    Lightning's own ``estimated_stepping_batches`` opens the loader of the training data, and counts no schedule of accumulation.

    Parameters
    ----------
    trainer
        The Trainer, with its limits of batches and of steps, and its accumulation of gradients.
    batches
        Number of batches of one epoch on each rank.
    """
    from lightning.pytorch.callbacks import GradientAccumulationScheduler

    limit = trainer.limit_train_batches
    taken = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    schedules = [c for c in trainer.callbacks if isinstance(c, GradientAccumulationScheduler)]
    accumulated = [
        schedules[0].get_accumulate_grad_batches(epoch) if schedules else trainer.accumulate_grad_batches
        for epoch in range(trainer.max_epochs)
    ]
    # the last step of an epoch may have fewer batches
    steps = sum(-(-taken // number) for number in accumulated)
    return steps if trainer.max_steps == -1 else min(steps, trainer.max_steps)


def limit_silence(trainer: Any, strategy: Any) -> None:
    """Let no process wait for another for longer than `SILENCE`; a strategy that the caller has made keeps its own limit.

    Parameters
    ----------
    trainer
        The Trainer.
    strategy
        The strategy as the Trainer was given it: a name or an object.
    """
    # Lightning takes the limit with an object only, and keeps it in this attribute until the processes are connected
    if isinstance(strategy, str) and "_timeout" in vars(trainer.strategy):
        trainer.strategy.__dict__["_timeout"] = SILENCE


@contextmanager
def ending_together(trainer: Any) -> Iterator[None]:
    """Say in own words that a run has ended because one of its processes is gone.

    Parameters
    ----------
    trainer
        The Trainer, with the number of processes.

    Raises
    ------
    RuntimeError
        If a process was killed, or did not answer the others in time. Other errors stay as they are.
    """
    try:
        yield
    except Exception as error:
        if trainer.world_size == 1 or not _is_gone(error):
            raise
        raise RuntimeError(
            f"One of the {trainer.world_size} processes that trained is gone, so that the run has ended: "
            f"{str(error).strip().splitlines()[-1]}\nA run with a folder has kept its epochs up to the last checkpoint: continue it with "
            "sw.tl.train(…, folder=…, resume=True)."
        ) from error


def _is_gone(error: Exception) -> bool:
    """Whether an error is that of a process that was killed, or of one that waits for it."""
    from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

    if isinstance(error, ProcessExitedException):
        return True
    if not isinstance(error, RuntimeError | ProcessRaisedException):
        return False
    # the error of a process that was started reaches this one as text, of which the last line is the error
    text = str(error).strip().splitlines()[-1] if isinstance(error, ProcessRaisedException) else str(error)
    of_torch = isinstance(error, torch.distributed.DistError) or "torch.distributed" in text or "gloo" in text
    return of_torch and any(words in text.lower() for words in _GONE)


def _check_name(name: str, known: Sequence[str]) -> None:
    if name in _OWN:
        raise TypeError(f"trainer has {name!r}; pass it as {_OWN[name]} instead.")
    if name in known:
        return
    # of equally similar names the first one, so those that are likely to be meant come first
    near = max([*_OWN, *known], key=lambda other: SequenceMatcher(None, name, other).ratio())
    if SequenceMatcher(None, name, near).ratio() < _SIMILAR:
        raise TypeError(f"Lightning's Trainer has no argument {name!r}. It has {listing(known, 60)}.")
    own = f" Pass it as {_OWN[near]}." if near in _OWN else ""
    raise TypeError(f"Lightning's Trainer has no argument {name!r}. Did you mean {near}?{own}")


def _check_usable(given: Mapping[str, Any]) -> None:
    for name, reason in _UNUSABLE.items():
        if given.get(name):
            raise ValueError(f"Models cannot be trained with trainer={{{name!r}: {given[name]!r}}}. {reason}")
    if given.get("enable_checkpointing") is False:
        raise ValueError(
            "Models cannot be trained with trainer={'enable_checkpointing': False}. A run without folder=… keeps no checkpoints."
        )
    for name in _STEPPING:
        if isinstance(given.get(name), int | float) and given[name] == 0:
            raise ValueError(f"trainer={{{name!r}: {given[name]!r}}} makes no training step. Give a larger number.")


def _check_objects(given: Mapping[str, Any]) -> None:
    """Refuse callbacks and loggers that are none, which Lightning notices only when it calls them, and callbacks without a copy."""
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.loggers import Logger

    for name, kind in (("callbacks", Callback), ("logger", Logger)):
        value = given.get(name)
        if value is None or (name == "logger" and isinstance(value, bool)):
            continue
        for one in listed(value):
            if not isinstance(one, kind):
                raise TypeError(
                    f"trainer={{{name!r}: …}} takes objects of {kind.__module__}.{kind.__name__}, not {type(one).__name__}: {one!r}."
                )
    own_callbacks(given.get("callbacks"))


def _check_precision(precision: Any) -> None:
    # the Trainer takes the precision of a plugin where this is None
    if precision is None or str(precision) in _PRECISIONS:
        return
    reason = f" {_REFUSED[precision]}" if str(precision) in _REFUSED else ""
    raise ValueError(
        f"Models cannot be trained with trainer={{'precision': {precision!r}}}.{reason} Choose one of {listing(_PRECISIONS[:5])}."
    )
