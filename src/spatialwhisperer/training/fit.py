"""Fitting a model to items by one of the two schedules, on arrays."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from spatialwhisperer._messages import import_torch_stack
from spatialwhisperer._random import isolated_rng
from spatialwhisperer.training.closed_form import fit_closed_form
from spatialwhisperer.training.feed import ItemFeed
from spatialwhisperer.training.fitted import Fitted
from spatialwhisperer.training.refinement.refine import refine
from spatialwhisperer.training.resuming.checkpoints import sweep
from spatialwhisperer.training.resuming.ended import Ended, forget_ended, read_ended, time_was_up
from spatialwhisperer.training.resuming.run_identity import check_epochs
from spatialwhisperer.training.ridge_link import ridge_link
from spatialwhisperer.training.trainer import (
    ending_together,
    flags_restored,
    limit_silence,
    listed,
    optimiser_steps,
    own_callbacks,
    quiet,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pandas as pd

    from spatialwhisperer.models.configuration.augmentation import Augmentation
    from spatialwhisperer.models.configuration.parts import PairLoss
    from spatialwhisperer.models.joint_space import JointSpace
    from spatialwhisperer.models.presets.recipe import Recipe
    from spatialwhisperer.training.batches import Items
    from spatialwhisperer.training.callbacks import Checkpoints
    from spatialwhisperer.training.feed import Feed

_LIMITS = ("max_time", "max_steps", "limit_train_batches", "callbacks")
"""Arguments of the Trainer that may end a phase before its first step."""


@dataclass(frozen=True)
class Phase:
    """One run of Lightning's Trainer.

    Attributes
    ----------
    name
        Name of the phase in the history, and of its folder of checkpoints.
    pairs
        Weight of each modality pair.
    train_heads
        Modalities whose head is trained.
    unlocked
        Encoders that are trained: modality to "U" or "u".
    """

    name: str
    pairs: Mapping[tuple[str, str], float]
    train_heads: frozenset[str]
    unlocked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """Everything that is the same in all phases.

    Attributes
    ----------
    recipe, loss
        Optimiser and schedule, and the loss of pairs without text.
    pairs
        Weight of each modality pair.
    bridge
        The modality that the sequential schedule links images to; ``None`` where there is none.
    unlocked
        Encoders that are trained: modality to "U" (after the warm-up) or "u" (from the start).
    max_epochs
        Epochs; ``None`` takes those of the recipe.
    random_state
        Seed.
    folder
        Folder of the checkpoints.
    trainer
        Arguments of Lightning's Trainer, as :func:`~spatialwhisperer.training.trainer.trainer_options` returns them.
    resume
        Continue from the checkpoints in the folder.
    resumable
        Whether the run may be resumed later; else nothing is written of phases that have ended.
    augmentation
        Random changes of the tiles of an image encoder that is trained; ``None`` changes none.
    workers
        Threads that prepare the batches of encoders that are trained; ``None`` takes one for each core, at most four.
    """

    recipe: Recipe
    loss: PairLoss
    pairs: Mapping[tuple[str, str], float]
    bridge: str | None
    unlocked: Mapping[str, str]
    max_epochs: int | None
    random_state: int
    folder: Path
    trainer: Mapping[str, Any]
    resume: bool = False
    resumable: bool = True
    augmentation: Augmentation | None = None
    workers: int | None = None


def fit(
    model: JointSpace, items: Items, validation: Items | None, run: Run, *, schedule: str, image_link: str | None
) -> Fitted:
    """Fit a model to items, in place.

    Parameters
    ----------
    model
        The model.
    items
        Training items.
    validation
        Items of held-out groups for a validation loss, or ``None``. Of a link in closed form it is the mean squared error.
    run
        How it is trained.
    schedule
        "joint": all pairs together. "sequential": the pairs without an image first, then the link of the image.
    image_link
        Of the sequential schedule: "ridge" or "contrastive".

    Raises
    ------
    ValueError
        If the schedule is sequential and there is no bridge modality.
    """
    if schedule == "joint":
        return _fit_joint(model, items, validation, run)
    return _fit_sequential(model, items, validation, run, str(image_link))


def _fit_joint(model: JointSpace, items: Items, validation: Items | None, run: Run) -> Fitted:
    """Train all pairs together, as published."""
    heads = frozenset(m for pair in run.pairs for m in pair)
    return Fitted(fit_phase(model, items, validation, Phase("joint", run.pairs, heads, run.unlocked), run))


def _fit_sequential(model: JointSpace, items: Items, validation: Items | None, run: Run, image_link: str) -> Fitted:
    """Train bridge modality and text first, then link the image to the embedding of the bridge modality, which stays fixed."""
    if run.bridge is None:
        raise ValueError("The sequential schedule needs a modality that is part of all pairs. Use schedule='joint'.")
    if in_closed_form(run.recipe, image_link, model.towers):
        weight = run.recipe.neighbour_weight
        solved = fit_closed_form(model, items, bridge=run.bridge, neighbour_weight=weight, validation=validation)
        if run.recipe.refine == "never":
            return solved
        return solved.then(
            refine(
                model,
                items,
                bridge=run.bridge,
                neighbour_weight=weight,
                random_state=run.random_state,
            )
        )
    phases = []
    for name, imaging in ((f"{run.bridge}-text", False), (f"image-{run.bridge}", True)):
        pairs = {pair: w for pair, w in run.pairs.items() if ("image" in pair) == imaging}
        heads = frozenset({"image"} if imaging else {run.bridge, "text"})
        unlocked = {m: k for m, k in run.unlocked.items() if (m == "image") == imaging}
        phases.append(Phase(name, pairs, heads, unlocked))
    # of the patients that are left in for a held-out accuracy, none may have a caption
    first = Fitted(fit_phase(model, items, validation, phases[0], run)) if phases[0].pairs else None
    if image_link == "ridge":
        link = ridge_link(model, items, bridge=run.bridge, validation=validation)
    else:
        link = Fitted(fit_phase(model, items, validation, phases[1], run))
    return link if first is None else first.then(link)


def in_closed_form(recipe: Recipe, image_link: str | None, trained: Any) -> bool:
    """Whether the sequential schedule is solved in closed form."""
    return recipe.closed_form and image_link == "ridge" and not trained


def fit_phase(model: JointSpace, items: Items, validation: Items | None, phase: Phase, run: Run) -> pd.DataFrame:
    """Train the heads and encoders of one phase on items and return its history."""
    feed = ItemFeed(
        model,
        items,
        validation,
        pairs=phase.pairs,
        recipe=run.recipe,
        seed=run.random_state,
        augmentation=run.augmentation if "image" in phase.unlocked else None,
        workers=run.workers,
    )
    return run_phase(model, feed, phase, run)


def run_phase(model: JointSpace, feed: Feed, phase: Phase, run: Run) -> pd.DataFrame:
    """Train the heads and encoders of one phase on what it is fed with, and return its history."""
    with isolated_rng(run.random_state), quiet(), flags_restored():
        pytorch = import_torch_stack("lightning.pytorch")
        from spatialwhisperer.training.callbacks import (
            AtOnce,
            BestEpoch,
            CheckpointFiles,
            Checkpoints,
            EpochBar,
            History,
        )
        from spatialwhisperer.training.lightning import ContrastiveTraining

        options = dict(run.trainer)
        sampler = feed.sampler(_world_size(pytorch, options))
        accumulated = options.get("accumulate_grad_batches") or 1
        epochs = _epochs(run, -(-len(sampler) * feed.parts // accumulated)) * feed.parts
        folder = run.folder / phase.name
        sweep(folder)
        ended = _ended(folder, epochs, feed.parts, phase, run)
        if ended is not None:
            model.load_state_dict(ended.weights)
            model.eval().requires_grad_(True).to("cpu")
            return ended.history
        forget_ended(folder)
        history, checkpoints = History(phase.name, folder, feed.parts), Checkpoints(folder, epochs, feed.parts)
        last = _resumed_from(checkpoints, phase, run)
        best = [BestEpoch()] if run.recipe.select == "best" else []
        options["callbacks"] = [
            *own_callbacks(options.get("callbacks")),
            *_time_limit(options, folder),
            history,
            checkpoints,
            EpochBar(),
            AtOnce(),
            *best,
        ]
        options["plugins"] = [*listed(options.get("plugins")), CheckpointFiles()]
        trainer = pytorch.Trainer(max_epochs=epochs, **options)
        limit_silence(trainer, options["strategy"])
        sampler.rank_of = partial(getattr, trainer, "global_rank")
        training = ContrastiveTraining(
            model,
            pairs=phase.pairs,
            recipe=run.recipe,
            loss=run.loss,
            train_heads=set(phase.train_heads),
            unlocked=phase.unlocked,
            total_steps=optimiser_steps(trainer, len(sampler)),
        )
        here = trainer.num_devices if trainer.world_size > 1 else 1
        train, val = feed.loaders(sampler, processes=here, pin=trainer.strategy.root_device.type == "cuda")
        with ExitStack() as open_loaders, ending_together(trainer), _interruptible(trainer), _in_own_precision(model):
            for loader in (train, val):
                if loader is not None:
                    open_loaders.enter_context(closing(loader))
            if last is not None:
                # the trainer loads weights before it gives the model its precision, and would round those of float64
                trainer.precision_plugin.convert_module(training)
            trainer.fit(training, train, val, ckpt_path=last, weights_only=True)
        model.eval().requires_grad_(True).to("cpu")
        losses = history.frame()
        if losses.empty and not trainer.global_step:
            raise ValueError(_no_step(phase, run))
        if run.resumable and trainer.is_global_zero:
            limit = _max_time(run) if time_was_up(folder) else None
            Ended(epochs, limit, model.state_dict(), losses.to_dict("list")).write(folder)
        return losses


def _no_step(phase: Phase, run: Run) -> str:
    limits = {name: run.trainer[name] for name in _LIMITS if run.trainer.get(name) is not None}
    return (
        f"The training of {phase.name!r} ended before its first step, so that there is no trained model. Raise what limits it: "
        f"trainer={limits}."
    )


def _max_time(run: Run) -> str | None:
    limit = run.trainer.get("max_time")
    return None if limit is None else str(limit)


def _time_limit(options: dict[str, Any], folder: Path) -> list[Any]:
    """What ends the phase after ``max_time``, taken out of the options of the Trainer; a timer of the caller comes before it, as there."""
    from lightning.pytorch.callbacks import Timer

    from spatialwhisperer.training.callbacks import TimeLimit

    limit = options.pop("max_time", None)
    if limit is None or any(isinstance(c, Timer) for c in listed(options.get("callbacks"))):
        return []
    return [TimeLimit(limit, folder)]


def _several_phases(phase: Phase, run: Run) -> bool:
    return set(phase.pairs) != set(run.pairs)


def _ended(folder: Path, epochs: int, parts: int, phase: Phase, run: Run) -> Ended | None:
    """The phase, where it has ended and the run that is resumed leaves it as it is."""
    found = read_ended(folder) if run.resume else None
    if found is None:
        return None
    several = _several_phases(phase, run)
    check_epochs(found.epochs // parts, epochs // parts, run.recipe, several_phases=several)
    return found if found.stays(epochs, _max_time(run), several_phases=several) else None


def _resumed_from(checkpoints: Checkpoints, phase: Phase, run: Run) -> Path | None:
    """The checkpoint to continue from; ``None`` for a new run, and where the run was killed before its first checkpoint."""
    found = checkpoints.find() if run.resume else None
    if found is None:
        return None
    path, before = found
    parts = checkpoints.parts
    check_epochs(before // parts, checkpoints.epochs // parts, run.recipe, several_phases=_several_phases(phase, run))
    return path


@contextmanager
def _interruptible(trainer: Any) -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl+C, where Lightning would end the process, and restore the signal handler afterwards."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        if not trainer.interrupted:
            raise
        raise KeyboardInterrupt(
            "Training was interrupted; continue it with sw.tl.train(…, folder=…, resume=True)."
        ) from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


@contextmanager
def _in_own_precision(model: JointSpace) -> Iterator[None]:
    """Restore the precision of the model, and the exact statistics of its features, after a run that converts all of it ("bf16-true")."""
    kept = {name: x.dtype for name, x in _tensors(model).items()}
    statistics = {name: x.clone() for name, x in model.named_buffers(recurse=False)}
    try:
        yield
    finally:
        for name, x in _tensors(model).items():
            x.data = x.data.to(kept[name])
        for name, x in statistics.items():
            getattr(model, name).copy_(x)


def _tensors(model: JointSpace) -> dict[str, Any]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _epochs(run: Run, steps_per_epoch: int) -> int:
    if run.max_epochs is not None:
        return run.max_epochs
    return max(run.recipe.max_epochs, -(-run.recipe.min_steps // steps_per_epoch))


def _world_size(pytorch: Any, options: Mapping[str, Any]) -> int:
    """Number of processes, as Lightning itself counts the devices; known before the Trainer of the run, whose epochs depend on it."""
    devices = {name: options[name] for name in ("accelerator", "devices", "num_nodes") if name in options}
    counting = pytorch.Trainer(
        **devices, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
    )
    return counting.num_devices * counting.num_nodes
