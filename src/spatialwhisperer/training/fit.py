"""Fitting a model to items: the two schedules, on arrays."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from spatialwhisperer._messages import import_torch_stack
from spatialwhisperer._random import isolated_rng
from spatialwhisperer.settings import settings
from spatialwhisperer.training.batches import ItemBatches, ShuffledBatches, batch_loader
from spatialwhisperer.training.closed_form import fit_closed_form
from spatialwhisperer.training.ridge_link import ridge_link

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pandas as pd

    from spatialwhisperer.models.parts import PairLoss, Recipe
    from spatialwhisperer.models.whisperer import Whisperer
    from spatialwhisperer.training.batches import Items

_NOISE = (
    "does not have many workers",
    "have no `val_dataloader`",
    "isinstance(treespec, LeafSpec)",
    "eval mode",
    "checkpoint directory",
    "logging interval",
)


@dataclass(frozen=True)
class Phase:
    """One run of the trainer.

    Attributes
    ----------
    name
        Appears in the history and names the checkpoint folder.
    pairs
        Weight of each modality pair.
    train_heads
        Modalities whose head learns.
    unlocked
        Towers that learn, modality to "U" or "u".
    """

    name: str
    pairs: Mapping[tuple[str, str], float]
    train_heads: frozenset[str]
    unlocked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """What all phases share: recipe, loss of image and gene, epochs (``None``: the recipe's), seed, folder and Lightning's Trainer arguments."""

    recipe: Recipe
    loss: PairLoss
    max_epochs: int | None
    random_state: int
    folder: Path
    trainer: Mapping[str, Any]
    resume: bool = False


def fit_joint(
    model: Whisperer,
    items: Items,
    validation: Items | None,
    pairs: Mapping[tuple[str, str], float],
    unlocked: Any,
    run: Run,
) -> pd.DataFrame:
    """All pairs together, as published."""
    heads = frozenset(m for pair in pairs for m in pair)
    return fit_phase(model, items, validation, Phase("joint", pairs, heads, unlocked), run)


def fit_sequential(
    model: Whisperer,
    items: Items,
    validation: Items | None,
    pairs: Mapping[tuple[str, str], float],
    unlocked: Mapping[str, str],
    image_link: str,
    run: Run,
) -> pd.DataFrame:
    """Gene and text first; then the image is linked to the gene embedding, which stays fixed."""
    import pandas as pd

    if in_closed_form(run.recipe, image_link, model.towers):
        return fit_closed_form(model, items, neighbour_share=run.recipe.neighbour_share)
    language = {pair: w for pair, w in pairs.items() if "image" not in pair}
    imaging = {pair: w for pair, w in pairs.items() if "image" in pair}
    first = Phase(
        "gene-text", language, frozenset({"gene", "text"}), {m: k for m, k in unlocked.items() if m != "image"}
    )
    history = fit_phase(model, items, validation, first, run)
    if image_link == "ridge":
        return pd.concat([history, ridge_link(model, items)], ignore_index=True)
    second = Phase("image-gene", imaging, frozenset({"image"}), {m: k for m, k in unlocked.items() if m == "image"})
    return pd.concat([history, fit_phase(model, items, validation, second, run)], ignore_index=True)


def in_closed_form(recipe: Recipe, image_link: str | None, unlocked: Any) -> bool:
    """Whether the sequential schedule needs no training at all."""
    return recipe.closed_form and image_link == "ridge" and not unlocked


def fit_phase(model: Whisperer, items: Items, validation: Items | None, phase: Phase, run: Run) -> pd.DataFrame:
    """Train the heads and towers of one phase; returns its history."""
    items = items.with_pairs(phase.pairs)
    with isolated_rng(run.random_state), _quiet():
        pytorch = import_torch_stack("lightning.pytorch")
        from spatialwhisperer.training.callbacks import History, callbacks
        from spatialwhisperer.training.lightning import ContrastiveTraining

        options = dict(run.trainer)
        world = _world_size(options)
        sampler = ShuffledBatches(
            len(items), run.recipe.batch_size, seed=run.random_state, world_size=world, strata=items.strata()
        )
        epochs = _epochs(run, len(sampler))
        history = History(phase.name, run.folder / phase.name)
        given = options.get("callbacks") or []
        given = list(given) if isinstance(given, list | tuple) else [given]
        options["callbacks"] = [*given, history, *callbacks(run.folder / phase.name, epochs)]
        training = ContrastiveTraining(
            model,
            pairs=phase.pairs,
            recipe=run.recipe,
            loss=run.loss,
            train_heads=set(phase.train_heads),
            unlocked=phase.unlocked,
            total_steps=epochs * len(sampler),
        )
        trainer = pytorch.Trainer(max_epochs=epochs, **options)
        sampler.rank_of = lambda: trainer.global_rank
        train = batch_loader(ItemBatches(items, model.towers), sampler)
        val = _validation_loader(model, validation, phase, run)
        last = run.folder / phase.name / "last.ckpt"
        resume = last if run.resume and last.is_file() else None
        with _interruptible(trainer):
            trainer.fit(training, train, val, ckpt_path=resume, weights_only=True)
        model.eval().requires_grad_(True).to("cpu")
        return history.frame()


@contextmanager
def _interruptible(trainer: Any) -> Iterator[None]:
    """Lightning leaves the process on Ctrl+C and ignores further ones; a notebook wants neither."""
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


def _epochs(run: Run, steps_per_epoch: int) -> int:
    if run.max_epochs is not None:
        return run.max_epochs
    return max(run.recipe.max_epochs, -(-run.recipe.min_steps // steps_per_epoch))


def _world_size(options: Mapping[str, Any]) -> int:
    devices, nodes = options.get("devices", 1), options.get("num_nodes", 1)
    if isinstance(devices, list | tuple):
        return len(devices) * nodes
    if isinstance(devices, str):
        return max(1, torch.cuda.device_count()) * nodes if devices in ("auto", "-1") else int(devices) * nodes
    return (max(1, torch.cuda.device_count()) if devices == -1 else int(devices)) * nodes


def _validation_loader(model: Whisperer, validation: Items | None, phase: Phase, run: Run) -> Any:
    if validation is None:
        return None
    items = validation.with_pairs(phase.pairs)
    if len(items) < 2:
        return None
    sampler = ShuffledBatches(len(items), run.recipe.batch_size, seed=run.random_state, shuffle=False)
    return batch_loader(ItemBatches(items, model.towers), sampler)


def trainer_options(
    accelerator: str, devices: Any, strategy: str, precision: Any, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Lightning's Trainer arguments: ours where the caller says nothing, the caller's otherwise."""
    if accelerator == "auto" and settings.device is not None:
        accelerator = (
            "cpu" if settings.device == "cpu" else "gpu" if settings.device.startswith("cuda") else settings.device
        )
    cuda = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    ours = {
        "accelerator": accelerator,
        "devices": devices,
        "strategy": strategy,
        "precision": precision or ("bf16-mixed" if cuda else "32-true"),
        "logger": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
    }
    return ours | dict(given)


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's hints do not apply to batches that are looked up in memory."""
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
