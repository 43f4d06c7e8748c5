"""The LightningModule of training, for any set of modality pairs. Imported inside functions only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule

from spatialwhisperer.networks.losses import balanced_sigmoid, contrastive, masked_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spatialwhisperer.models.joint_space import JointSpace
    from spatialwhisperer.models.parts import PairLoss, Recipe


class ContrastiveTraining(LightningModule):
    """Trains the mean of contrastive losses over the modality pairs of a batch, and optionally a decoder of expression.

    Parameters
    ----------
    model
        The model, which is trained in place.
    pairs
        Weight of each modality pair.
    recipe
        Optimiser and schedule.
    loss
        Loss of pairs without text. Pairs with text have the symmetric contrastive loss with identity targets, or the sigmoid loss.
    train_heads
        Modalities whose head is trained. The other heads stay fixed, in evaluation mode.
    unlocked
        Encoders that are trained: modality to "U" (frozen during the warm-up) or "u" (trained from the first step).
    total_steps
        Number of optimiser steps of the whole run.
    """

    def __init__(
        self,
        model: JointSpace,
        *,
        pairs: Mapping[tuple[str, str], float],
        recipe: Recipe,
        loss: PairLoss,
        train_heads: set[str],
        unlocked: Mapping[str, str],
        total_steps: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.pairs = dict(pairs)
        self.recipe = recipe
        self.loss = loss
        self.train_heads = train_heads
        self.unlocked = dict(unlocked)
        self.total_steps = total_steps
        self.warmup_steps = max(1, round(recipe.warmup * total_steps))
        model.log_scale.requires_grad_(recipe.learn_temperature)
        # of the sigmoid loss; negative at the start, because most captions are not true of a row
        self.bias = torch.nn.Parameter(torch.tensor(-5.0)) if recipe.text_loss == "sigmoid" else None

    # -------------------------------------------------------------------------------------------- modes

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Choose what is trained before a strategy wraps the module: it collects the parameters to synchronise only once."""
        self._set_modes()

    def on_train_epoch_start(self) -> None:
        """Set the modes again: Lightning keeps those it finds, and a model is in evaluation mode outside training."""
        self._set_modes()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Unfreeze pretrained encoders at the end of the warm-up."""
        if self.trainer.global_step == self.warmup_steps:
            self._set_modes()

    def _set_modes(self) -> None:
        # the trainer's own count of steps is also right in a resumed run
        warm = self.trainer.global_step >= self.warmup_steps
        self.model.eval()
        for modality, head in self.model.heads.items():
            learns = modality in self.train_heads
            head.train(learns).requires_grad_(learns)
            if modality in self.model.contexts:
                self.model.contexts[modality].train(learns).requires_grad_(learns)
        if self.model.decoder is not None:
            self.model.decoder.train("image" in self.train_heads).requires_grad_("image" in self.train_heads)
        self.model.log_scale.requires_grad_(self.recipe.learn_temperature)
        for modality, tower in self.model.towers.items():
            kind = self.unlocked.get(modality)
            learns = kind == "u" or (kind == "U" and warm)
            # over several ranks gradients are synchronised from the start; the learning rate is zero during the warm-up
            tower.train(learns).requires_grad_(learns or (kind == "U" and self.trainer.world_size > 1))

    # -------------------------------------------------------------------------------------------- steps

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:  # noqa: ARG002
        """Loss of one batch."""
        loss, parts = self._loss(batch)
        self._log_means(loss, parts, batch)
        self.log("scale", self.model.log_scale.detach().exp(), batch_size=1)
        return loss

    def _log_means(self, loss: torch.Tensor, parts: Mapping[str, torch.Tensor], batch: dict[str, Any]) -> None:
        """Log the means over the epoch and over the ranks; a batch without a pair does not count in the mean of that pair."""
        values = {"loss": loss.detach() if parts or self._has_values(batch) else None}
        for a, b in self.pairs:
            if a in batch and b in batch:
                part = parts.get(f"{a}_{b}")
                values[f"loss_{a}_{b}"] = None if part is None else part.detach()
        for name, value in values.items():
            if value is not None:
                self.log(name, value, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)
            elif self._several_ranks():
                # the ranks are averaged name by name, so each logs the same names
                zero = torch.zeros((), device=self.device)
                self.log(name, zero, on_step=False, on_epoch=True, sync_dist=True, batch_size=0)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:  # noqa: ARG002
        """Loss on held-out groups."""
        loss, parts = self._loss(batch)
        if not parts:
            # without a pair there is no loss, and a zero would count in the mean over the batches
            return
        self.log_dict(
            {"val_loss": loss, **{f"val_loss_{k}": v for k, v in parts.items()}}, batch_size=1, sync_dist=True
        )

    def _loss(self, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        n = len(batch["row"])
        device_only = self.loss.negatives_scope == "device"
        own = {m: self._embed(m, batch[m], n) for m in self.model.heads if m in batch}
        z = {m: self._gather(embedded, gradients=True) for m, (embedded, _) in own.items()}
        ids = {m: self._gather(seen) for m, (_, seen) in own.items()}
        rows = self._gather(batch["row"])
        parts: dict[tuple[str, str], torch.Tensor] = {}
        for a, b in self.pairs:
            if a not in z or b not in z:
                continue
            if "text" in (a, b):
                # captions repeat: rows with the same caption are positives of each other
                loss = self._text_loss(own, z, ids, b if a == "text" else a, batch)
            elif device_only:
                near = {m: x for m, (x, _) in own.items()}, {m: i for m, (_, i) in own.items()}
                loss = self._pair_loss(a, b, *near, batch["row"])
            else:
                loss = self._pair_loss(a, b, z, ids, rows)
            if loss is not None:
                parts[a, b] = loss
        loss = masked_mean(parts, self.pairs) if parts else torch.zeros((), device=self.device)
        decoder = self.model.decoder
        if decoder is not None and self._has_values(batch):
            loss = loss + self.recipe.regression_weight * _decoder_error(decoder, own["image"][0], batch["values"])
        if self._several_ranks() or not parts:
            # a rank may hold no row of a modality: adding zero times every parameter keeps the ranks synchronised
            loss = loss + sum(p.sum() * 0 for p in self.parameters() if p.requires_grad)
        return loss, {f"{a}_{b}": v for (a, b), v in parts.items()}

    def _has_values(self, batch: dict[str, Any]) -> bool:
        return self.model.decoder is not None and "values" in batch and len(batch["values"]["at"]) > 0

    def _pair_loss(self, a: str, b: str, z: Any, ids: Any, rows: torch.Tensor) -> torch.Tensor | None:
        """Loss of two modalities without text over the rows that hold both; the identity of a row is its observation."""
        # the loss is not symmetric: images choose among the rows of the other modality
        image, other = (b, a) if b == "image" else (a, b)
        both = (ids[image] >= 0) & (ids[other] >= 0)
        if int(both.sum()) < 2:
            return None
        how = self.loss
        options: dict[str, Any] = {"lam": how.lam, "targets": how.targets}
        if how.targets == "soft":
            options |= {k: getattr(how, k) for k in ("alpha", "beta", "stop_grad", "column_targets")}
        else:
            options["ids"] = rows[both]
        return contrastive(z[image][both], z[other][both], self.model.log_scale.exp(), **options)

    def _text_loss(self, own: Any, z: Any, ids: Any, other: str, batch: dict[str, Any]) -> torch.Tensor | None:
        if self.bias is not None:
            return self._caption_loss(own[other], own["text"][0], batch["text"], self.bias)
        both = (ids[other] >= 0) & (ids["text"] >= 0)
        if int(both.sum()) < 2:
            return None
        return contrastive(z[other][both], z["text"][both], self.model.log_scale.exp(), ids=ids["text"][both])

    def _caption_loss(
        self, rows: Any, text: torch.Tensor, part: dict[str, Any], bias: torch.Tensor
    ) -> torch.Tensor | None:
        """Sigmoid loss of the rows and the distinct captions of this rank; it needs no negatives of other ranks."""
        embedded, seen = rows
        there = seen >= 0
        if not len(part["first"]) or not bool(there.any()):
            return None
        captions = text[part["first"]]
        return balanced_sigmoid(embedded[there], captions, self.model.log_scale.exp(), bias, part["holds"][there])

    def _embed(self, modality: str, part: dict[str, Any], n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed the rows that hold the modality, and only these, so that no placeholder reaches an encoder or a batch norm.

        Returns
        -------
        Embeddings (n, u), zero in the other rows, and identities (n,), -1 in the other rows.
        """
        out = torch.zeros(n, self.model.config.projection_dim, device=self.device)
        if len(part["at"]) == 0 or (self.model.heads[modality].training and len(part["at"]) < 2):
            # a batch norm needs two rows; the gradient must exist all the same, or the ranks would wait for each other
            return out.requires_grad_(torch.is_grad_enabled()), torch.full_like(part["id"], -1)
        x = part["x"]
        if "expand" in part:
            x = self.model.towers[modality](x).float()[part["expand"]]
        if "context" in part:
            x = self.model.contexts[modality](x, **part["context"])
        z = self.model.scaled(self.model.heads[modality](x))
        return out.to(z.dtype).index_copy(0, part["at"], z), part["id"]

    def _several_ranks(self) -> bool:
        # in validation every rank has all rows, so there is nothing to gather
        return self.trainer.world_size > 1 and self.training

    def _gather(self, x: torch.Tensor, *, gradients: bool = False) -> torch.Tensor:
        """Rows of all ranks, because the negatives of a contrastive loss are those of the whole batch."""
        if not self._several_ranks():
            return x
        of_ranks: Any = self.all_gather(x, sync_grads=gradients)
        return of_ranks.flatten(0, 1)

    # -------------------------------------------------------------------------------------------- optimiser

    def configure_optimizers(self) -> Any:
        """Optimiser and learning rates of the recipe: a linear warm-up of the heads, then one of the pretrained encoders."""
        learning = [
            part[m] for m in sorted(self.train_heads) for part in (self.model.heads, self.model.contexts) if m in part
        ]
        learning += [] if self.model.decoder is None else [self.model.decoder]
        heads = [p for module in learning for p in module.parameters()]
        heads += [self.model.log_scale] if self.recipe.learn_temperature else []
        heads += [] if self.bias is None else [self.bias]
        groups = [*self._decay(heads, self.recipe.learning_rate)]
        scales: list[Any] = [self._head_scale] * len(groups)
        for modality, kind in sorted(self.unlocked.items()):
            rate = self.recipe.tower_learning_rate if kind == "U" else self.recipe.learning_rate
            tower = self._decay(list(self.model.towers[modality].parameters()), rate)
            groups += tower
            scales += [self._tower_scale if kind == "U" else self._head_scale] * len(tower)
        coupled = self.recipe.optimizer == "adam"
        optimizer = (torch.optim.Adam if coupled else torch.optim.AdamW)(groups, betas=self.recipe.betas)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scales)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _decay(self, parameters: list[Any], rate: float) -> list[dict[str, Any]]:
        """Parameter groups: weight decay applies to matrices only, except with "adam", where it applies to all as published."""
        if self.recipe.optimizer == "adam":
            return [{"params": parameters, "weight_decay": self.recipe.weight_decay, "lr": rate}] if parameters else []
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
        if self.recipe.schedule == "constant":
            return 1.0
        progress = min(1.0, step / max(1, self.total_steps))
        floor = self.recipe.final_learning_rate
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

    def _tower_scale(self, step: int) -> float:
        return 0.0 if step < self.warmup_steps else self._head_scale(step)


def _decoder_error(decoder: torch.nn.Module, image: torch.Tensor, values: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean squared error of the decoded expression on this rank's rows."""
    return (decoder(image[values["at"]]) - values["y"]).square().mean()
