"""A joint space of random features, small enough to be trained in a moment."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from spatialwhisperer.encoders.recipe import FeatureRecipe
from spatialwhisperer.models.configuration.model import HeadConfig, ModalityConfig, ModelConfig
from spatialwhisperer.models.configuration.parts import PairLoss
from spatialwhisperer.models.joint_space import JointSpace
from spatialwhisperer.models.presets.recipe import Recipe
from spatialwhisperer.training.batches import Items
from spatialwhisperer.training.fit import Run
from spatialwhisperer.training.trainer import trainer_options

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WIDTHS = {"image": 6, "gene": 5, "text": 4}
PAIRS = {("image", "gene"): 1.0, ("gene", "text"): 1.0}
RECIPE = Recipe(
    heads=dict.fromkeys(WIDTHS, "linear_norm"),
    projection_dim=8,
    learning_rate=1e-2,
    tower_learning_rate=1e-2,
    weight_decay=0.0,
    betas=(0.9, 0.98),
    warmup=0.1,
    final_learning_rate=0.1,
    batch_size=16,
    max_epochs=3,
    min_steps=1,
)


@pytest.fixture(scope="session")
def items() -> Items:
    """48 rows: of 32 image and gene features are random maps of one another, of 16 the gene features are those of four captions."""
    rng = np.random.default_rng(0)
    n, n_image = 48, 32
    text = rng.normal(size=(4, WIDTHS["text"]))
    caption = np.where(np.arange(n) < n_image, -1, np.arange(n) % 4)
    gene = rng.normal(size=(n, WIDTHS["gene"]))
    gene[n_image:] = text[caption[n_image:]] @ rng.normal(size=(4, 5)) + 0.3 * gene[n_image:]
    image = gene[:n_image] @ rng.normal(size=(5, 6))
    inputs = {m: x.astype(np.float32) for m, x in (("image", image), ("gene", gene), ("text", text))}
    index = {"image": np.where(np.arange(n) < n_image, np.arange(n), -1), "gene": np.arange(n), "text": caption}
    return Items(inputs, index, np.arange(n), np.where(np.arange(n) % 2, "a", "b"))


@pytest.fixture
def space() -> Callable[..., JointSpace]:
    """Builds an untrained joint space, always the same one; ``heads``, ``dropout`` and ``config`` change parts of it."""

    def build(
        heads: dict[str, str] | None = None,
        trained: dict[str, Any] | None = None,
        dropout: float = 0.0,
        **config: Any,
    ) -> JointSpace:
        kinds, encoders = {**RECIPE.heads, **(heads or {})}, trained or {}
        modalities = {
            m: ModalityConfig(
                FeatureRecipe(None, m), width, HeadConfig(kinds[m], width, dropout), trained=m in encoders
            )
            for m, width in WIDTHS.items()
        }
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return JointSpace(ModelConfig(8, modalities, **config), encoders=encoders)

    return build


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Run]:
    """Builds the options of a fit; keywords change those of the recipe, of the run, or of the Trainer."""

    def build(trainer: dict[str, Any] | None = None, **changes: Any) -> Run:
        of_run = {k: changes.pop(k) for k in list(changes) if k in Run.__dataclass_fields__}
        options = trainer_options({"accelerator": "cpu", **(trainer or {})})
        plain = Run(replace(RECIPE, **changes), PairLoss(), PAIRS, "gene", {}, None, 0, tmp_path / "phases", options)
        return replace(plain, **of_run)

    return build
