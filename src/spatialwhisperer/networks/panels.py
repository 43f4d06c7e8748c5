"""Contrastive loss panel by panel: a few rows of the logits at a time, exact, with memory linear in the batch.

Nothing of the size of the batch squared is kept for the backward pass, which computes the logits again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from collections.abc import Iterator

ELEMENTS = {"cpu": 2**21, "cuda": 2**24}
"""Most numbers in one panel of logits, by kind of device; a panel has one row at least."""

_LEAST = 1e-25
"""Smallest sum of exponentials of a column, relative to the largest logit of a panel, that loses nothing in float32."""

_RANGE = 50.0
"""Largest range of logarithms whose exponentials can be multiplied without loss in float32."""


class How(NamedTuple):
    """What a contrastive loss compares, and which part of it this process computes.

    Attributes
    ----------
    lam, alpha, beta, stop_grad
        As for `spatialwhisperer.networks.losses.contrastive`.
    soft, renormalise
        Whether targets are soft, and whether those of the images are divided by their sums.
    ids
        Identity of each pair, shape (n,); ``None`` where all differ.
    own
        Rows of this process; the processes of the default group together have all rows. ``None`` for a single process.
    elements
        Most numbers in one panel; ``None`` takes `ELEMENTS`.
    """

    lam: float
    alpha: float = 0.0
    beta: float = 0.0
    stop_grad: bool = False
    soft: bool = False
    renormalise: bool = False
    ids: torch.Tensor | None = None
    own: slice | None = None
    elements: int | None = None


def panel_loss(image: torch.Tensor, gene: torch.Tensor, scale: torch.Tensor, how: How) -> torch.Tensor:
    """The loss of `spatialwhisperer.networks.losses.contrastive`, whose arguments have been checked.

    Where ``how.own`` is given, the value is that of all rows, and the gradient that of the rows of this process times the number of
    processes: its mean over the processes is the gradient of the value.
    """
    return _PanelLoss.apply(image, gene, scale, how)


class _PanelLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: torch.Tensor, gene: torch.Tensor, scale: torch.Tensor, how: How) -> torch.Tensor:
        groups = None if how.ids is None else _Groups.of_ids(how.ids)
        with torch.autocast(image.device.type, enabled=False):
            value, kept = _forward(image, gene, scale, how, groups)
        ctx.save_for_backward(image, gene, scale, *kept)
        ctx.how, ctx.groups = how, groups
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        image, gene, scale, *kept = ctx.saved_tensors
        gradients = _Gradients(image, gene, scale, ctx.how, ctx.needs_input_grad)
        with torch.autocast(image.device.type, enabled=False):
            gradients.run(ctx.groups, _Kept(*kept))
        if ctx.how.own is not None:
            grad = grad * torch.distributed.get_world_size()
        return (*gradients.times(grad / len(image)), None)


class _Groups(NamedTuple):
    """Rows of equal identity.

    Attributes
    ----------
    of
        Group of each row, shape (n,).
    size
        Number of rows in each group.
    """

    of: torch.Tensor
    size: torch.Tensor

    @classmethod
    def of_ids(cls, ids: torch.Tensor) -> _Groups | None:
        """Groups of identities; ``None`` where all differ."""
        distinct, of, size = torch.unique(ids, return_inverse=True, return_counts=True)
        return None if len(distinct) == len(ids) else cls(of, size)

    def means(self, z: torch.Tensor, rows: slice) -> torch.Tensor:
        """For every row the sum of those ``rows`` that are in its group, divided by the size of the whole group."""
        sums = z.new_zeros(len(self.size), z.shape[1]).index_add_(0, self.of[rows], z[rows])
        return (sums / self.size[:, None])[self.of]


class _Kept(NamedTuple):
    """Vectors of length n that the backward pass needs.

    Attributes
    ----------
    rows, similar, columns
        Logarithms of the sums of exponentials of the rows of the logits, of the rows of the similarities, and of the columns of the
        logits.
    column_weight
        Sum of the targets of each column.
    target_weight, target_loss
        Derivative of the loss by a target, times n: ``target_loss − target_weight · logit``, up to a constant of the row.
    """

    rows: torch.Tensor
    similar: torch.Tensor
    columns: torch.Tensor
    column_weight: torch.Tensor
    target_weight: torch.Tensor
    target_loss: torch.Tensor


class _Panels:
    """Rows of one panel after the other, and the memory in which their logits are computed."""

    def __init__(self, image: torch.Tensor, gene: torch.Tensor, scale: torch.Tensor, how: How) -> None:
        self.image, self.gene, self.scale, self.how = image, gene, scale, how
        most = how.elements or ELEMENTS.get(image.device.type, ELEMENTS["cuda"])
        self.own = how.own or slice(0, len(image))
        self.step = max(1, min(self.own.stop - self.own.start, most // max(1, len(image))))
        self._buffers: dict[str, torch.Tensor] = {}

    def __iter__(self) -> Iterator[slice]:
        for start in range(self.own.start, self.own.stop, self.step):
            yield slice(start, min(self.own.stop, start + self.step))

    def buffer(self, name: str, at: slice) -> torch.Tensor:
        """Memory of a panel; the same for every panel, because fresh memory costs as much time as arithmetic."""
        if name not in self._buffers:
            self._buffers[name] = self.image.new_empty(self.step, len(self.image))
        return self._buffers[name][: at.stop - at.start]

    def logits(self, at: slice) -> torch.Tensor:
        return torch.mm(self.scale * self.gene[at], self.image.T, out=self.buffer("logits", at))

    def similarities(self, at: slice) -> torch.Tensor:
        """What the soft targets are the softmax of; a similarity without weight is not computed."""
        out, filled = self.buffer("targets", at), 0.0
        for weight, z in ((self.how.alpha, self.image), (self.how.beta, self.gene)):
            if weight:
                torch.addmm(out, weight * self.scale * z[at], z.T, beta=filled, out=out)
                filled = 1.0
        return out


class _Columns:
    """Sums over rows, to which each panel adds its own."""

    def __init__(self, like: torch.Tensor) -> None:
        self.top = like.new_full((len(like),), -torch.inf)
        self.total, self.weight, self.overlap = (like.new_zeros(len(like)) for _ in range(3))

    def add(self, top: torch.Tensor, total: torch.Tensor) -> None:
        """Add exponentials that are relative to ``top``."""
        new = torch.maximum(self.top, top)
        self.total = self.total * (self.top - new).exp() + total * (top - new).exp()
        self.top = new

    def of_all_processes(self) -> None:
        top = self.top.clone()
        torch.distributed.all_reduce(top, torch.distributed.ReduceOp.MAX)
        self.total *= (self.top - top).exp()
        self.top = top
        for part in (self.total, self.weight, self.overlap):
            torch.distributed.all_reduce(part)


def _forward(
    image: torch.Tensor, gene: torch.Tensor, scale: torch.Tensor, how: How, groups: _Groups | None
) -> tuple[torch.Tensor, _Kept]:
    panels, columns = _Panels(image, gene, scale, how), _Columns(gene)
    rows, similar, overlap = gene.new_zeros(len(gene)), gene.new_zeros(len(gene)), gene.new_zeros(())
    for at in panels:
        logits = panels.logits(at)
        if how.soft:
            targets = panels.similarities(at)
            similar[at] = _log_sum(targets, panels.buffer("other", at))
            overlap += _add_targets(targets.sub_(similar[at, None]).exp_(), logits, columns, how)
        rows[at] = _add_exponentials(logits, columns, panels.buffer("other", at), how.lam)
    own = panels.own
    if not how.soft:
        partner = image[own] if groups is None else groups.means(image, slice(None))[own]
        overlap = scale * (gene[own] * partner).sum()
    row_sum = rows[own].sum()
    if how.own is not None:
        columns.of_all_processes()
        for part in (row_sum, overlap):
            torch.distributed.all_reduce(part)
    return _finish(row_sum, overlap, columns, rows, similar, how)


def _finish(
    row_sum: torch.Tensor,
    overlap: torch.Tensor,
    columns: _Columns,
    rows: torch.Tensor,
    similar: torch.Tensor,
    how: How,
) -> tuple[torch.Tensor, _Kept]:
    """Value of the loss, and what its gradient needs, from the sums over all panels."""
    lam, n, one = how.lam, len(rows), torch.ones_like(rows)
    log_columns = columns.top + columns.total.log() if lam > 0 else torch.zeros_like(rows)
    if how.renormalise and lam > 0:
        mean_logit = columns.overlap / columns.weight
        by_image = (log_columns - mean_logit).sum()
        kept = one, (1 - lam) + lam / columns.weight, lam * mean_logit / columns.weight
    else:
        weight = columns.weight if how.soft else one
        by_image = (weight * log_columns).sum() - overlap
        kept = weight, one, lam * log_columns
    # a half with weight zero has no value
    value = lam * by_image if lam > 0 else torch.zeros_like(row_sum)
    if lam < 1:
        value = value + (1 - lam) * (row_sum - overlap)
    return value / n, _Kept(rows, similar, log_columns, *kept)


def _log_sum(panel: torch.Tensor, spare: torch.Tensor) -> torch.Tensor:
    top = panel.amax(dim=1)
    return top + torch.sub(panel, top[:, None], out=spare).exp_().sum(dim=1).log()


def _add_targets(targets: torch.Tensor, logits: torch.Tensor, columns: _Columns, how: How) -> torch.Tensor:
    """Add soft targets to the columns; the sum of targets times logits. The targets are overwritten."""
    if how.lam > 0:
        columns.weight += targets.sum(dim=0)
    targets.mul_(logits)
    if how.renormalise:
        columns.overlap += targets.sum(dim=0)
    return targets.sum()


def _add_exponentials(logits: torch.Tensor, columns: _Columns, spare: torch.Tensor, lam: float) -> torch.Tensor:
    """Add the exponentials of a panel to the columns; logarithms of the sums of its rows. A half with weight zero is left out."""
    if lam == 1:
        _add_columns(logits, columns, spare)
        return logits.new_zeros(len(logits))
    top = logits.amax(dim=1)
    relative = torch.sub(logits, top[:, None], out=spare).exp_()
    rows = top + relative.sum(dim=1).log()
    if lam > 0:
        # the exponentials of the rows serve the columns too, unless a column is much smaller than the panel's largest logit
        highest = top.max()
        total = (top - highest).exp() @ relative
        if bool(total.min() >= _LEAST):
            columns.add(highest, total)
        else:
            _add_columns(logits, columns, spare)
    return rows


def _add_columns(logits: torch.Tensor, columns: _Columns, spare: torch.Tensor) -> None:
    top = logits.amax(dim=0)
    columns.add(top, torch.sub(logits, top, out=spare).exp_().sum(dim=0))


class _Gradients:
    """Gradients by image, gene and scale, each divided by the scale (image and gene) and times n."""

    def __init__(
        self,
        image: torch.Tensor,
        gene: torch.Tensor,
        scale: torch.Tensor,
        how: How,
        needed: tuple[bool, ...],
    ) -> None:
        self.panels, self.how, self.scale = _Panels(image, gene, scale, how), how, scale
        self.image, self.gene = image, gene
        self.by_image = torch.zeros_like(image) if needed[0] else None
        self.by_gene = torch.zeros_like(gene) if needed[1] else None
        self.by_scale = gene.new_zeros(()) if needed[2] else None

    def run(self, groups: _Groups | None, kept: _Kept) -> None:
        """Add all panels."""
        one_exponential = self._one_exponential(kept)
        for at in self.panels:
            logits = self.panels.logits(at)
            targets = by_similarity = None
            if self.how.soft:
                targets = self.panels.similarities(at).sub_(kept.similar[at, None]).exp_()
                if not self.how.stop_grad:
                    by_similarity = self._by_similarity(logits, targets, kept, at)
            by_logit = self._by_logit(logits, kept, at, one_exponential)
            if targets is not None:
                by_logit.sub_(targets.mul_(kept.target_weight))
            self._add(by_logit, at, self.gene, self.image, self.by_gene, self.by_image, 1.0)
            if by_similarity is not None:
                self._add_similarity(by_similarity, at)
        if not self.how.soft:
            self._subtract_partners(groups)

    def times(self, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients by image, gene and scale, times a number."""
        of_rows = [None if part is None else part.mul_(self.scale * grad) for part in (self.by_image, self.by_gene)]
        by_scale = None if self.by_scale is None else (self.by_scale * grad).to(self.scale.dtype)
        return *of_rows, None if by_scale is None else by_scale.reshape(self.scale.shape)

    def _one_exponential(self, kept: _Kept) -> bool:
        """Whether the softmax by columns follows from that by rows without loss."""
        if not 0 < self.how.lam < 1:
            return False
        low, high = torch.cat([kept.rows[self.panels.own], kept.columns]).aminmax()
        return bool(high - low <= _RANGE)

    def _by_logit(self, logits: torch.Tensor, kept: _Kept, at: slice, one_exponential: bool) -> torch.Tensor:
        """Gradient by the logits of a panel without that of the targets, times n. The logits are overwritten."""
        lam, spare = self.how.lam, self.panels.buffer("other", at)
        rows, columns = kept.rows[at, None], kept.columns
        if lam == 0:
            return logits.sub_(rows).exp_()
        if lam == 1:
            return logits.sub_(columns).exp_().mul_(kept.column_weight)
        if one_exponential:
            middle = columns.mean()
            weight = lam * kept.column_weight * (middle - columns).exp()
            torch.mul((rows - middle).exp(), weight, out=spare).add_(1 - lam)
            return logits.sub_(rows).exp_().mul_(spare)
        torch.sub(logits, columns, out=spare).exp_().mul_(lam * kept.column_weight)
        return logits.sub_(rows).exp_().mul_(1 - lam).add_(spare)

    def _by_similarity(self, logits: torch.Tensor, targets: torch.Tensor, kept: _Kept, at: slice) -> torch.Tensor:
        """Gradient by the similarities of a panel through its soft targets, times n."""
        out = torch.mul(logits, kept.target_weight, out=self.panels.buffer("similarity", at))
        torch.sub(kept.target_loss, out, out=out)
        mean = torch.mul(out, targets, out=self.panels.buffer("other", at)).sum(dim=1, keepdim=True)
        return out.sub_(mean).mul_(targets)

    def _add_similarity(self, by_similarity: torch.Tensor, at: slice) -> None:
        pairs = ((self.how.alpha, self.image, self.by_image), (self.how.beta, self.gene, self.by_gene))
        for weight, z, by_z in pairs:
            if weight:
                self._add(by_similarity, at, z, z, by_z, by_z, weight)

    def _add(
        self,
        by_product: torch.Tensor,
        at: slice,
        left: torch.Tensor,
        right: torch.Tensor,
        by_left: torch.Tensor | None,
        by_right: torch.Tensor | None,
        weight: float,
    ) -> None:
        """Add the gradients by both factors of ``left[at] @ right.T``, and by the scale."""
        if by_left is not None or self.by_scale is not None:
            by_rows = by_product @ right
            if by_left is not None:
                by_left[at].add_(by_rows, alpha=weight)
            if self.by_scale is not None:
                self.by_scale += weight * (by_rows * left[at]).sum()
        if by_right is not None:
            by_right.addmm_(by_product.T, left[at], alpha=weight)

    def _subtract_partners(self, groups: _Groups | None) -> None:
        own = self.panels.own
        partner = self.image[own] if groups is None else groups.means(self.image, slice(None))[own]
        if self.by_gene is not None:
            self.by_gene[own] -= partner
        if self.by_scale is not None:
            self.by_scale -= (self.gene[own] * partner).sum()
        if self.by_image is not None and groups is None:
            self.by_image[own] -= self.gene[own]
        elif self.by_image is not None and groups is not None:
            self.by_image -= groups.means(self.gene, own)
