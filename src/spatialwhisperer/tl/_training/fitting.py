"""From prepared inputs to a fitted model, and the folder of a run."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._random import isolated_rng, untouched_rng
from spatialwhisperer._settings import settings
from spatialwhisperer._storage.files import cannot_write
from spatialwhisperer._storage.folders import left_in, of_this_process
from spatialwhisperer.models.configuration.model import HeadConfig, ModalityConfig, ModelConfig, Training
from spatialwhisperer.models.whisperer import Whisperer
from spatialwhisperer.networks.context import make_context
from spatialwhisperer.training.fit import Run, fit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from spatialwhisperer.models.configuration.parts import Preset
    from spatialwhisperer.models.presets.recipe import Recipe
    from spatialwhisperer.tl._training.inputs import Inputs, ModalityInputs
    from spatialwhisperer.training.batches import Items

LOCK = "run.lock"
"""File in the folder of a run that the process that trains in it holds."""

_NO_DROPOUT = ("none", "linear")


@dataclass(frozen=True)
class Plan:
    """Everything that a fit needs except the data, so that it can be repeated on a part of the data.

    Attributes
    ----------
    preset, recipe, schedule, image_link
        What is trained and how.
    pairs
        Weight of each modality pair that the data hold.
    training
        What the model states about its training.
    max_epochs, random_state
        Number of epochs and seed.
    trainer
        Arguments of Lightning's Trainer.
    decoder_dim
        Number of genes of a decoder that is trained with the contrastive loss; ``None`` trains no decoder.
    resumable
        Whether the run may be resumed: it has a folder of the caller's.
    """

    preset: Preset
    recipe: Recipe
    schedule: str
    image_link: str | None
    pairs: Mapping[tuple[str, str], float]
    training: Training
    max_epochs: int | None
    random_state: int
    trainer: Mapping[str, Any]
    decoder_dim: int | None = None
    resumable: bool = True


def fit_model(
    inputs: Inputs, items: Items, validation: Items | None, plan: Plan, folder: Path, *, resume: bool = False
) -> Whisperer:
    """Build a model and fit it to items; its losses are in ``model.history``."""
    model = build_model(inputs, plan)
    recipe = plan.recipe
    if recipe.neighbour_weight and not _placed(inputs):
        recipe = replace(recipe, neighbour_weight=0.0)
    run = Run(
        recipe=recipe,
        loss=plan.preset.loss,
        pairs=plan.pairs,
        bridge=plan.preset.bridge,
        unlocked=inputs.unlocked,
        max_epochs=plan.max_epochs,
        random_state=plan.random_state,
        folder=folder,
        trainer=plan.trainer,
        resume=resume,
        resumable=plan.resumable,
        augmentation=plan.training.augmentation,
    )
    fitted = fit(model, items, validation, run, schedule=plan.schedule, image_link=plan.image_link)
    model.history = fitted.history
    model.update(training=replace(plan.training, penalties=fitted.penalties, refinement=fitted.refinement))
    return model


def _placed(inputs: Inputs) -> bool:
    """Whether all rows with an image have a position; only then the model may use neighbours."""
    rows = inputs.observations
    return bool(np.isfinite(rows.loc[rows["image"] >= 0, ["x", "y"]].to_numpy()).all())


def build_model(inputs: Inputs, plan: Plan) -> Whisperer:
    """An untrained model for the inputs."""
    names = sorted(inputs.modalities)
    modalities = {name: _modality(name, inputs.modalities[name], plan.recipe) for name in names}
    dim = plan.recipe.projection_dim
    if dim is None:
        dim = modalities[str(plan.preset.bridge)].head.in_dim
    config = ModelConfig(
        projection_dim=dim,
        modalities=modalities,
        temperature=plan.preset.temperature,
        norm=plan.preset.norm,  # type: ignore[arg-type]
        decoder_dim=plan.decoder_dim,
        labels=tuple(inputs.captions),
        wordings={caption: tuple(texts) for caption, texts in inputs.wordings.items()},
        training=plan.training,
    )
    encoders = {name: one.encoder for name, one in inputs.modalities.items() if one.encoder is not None}
    with isolated_rng(plan.random_state):
        model = Whisperer(config, encoders=encoders)
    for name, one in inputs.modalities.items():
        if one.statistics is not None:
            model.set_statistics(name, *one.statistics)
    return model


def _modality(name: str, inputs: ModalityInputs, recipe: Recipe) -> ModalityConfig:
    width, kind = inputs.dim, recipe.head(name)
    if inputs.context is not None:
        with untouched_rng():
            width = make_context(inputs.context.kind, inputs.dim, **inputs.context.options).out_dim
    dropout = 0.0 if kind in _NO_DROPOUT else recipe.dropout.get(name, 0.0)
    return ModalityConfig(
        features=inputs.recipe,
        feature_dim=inputs.dim,
        head=HeadConfig(kind, width, dropout),
        context=inputs.context,
        standardize=inputs.standardize,  # type: ignore[arg-type]
        trained=inputs.unlocked is not None,
    )


def check_folder(folder: str | Path | None, *, resume: bool) -> None:
    """Refuse a folder that holds another run.

    Raises
    ------
    ValueError
        If a run is to be resumed and no folder is given.
    FileExistsError
        If the folder holds a run that is not to be resumed.
    """
    if resume and folder is None:
        raise ValueError("resume=True needs folder=…, the folder of the run to continue.")
    if folder is not None and not resume and not joins_a_run() and (Path(folder).expanduser() / "phases").exists():
        raise FileExistsError(f"{folder} holds a run already. Continue it with resume=True, or choose another folder.")


def joins_a_run() -> bool:
    """Whether this process was started by a strategy on this machine: it joins the run of the first process."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


def check_writable(folder: str | Path | None) -> None:
    """Refuse a folder that cannot be written, before any work. Nothing stays there.

    Raises
    ------
    OSError
        If it cannot.
    """
    where = _place(folder)
    here = next((p for p in (where, *where.parents) if p.exists()), Path.cwd())
    with _written(folder), tempfile.TemporaryDirectory(prefix=".spatialwhisperer-", dir=here):
        pass


def run_folder(folder: str | Path | None) -> Path:
    """The folder that was given, or a new one in the cache folder.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    where = _place(folder)
    with _written(folder):
        where.mkdir(parents=True, exist_ok=True)
        if folder is not None:
            return where
        for left in left_in(where, "run"):
            # a run that was killed cannot be resumed there; one that has its model is finished
            shutil.rmtree(left / "phases" if (left / "model").exists() else left, ignore_errors=True)
        return of_this_process("run", where)


def _place(folder: str | Path | None) -> Path:
    return settings.cache_dir / "runs" if folder is None else Path(folder).expanduser()


def writing_to(plan: Plan, folder: Path, *, resumable: bool) -> Plan:
    """The plan with the folder of the run, also for what loggers and callbacks of the caller write where they name no folder."""
    return replace(plan, trainer={**plan.trainer, "default_root_dir": str(folder)}, resumable=resumable)


@contextmanager
def _written(folder: str | Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "Name another folder with folder=…"
        remedy += "." if folder is not None else ", or another cache with sw.settings.cache_dir = …."
        raise cannot_write(_place(folder), error, remedy) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder of a run. The lock ends with the process, however it ends.

    Raises
    ------
    FileExistsError
        If another process trains in the folder.
    """
    from filelock import FileLock, Timeout

    if joins_a_run() or folder.parent == settings.cache_dir / "runs":
        # of a run of several processes, the first holds the folder; a folder in the cache has a name that no other process knows
        yield
        return
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FileExistsError(
            f"Another process trains in {folder} at this moment. Wait until it ends, or choose another folder."
        ) from None
    try:
        yield
    finally:
        lock.release()


def check_free(folder: str | Path | None) -> None:
    """Refuse a folder in which another process trains, before any work.

    Raises
    ------
    FileExistsError
        If there is one.
    """
    if folder is not None and (Path(folder).expanduser() / LOCK).exists():
        with locked(Path(folder).expanduser()):
            pass


def remove_phases(folder: Path) -> None:
    """Remove the checkpoints of a run in the cache folder: they serve to resume it, and it cannot be resumed."""
    shutil.rmtree(folder / "phases", ignore_errors=True)


def save_model(model: Whisperer, folder: Path) -> None:
    """Write the model once, from the first process."""
    from lightning.pytorch.utilities import rank_zero_only

    if getattr(rank_zero_only, "rank", 0) == 0:
        model.save(folder)
    else:
        model.folder = folder
