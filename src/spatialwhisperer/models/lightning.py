"""The training module: one Lightning step for any set of modality pairs. Imported inside functions only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule
from torch.nn import functional

from spatialwhisperer.models.losses import balanced_sigmoid, info_nce, masked_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spatialwhisperer.models.presets import Recipe
    from spatialwhisperer.models.whisperer import Whisperer


class ContrastiveTraining(LightningModule):
    """Masked mean of symmetric InfoNCE over the modality pairs of a batch.

    Parameters
    ----------
    model
        Trained in place.
    pairs
        Weight of each modality pair.
    recipe
        Optimiser and schedule.
    train_heads
        Modalities whose head learns; the others stay fixed, in evaluation mode.
    unlocked
        Towers that learn: modality to "U" (frozen during the warm-up) or "u" (from the first step).
    total_steps
        Steps of the whole run.
    """

    def __init__(
        self,
        model: Whisperer,
        *,
        pairs: Mapping[tuple[str, str], float],
        recipe: Recipe,
        train_heads: set[str],
        unlocked: Mapping[str, str],
        total_steps: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.pairs = dict(pairs)
        self.recipe = recipe
        self.train_heads = train_heads
        self.unlocked = dict(unlocked)
        self.total_steps = total_steps
        self.warmup_steps = max(1, round(recipe.warmup * total_steps))
        if recipe.text_loss not in ("info_nce", "sigmoid"):
            raise ValueError(f"text_loss must be 'info_nce' or 'sigmoid', not {recipe.text_loss!r}.")
        # of the sigmoid loss: most captions are not true of a row
        self.bias = torch.nn.Parameter(torch.tensor(-5.0)) if recipe.text_loss == "sigmoid" else None

    # -------------------------------------------------------------------------------------------- modes

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Say what learns before a strategy wraps the module: it looks once for the parameters to keep in step."""
        self._set_modes()

    def on_train_epoch_start(self) -> None:
        """Lightning keeps the modes it finds, and a Whisperer rests in evaluation mode."""
        self._set_modes()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Unfreeze pretrained towers when the warm-up is over."""
        if self.trainer.global_step == self.warmup_steps:
            self._set_modes()

    def _set_modes(self) -> None:
        # the trainer's own count of steps, so that a resumed run is where it was
        warm = self.trainer.global_step >= self.warmup_steps
        self.model.eval()
        for modality, head in self.model.heads.items():
            learns = modality in self.train_heads
            head.train(learns).requires_grad_(learns)
        for modality, tower in self.model.towers.items():
            kind = self.unlocked.get(modality)
            learns = kind == "u" or (kind == "U" and warm)
            # over several ranks gradients must be there from the start; the learning rate of the warm-up is zero
            tower.train(learns).requires_grad_(learns or (kind == "U" and self.trainer.world_size > 1))

    # -------------------------------------------------------------------------------------------- steps

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:  # noqa: ARG002
        """Loss of one batch."""
        loss, parts = self._loss(batch)
        self.log_dict({"loss": loss.detach(), **{f"loss_{k}": v.detach() for k, v in parts.items()}}, batch_size=1)
        self.log("scale", self.model.log_scale.detach().exp(), batch_size=1)
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:  # noqa: ARG002
        """Loss on held-out groups."""
        loss, parts = self._loss(batch)
        self.log_dict(
            {"val_loss": loss, **{f"val_loss_{k}": v for k, v in parts.items()}}, batch_size=1, sync_dist=True
        )

    def _loss(self, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        n = len(batch["row"])
        own = {m: self._embed(m, batch[m], n) for m in self.model.heads if m in batch}
        z = {m: self._gather(embedded, gradients=True) for m, (embedded, _) in own.items()}
        ids = {m: self._gather(seen) for m, (_, seen) in own.items()}
        rows = self._gather(batch["row"])
        parts = {}
        for a, b in self.pairs:
            if a not in z or b not in z:
                continue
            if "text" in (a, b) and self.bias is not None:
                loss = self._caption_loss(own[b if a == "text" else a], own["text"][0], batch["text"])
                if loss is not None:
                    parts[a, b] = loss
                continue
            both = (ids[a] >= 0) & (ids[b] >= 0)
            if int(both.sum()) < 2:
                continue
            # captions repeat: rows that share one are positives of each other. Otherwise an observation is its own identity
            identity = ids["text"] if "text" in (a, b) else rows
            parts[a, b] = info_nce(z[a][both], z[b][both], self.model.log_scale.exp(), identity[both])
        loss = masked_mean(parts, self.pairs) if parts else torch.zeros((), device=self.device)
        if self._several_ranks() or not parts:
            # a rank may hold no row of a modality: a zero that still reaches every parameter keeps the ranks in step
            loss = loss + sum(p.sum() * 0 for p in self.parameters() if p.requires_grad)
        return loss, {f"{a}_{b}": v for (a, b), v in parts.items()}

    def _caption_loss(self, rows: Any, text: torch.Tensor, part: dict[str, Any]) -> torch.Tensor | None:
        """Sigmoid loss of this rank's rows against its distinct captions; it needs no negatives of other ranks."""
        embedded, seen = rows
        there = seen >= 0
        if not len(part["first"]) or not bool(there.any()):
            return None
        captions = text[part["first"]]
        return balanced_sigmoid(embedded[there], captions, self.model.log_scale.exp(), self.bias, part["holds"][there])

    def _embed(self, modality: str, part: dict[str, Any], n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed only the rows that hold the modality, so that no dummy row reaches a tower or a batch norm.

        Returns the embeddings, zero in the other rows, and the identities, -1 in the other rows.
        """
        out = torch.zeros(n, int(self.model.config["projection_dim"]), device=self.device)
        if len(part["at"]) == 0 or (self.model.heads[modality].training and len(part["at"]) < 2):
            # a batch norm cannot learn from one row; the gradient must still pass, or the ranks would wait for each other
            return out.requires_grad_(torch.is_grad_enabled()), torch.full_like(part["id"], -1)
        x = part["x"]
        if "expand" in part:
            x = self.model.towers[modality](x).float()[part["expand"]]
        z = functional.normalize(self.model.heads[modality](x), dim=-1)
        return out.to(z.dtype).index_copy(0, part["at"], z), part["id"]

    def _several_ranks(self) -> bool:
        # every rank validates on all rows, so there is nothing to gather there
        return self.trainer.world_size > 1 and self.training

    def _gather(self, x: torch.Tensor, *, gradients: bool = False) -> torch.Tensor:
        """Rows of all ranks: the negatives of a contrastive loss are those of the whole batch."""
        if not self._several_ranks():
            return x
        return self.all_gather(x, sync_grads=gradients).flatten(0, 1)

    # -------------------------------------------------------------------------------------------- optimiser

    def configure_optimizers(self) -> Any:
        """AdamW with a linear warm-up and a cosine; pretrained towers join after the warm-up with a ramp of their own."""
        heads = [p for m in sorted(self.train_heads) for p in self.model.heads[m].parameters()] + [self.model.log_scale]
        heads += [] if self.bias is None else [self.bias]
        groups = [*self._decay(heads, self.recipe.learning_rate)]
        scales = [self._head_scale] * len(groups)
        for modality, kind in sorted(self.unlocked.items()):
            rate = self.recipe.tower_learning_rate if kind == "U" else self.recipe.learning_rate
            tower = self._decay(list(self.model.towers[modality].parameters()), rate)
            groups += tower
            scales += [self._tower_scale if kind == "U" else self._head_scale] * len(tower)
        optimizer = torch.optim.AdamW(groups, betas=self.recipe.betas)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scales)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _decay(self, parameters: list[Any], rate: float) -> list[dict[str, Any]]:
        """Weights decay; biases, norms and the temperature do not."""
        weights = [p for p in parameters if p.ndim > 1]
        others = [p for p in parameters if p.ndim <= 1]
        groups = [
            {"params": weights, "weight_decay": self.recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return [g | {"lr": rate} for g in groups if g["params"]]

    def _head_scale(self, step: int) -> float:
        ramp = self.warmup_steps
        if step < ramp:
            return (step + 1) / ramp
        if "U" in self.unlocked.values() and step < 2 * ramp:
            return (step + 1 - ramp) / ramp
        progress = min(1.0, step / max(1, self.total_steps))
        floor = self.recipe.final_learning_rate
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

    def _tower_scale(self, step: int) -> float:
        return 0.0 if step < self.warmup_steps else self._head_scale(step)
