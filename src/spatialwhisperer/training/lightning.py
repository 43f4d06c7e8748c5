"""The LightningModule of training, for any set of modality pairs. Imported inside functions only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lightning.pytorch import LightningModule

from spatialwhisperer.networks.losses import balanced_sigmoid, contrastive, masked_mean
from spatialwhisperer.training.optimizer import optimizer_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spatialwhisperer.models.configuration.parts import PairLoss
    from spatialwhisperer.models.joint_space import JointSpace
    from spatialwhisperer.models.presets.recipe import Recipe


MAX_SCALE = 100.0
"""Largest inverse temperature where it is learned, as in CLIP (Radford et al., ICML 2021)."""


class Embedded(NamedTuple):
    """Embeddings of one modality; rows without it are zero and have the identity -1.

    Attributes
    ----------
    own, own_ids
        Rows of this rank, shapes (n, u) and (n,).
    z, ids
        Rows of all ranks, in the order in which one process would have them, shapes (ranks · n, u) and (ranks · n,).
    """

    own: torch.Tensor
    own_ids: torch.Tensor
    z: torch.Tensor
    ids: torch.Tensor


class ContrastiveTraining(LightningModule):
    """Trains the mean of contrastive losses over the modality pairs of a batch, and optionally a decoder of expression.

    Similarities and losses are computed in float32 at least, whatever the precision of the run. On several ranks the result is that of
    one process with the same pairs in a step, up to rounding: negatives, captions and the statistics of a batch norm in a head are
    those of all ranks. Exceptions are ``negatives_scope="device"``, dropout, contexts that mix the rows of a batch, and batch norm
    inside an encoder that is trained (on GPUs ``trainer={"sync_batchnorm": True}`` synchronises it).

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
        self.warmup_steps = recipe.warmup_steps(total_steps)
        self._used: set[str] = set()
        model.log_scale.requires_grad_(recipe.learn_temperature)
        # of the sigmoid loss; negative at the start, because most captions are not true of a row
        self.bias = torch.nn.Parameter(torch.tensor(-5.0)) if recipe.text_loss == "sigmoid" else None

    # -------------------------------------------------------------------------------------------- modes

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Choose what is trained before a strategy wraps the module: it collects the parameters to synchronise only once."""
        self._set_modes()

    def on_train_start(self) -> None:
        """Clamp the initial scale."""
        self._clamp_scale()

    def on_train_batch_end(self, *_: Any) -> None:
        """Clamp the scale after each step."""
        self._clamp_scale()

    def _clamp_scale(self) -> None:
        if self.recipe.learn_temperature:
            with torch.no_grad():
                self.model.log_scale.clamp_(max=math.log(MAX_SCALE))

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
            # over several ranks gradients are synchronised from the start; during the warm-up they are dropped before the step
            tower.train(learns).requires_grad_(learns or (kind == "U" and self.trainer.world_size > 1))
            for name in self.model.frozen[modality]:
                tower.get_parameter(name).requires_grad_(False)

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
        embedded = {m: self._embed(m, batch[m], n) for m in self.model.heads if m in batch}
        # without autocast: logits of 200 have steps of 1 in bfloat16
        with torch.autocast(self.device.type, enabled=False):
            parts = self._parts(embedded, batch)
            loss = masked_mean(parts, self.pairs) if parts else torch.zeros((), device=self.device)
            if self.model.decoder is not None and "values" in batch:
                loss = loss + self._decoder_loss(self.model.decoder, embedded["image"].own, batch["values"])
        if self._several_ranks() or not parts:
            # a rank may hold no row of a modality: adding zero times every parameter keeps the ranks synchronised
            loss = loss + sum(p.sum() * 0 for p in self.parameters() if p.requires_grad)
        self._remember_used(parts)
        return loss, {f"{a}_{b}": v for (a, b), v in parts.items()}

    def _parts(self, embedded: Mapping[str, Embedded], batch: dict[str, Any]) -> dict[tuple[str, str], torch.Tensor]:
        """Loss of each pair that the batch holds."""
        rows = self._gather(batch["row"])
        parts: dict[tuple[str, str], torch.Tensor] = {}
        for a, b in self.pairs:
            if a not in embedded or b not in embedded:
                continue
            if "text" in (a, b):
                # captions repeat: rows with the same caption are positives of each other
                other = embedded[b if a == "text" else a]
                loss = self._text_loss(other, embedded["text"], batch)
            else:
                every = self.loss.negatives_scope != "device"
                held = {m: embedded[m][2:] if every else embedded[m][:2] for m in (a, b)}
                loss = self._pair_loss(a, b, held, rows if every else batch["row"], every and self._several_ranks())
            if loss is not None:
                parts[a, b] = loss
        return parts

    def _has_values(self, batch: dict[str, Any]) -> bool:
        return self.model.decoder is not None and "values" in batch and len(batch["values"]["at"]) > 0

    def _pair_loss(
        self,
        a: str,
        b: str,
        embedded: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
        rows: torch.Tensor,
        shared: bool,
    ) -> torch.Tensor | None:
        """Loss of two modalities without text over the rows that hold both; the identity of a row is its observation."""
        # the loss is not symmetric: images choose among the rows of the other modality
        (image, image_ids), (other, other_ids) = (embedded[m] for m in ((b, a) if b == "image" else (a, b)))
        both = (image_ids >= 0) & (other_ids >= 0)
        if int(both.sum()) < 2:
            return None
        how = self.loss
        options: dict[str, Any] = {"lam": how.lam, "targets": how.targets}
        if how.targets == "soft":
            options |= {k: getattr(how, k) for k in ("alpha", "beta", "stop_grad", "column_targets")}
        else:
            options["ids"] = rows[both]
        options["own"] = self._own_rows(both) if shared else None
        return contrastive(image[both], other[both], self._scale(), **options)

    def _own_rows(self, both: torch.Tensor) -> slice:
        """Which of the rows that hold both modalities are those of this rank."""
        of_ranks = both.view(self.trainer.world_size, -1).sum(dim=1).tolist()
        first = sum(of_ranks[: self.trainer.global_rank])
        return slice(first, first + of_ranks[self.trainer.global_rank])

    def _text_loss(self, other: Embedded, text: Embedded, batch: dict[str, Any]) -> torch.Tensor | None:
        if self.bias is not None:
            captions = self._gather(batch["text"]["captions"])
            return self._caption_loss(other, text, captions, at_least_float32(self.bias))
        both = (other.ids >= 0) & (text.ids >= 0)
        if int(both.sum()) < 2:
            return None
        own = self._own_rows(both) if self._several_ranks() else None
        return contrastive(other.z[both], text.z[both], self._scale(), ids=text.ids[both], own=own)

    def _caption_loss(
        self, rows: Embedded, text: Embedded, captions: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor | None:
        """Sigmoid loss of the rows and the distinct captions of all ranks; a row without a caption is a negative of each."""
        there, stated = rows.ids >= 0, torch.nonzero(text.ids >= 0).flatten()
        if not len(stated) or not bool(there.any()):
            return None
        distinct, which = torch.unique(text.ids[stated], return_inverse=True)
        # each caption is embedded where it occurs first
        first = torch.full_like(distinct, len(text.ids)).scatter_reduce(0, which, stated, "amin")
        holds = (captions[there][:, :, None] == distinct).any(dim=1)
        return balanced_sigmoid(rows.z[there], text.z[first], self._scale(), bias, holds)

    def _decoder_loss(
        self, decoder: torch.nn.Module, image: torch.Tensor, values: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """Weighted mean squared error of the decoded expression; the mean over the ranks is that over all rows."""
        at, y = values["at"], values["y"]
        ranks = self._gather(torch.tensor([len(at)], device=self.device))
        if not len(at):
            return torch.zeros((), device=self.device)
        decoded = decoder(image[at].to(self.model.log_scale.dtype))
        error = at_least_float32(decoded).sub(y).square().mean()
        if self._several_ranks():
            error = error * (len(at) * len(ranks) / int(ranks.sum()))
        return self.recipe.regression_weight * error

    def _scale(self) -> torch.Tensor:
        return at_least_float32(self.model.log_scale).exp()

    # -------------------------------------------------------------------------------------------- embeddings

    def _embed(self, modality: str, part: dict[str, Any], n: int) -> Embedded:
        """Embed the rows that hold the modality, and only these, so that no placeholder reaches an encoder or a batch norm."""
        own_ids, ids = part["id"], self._gather(part["id"])
        head, dim = self.model.heads[modality], self.model.config.projection_dim
        holding = int((ids >= 0).sum())
        if holding == 0 or (head.training and holding < 2):
            # a batch norm needs two rows
            own = torch.zeros(n, dim, device=self.device).requires_grad_(torch.is_grad_enabled())
            return Embedded(
                own, torch.full_like(own_ids, -1), self._gather(own, gradients=True), torch.full_like(ids, -1)
            )
        if self._several_ranks() and head.training and _has_batch_norm(head):
            z = self._embed_everywhere(modality, part, n, ids)
            first = self.trainer.global_rank * n
            return Embedded(z[first : first + n], own_ids, z, ids)
        own = torch.zeros(n, dim, device=self.device) + self._zero(self._modules_of(modality))
        if len(part["at"]):
            z = self.model.scaled(at_least_float32(head(self._head_inputs(modality, part))))
            own = own.to(z.dtype).index_copy(0, part["at"], z)
        return Embedded(own, own_ids, self._gather(own, gradients=True), ids)

    def _embed_everywhere(self, modality: str, part: dict[str, Any], n: int, ids: torch.Tensor) -> torch.Tensor:
        """Apply a head with a batch norm to the rows of all ranks, so that its statistics are those of the whole batch."""
        width = self.model.config.modality(modality).head.in_dim
        x = torch.zeros(n, width, device=self.device) + self._zero(self._modules_of(modality)[1:])
        if len(part["at"]):
            found = at_least_float32(self._head_inputs(modality, part))
            x = x.to(found.dtype).index_copy(0, part["at"], found)
        x = self._gather(x, gradients=True)
        at = torch.nonzero(ids >= 0).flatten()
        z = self.model.scaled(at_least_float32(self.model.heads[modality](x[at].to(self.model.log_scale.dtype))))
        return z.new_zeros(len(ids), z.shape[1]).index_copy(0, at, z)

    def _zero(self, modules: list[torch.nn.Module]) -> torch.Tensor | float:
        """Zero that depends on the parameters: on a rank without rows their gradients come after the exchange with the others too."""
        if not self._several_ranks():
            return 0.0
        return sum((at_least_float32(p).sum() * 0 for m in modules for p in m.parameters() if p.requires_grad), 0.0)

    def _head_inputs(self, modality: str, part: dict[str, Any]) -> torch.Tensor:
        """Features of the rows that hold the modality, from its encoder where that is trained, with their context."""
        x = part["x"]
        if "expand" in part:
            x = self.model.towers[modality](x).to(self.model.log_scale.dtype)[part["expand"]]
        return self.model.contexts[modality](x, **part["context"]) if "context" in part else x

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

    def _remember_used(self, parts: Mapping[tuple[str, str], torch.Tensor]) -> None:
        """Remember which modalities have a gradient in this step; all ranks come to the same result."""
        local = self.loss.negatives_scope == "device" or self.model.decoder is not None
        self._used |= set(self.model.heads) if local or not parts else {m for pair in parts for m in pair}

    def on_before_optimizer_step(self, optimizer: Any) -> None:  # noqa: ARG002
        """Drop the gradients that are zero only because the ranks are synchronised: Adam's moments would advance with them."""
        used, self._used = self._used, set()
        if self.trainer.world_size == 1:
            return
        idle = [module for m in self.model.heads if m not in used for module in self._modules_of(m)]
        if self.trainer.global_step < self.warmup_steps:
            idle += [self.model.towers[m] for m, kind in self.unlocked.items() if kind == "U"]
        for module in idle:
            for parameter in module.parameters():
                parameter.grad = None
        if self.bias is not None and "text" not in used:
            self.bias.grad = None

    def _modules_of(self, modality: str) -> list[torch.nn.Module]:
        """Head, context and trained encoder of a modality, where there are such."""
        parts = (self.model.heads, self.model.contexts, self.model.towers)
        return [part[modality] for part in parts if modality in part]

    def configure_optimizers(self) -> Any:
        """Optimiser and learning rates of the recipe, for what is trained."""
        learning = [
            part[m] for m in sorted(self.train_heads) for part in (self.model.heads, self.model.contexts) if m in part
        ]
        learning += [] if self.model.decoder is None else [self.model.decoder]
        heads = [p for module in learning for p in module.parameters()]
        heads += [self.model.log_scale] if self.recipe.learn_temperature else []
        heads += [] if self.bias is None else [self.bias]
        towers = [(kind, list(self.model.towers[m].parameters())) for m, kind in sorted(self.unlocked.items())]
        optimizer, schedule = optimizer_of(heads, towers, self.recipe, self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _has_batch_norm(module: torch.nn.Module) -> bool:
    return any(isinstance(m, torch.nn.BatchNorm1d | torch.nn.SyncBatchNorm) for m in module.modules())


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """The same values in float32, or in float64 where they are."""
    return x if x.dtype == torch.float64 else x.float()
