"""From prepared inputs to a fitted model, in a run folder."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._random import isolated_rng
from spatialwhisperer.settings import settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spatialwhisperer.models import Preset, Recipe, Whisperer
    from spatialwhisperer.tl._training.inputs import Inputs
    from spatialwhisperer.training.batches import Items


@dataclass(frozen=True)
class Plan:
    """Everything that a fit needs beside the data, so that it can be repeated on a part of them.

    Attributes
    ----------
    preset, recipe, schedule, image_link
        What is trained and how.
    weights
        Weight of each modality pair.
    manifest
        What the model says about its training.
    max_epochs, random_state
        Of the run.
    trainer
        Arguments of Lightning's Trainer.
    decoder
        Genes that a decoder learns beside the contrastive loss; ``None``: no decoder.
    """

    preset: Preset
    recipe: Recipe
    schedule: str
    image_link: str | None
    weights: Mapping[tuple[str, str], float]
    manifest: Mapping[str, Any]
    max_epochs: int | None
    random_state: int
    trainer: Mapping[str, Any]
    decoder: int | None = None


def fit_model(
    inputs: Inputs, items: Items, validation: Items | None, plan: Plan, folder: Path, *, resume: bool = False
) -> Whisperer:
    """Build a model and fit it to items; its losses are in ``model.history``."""
    from spatialwhisperer.training.fit import Run, fit_joint, fit_sequential

    model = build_model(inputs, plan)
    recipe = plan.recipe
    if recipe.neighbour_share and not _placed(inputs):
        recipe = replace(recipe, neighbour_share=0.0)
    run = Run(recipe, plan.preset.loss, plan.max_epochs, plan.random_state, folder, plan.trainer, resume)
    if plan.schedule == "joint":
        model.history = fit_joint(model, items, validation, plan.weights, inputs.unlocked, run)
    else:
        link = str(plan.image_link)
        model.history = fit_sequential(model, items, validation, plan.weights, inputs.unlocked, link, run)
    return model


def _placed(inputs: Inputs) -> bool:
    """Whether all rows with an image have a position, so that a model may ask for positions too."""
    rows = inputs.observations
    return bool(np.isfinite(rows.loc[rows["image"] >= 0, ["x", "y"]].to_numpy()).all())


def build_model(inputs: Inputs, plan: Plan) -> Whisperer:
    """An untrained model for the inputs."""
    import torch

    from spatialwhisperer.models.whisperer import Whisperer
    from spatialwhisperer.networks.context import make_context

    recipe = plan.recipe
    widths = dict(inputs.dims)
    for modality, context in inputs.contexts.items():
        with isolated_rng(0):
            widths[modality] = make_context(context["kind"], context["in_dim"], **context["options"]).out_dim
    heads = {}
    for modality in sorted(widths):
        head: dict[str, Any] = {"kind": recipe.heads[modality], "in_dim": widths[modality]}
        if recipe.dropout.get(modality) and head["kind"] not in ("none", "linear"):
            head["dropout"] = recipe.dropout[modality]
        heads[modality] = head
    config = {
        "projection_dim": recipe.projection_dim or widths["gene"],
        "temperature": plan.preset.temperature,
        "norm": plan.preset.norm,
        "heads": heads,
        "contexts": inputs.contexts,
        "standardize": inputs.standardize,
        "encoders": inputs.encoders,
        "towers": inputs.rebuild,
        "labels": inputs.captions,
        "training": dict(plan.manifest),
    }
    if plan.decoder is not None:
        config["decoder"] = {"out_dim": plan.decoder}
    with isolated_rng(plan.random_state):
        model = Whisperer(config, inputs.towers)
    for modality, (mean, std) in inputs.statistics.items():
        getattr(model, f"{modality}_mean").copy_(torch.from_numpy(mean))
        getattr(model, f"{modality}_std").copy_(torch.from_numpy(std))
    model.gene_encoder = inputs.gene_encoder
    return model


def check_folder(folder: str | Path | None, *, resume: bool) -> None:
    """Refuse a folder that holds another run."""
    if resume and folder is None:
        raise ValueError("resume=True needs folder=…, the folder of the run to continue.")
    # a process that a strategy started on this machine joins the run of the first
    joins = os.environ.get("LOCAL_RANK", "0") != "0"
    if folder is not None and not resume and not joins and (Path(folder).expanduser() / "phases").exists():
        raise FileExistsError(f"{folder} holds a run already. Continue it with resume=True, or choose another folder.")


def run_folder(folder: str | Path | None) -> Path:
    """The folder asked for, or a new one in the cache."""
    if folder is not None:
        where = Path(folder).expanduser()
        where.mkdir(parents=True, exist_ok=True)
        return where
    runs = settings.cache_dir / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="run-", dir=runs))


def save_model(model: Whisperer, folder: Path) -> None:
    """Write the model once, from the first process."""
    from lightning.pytorch.utilities import rank_zero_only

    if getattr(rank_zero_only, "rank", 0) == 0:
        model.save(folder)
    else:
        model.folder = folder
