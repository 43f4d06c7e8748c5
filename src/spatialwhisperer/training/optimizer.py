"""The optimiser of training, and its learning rates over the steps. Imported inside functions only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialwhisperer.models.presets.recipe import Recipe


def optimizer_of(
    heads: Sequence[torch.nn.Parameter],
    towers: Sequence[tuple[str, Sequence[torch.nn.Parameter]]],
    recipe: Recipe,
    total_steps: int,
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Optimiser and learning rates of a recipe: a linear warm-up of the heads, then one of the pretrained encoders.

    Parameters
    ----------
    heads
        Parameters that are trained from the first step.
    towers
        Parameters of each encoder that is trained, after its kind: "U" (pretrained, frozen during the warm-up) or "u".
    recipe
        Rates, weight decay and schedule.
    total_steps
        Number of optimiser steps of the whole run.
    """
    rates = _Rates(recipe, total_steps, pretrained=any(kind == "U" for kind, _ in towers))
    groups = _decayed(heads, recipe.learning_rate, recipe)
    scales: list[Any] = [rates.of_heads] * len(groups)
    for kind, parameters in towers:
        rate = recipe.tower_learning_rate if kind == "U" else recipe.learning_rate
        of_tower = _decayed(parameters, rate, recipe)
        groups += of_tower
        scales += [rates.of_towers if kind == "U" else rates.of_heads] * len(of_tower)
    coupled = recipe.optimizer == "adam"
    optimizer = (torch.optim.Adam if coupled else torch.optim.AdamW)(groups, betas=recipe.betas)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, scales)


def _decayed(parameters: Sequence[torch.nn.Parameter], rate: float, recipe: Recipe) -> list[dict[str, Any]]:
    """Parameter groups: weight decay applies to matrices only, or to all, and with "adam" always to all as published."""
    if recipe.optimizer == "adam" or recipe.decay == "all":
        groups: list[dict[str, Any]] = [{"params": list(parameters), "weight_decay": recipe.weight_decay}]
    else:
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
    return [g | {"lr": rate} for g in groups if g["params"]]


class _Rates:
    """Learning rates over those of the recipe, at each step."""

    def __init__(self, recipe: Recipe, total_steps: int, *, pretrained: bool) -> None:
        self.recipe, self.total_steps, self.pretrained = recipe, total_steps, pretrained
        self.warmup_steps = recipe.warmup_steps(total_steps)

    def of_heads(self, step: int) -> float:
        ramp = self.warmup_steps
        if step < ramp:
            return (step + 1) / ramp
        if self.pretrained and step < 2 * ramp:
            return (step + 1 - ramp) / ramp
        if self.recipe.schedule == "constant":
            return 1.0
        progress = min(1.0, step / max(1, self.total_steps))
        floor = self.recipe.final_learning_rate
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

    def of_towers(self, step: int) -> float:
        return 0.0 if step < self.warmup_steps else self.of_heads(step)
