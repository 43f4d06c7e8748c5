"""Contrastive losses as pure functions of embeddings, scale and identities."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
from torch.nn import functional

from spatialwhisperer.networks.panels import How, panel_loss

if TYPE_CHECKING:
    from collections.abc import Mapping

K = TypeVar("K")

TARGETS = ("identity", "soft")
COLUMN_TARGETS = ("transpose", "renormalise")

WHOLE_ROWS = 1024
"""Largest batch whose logits are held at once; computing larger ones panel by panel takes less time and far less memory."""


def positive_targets(ids_a: torch.Tensor, ids_b: torch.Tensor, *, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Targets in which every row of equal identity is a positive.

    Parameters
    ----------
    ids_a, ids_b
        Identities of the rows and of the columns, shapes (n,) and (m,): spots for image and gene, captions for gene and text.
    dtype
        Type of the targets, that of the logits they are compared with.

    Returns
    -------
    Matrix of shape (n, m). A row sums to one, or to zero where it has no positive.
    """
    same = (ids_a[:, None] == ids_b[None, :]).to(dtype)
    return same / same.sum(dim=1, keepdim=True).clamp_min(1.0)


def contrastive(
    image: torch.Tensor,
    gene: torch.Tensor,
    scale: torch.Tensor | float,
    *,
    lam: float = 0.5,
    alpha: float = 0.0,
    beta: float = 0.0,
    targets: Literal["identity", "soft"] = "identity",
    stop_grad: bool = False,
    column_targets: Literal["transpose", "renormalise"] = "transpose",
    ids: torch.Tensor | None = None,
    own: slice | None = None,
) -> torch.Tensor:
    """Contrastive loss of two modalities, which includes those of CLIP, BLEEP and HECLIP.

    ``λ CE(Sᵀ, T_c) + (1−λ) CE(S, T_r)`` with ``S = scale · Z_g Z_iᵀ``, CE the mean over rows of ``−Σ T log softmax``.

    Memory grows linearly with n: of a large batch a few rows of the logits are computed at a time, and once more for the gradient.
    The loss cannot be differentiated twice then.

    Parameters
    ----------
    image, gene
        Paired embeddings Z_i and Z_g, shape (n, u), of unit length or not.
    scale
        Inverse temperature.
    lam
        Weight λ of the half in which images choose among genes, 0 to 1.
    alpha, beta
        Weights of image and of gene similarity in soft targets: ``T_r = softmax(scale · (α Z_i Z_iᵀ + β Z_g Z_gᵀ))``.
    targets
        "identity": the target of a row is its own partner. "soft": the target is distributed over similar rows.
    stop_grad
        Soft targets get no gradient.
    column_targets
        T_c for soft targets: "transpose" takes T_rᵀ, whose rows do not sum to one, as BLEEP and HECLIP do;
        "renormalise" divides its rows by their sums.
    ids
        Identity of each pair for identity targets, shape (n,). Rows of equal identity are positives of each other, never negatives.
        ``None`` takes all pairs as different.
    own
        Rows of this process, where each process of the default group of `torch.distributed` has all embeddings and computes the part of
        its own rows; together they have all rows. The value is that of all rows. The gradient is that of the own rows times the number
        of processes, so that the mean over the processes is the gradient of the value. ``None`` for a single process.

    Raises
    ------
    ValueError
        If the shapes differ, a name is unknown, lam is not between 0 and 1, or an argument of one kind of targets is given with the
        other kind.

    Notes
    -----
    BLEEP (Xie et al., NeurIPS 2023): soft, α = β = ½, λ = ½. HECLIP (Wang et al., Bioinformatics 2025): soft, α = 1,
    β = 0, λ = 1. mclSTExp (Min et al., Briefings in Bioinformatics 2024), CLIP and SpatialWhisperer: identity, λ = ½.
    BLEEP, HECLIP and mclSTExp use scale = 1 and vectors that are not scaled to unit length.

    Examples
    --------
    >>> import torch
    >>> from spatialwhisperer.networks.losses import contrastive
    >>> z = 3 * torch.eye(4)
    >>> round(float(contrastive(z, z, 1.0, targets="soft", alpha=0.5, beta=0.5)), 4)
    0.0037
    """
    _check_contrastive(image, gene, lam, alpha, beta, targets, column_targets, ids)
    how = How(lam, alpha, beta, stop_grad, targets == "soft", column_targets == "renormalise", ids, own)
    if own is None and len(image) <= WHOLE_ROWS:
        return whole_loss(image, gene, scale, how)
    return panel_loss(image, gene, torch.as_tensor(scale, dtype=image.dtype, device=image.device), how)


def whole_loss(image: torch.Tensor, gene: torch.Tensor, scale: torch.Tensor | float, how: How) -> torch.Tensor:
    """The loss of `contrastive` by its definition, with all logits at once."""
    logits = scale * gene @ image.T
    if how.soft:
        rows = functional.softmax(scale * (how.alpha * image @ image.T + how.beta * gene @ gene.T), dim=1)
        rows = rows.detach() if how.stop_grad else rows
        columns = rows.T / rows.sum(dim=0)[:, None] if how.renormalise else rows.T
    elif how.ids is None:
        rows = columns = torch.arange(len(image), device=image.device)
    else:
        # equal within a group, so the matrix is its own transpose
        rows = columns = positive_targets(how.ids, how.ids, dtype=logits.dtype)
    # a half with weight zero is not computed
    by_image = how.lam * functional.cross_entropy(logits.T, columns) if how.lam > 0 else 0.0
    by_gene = (1 - how.lam) * functional.cross_entropy(logits, rows) if how.lam < 1 else 0.0
    return torch.as_tensor(by_image + by_gene)


def _check_contrastive(
    image: torch.Tensor,
    gene: torch.Tensor,
    lam: float,
    alpha: float,
    beta: float,
    targets: str,
    column_targets: str,
    ids: torch.Tensor | None,
) -> None:
    if image.ndim != 2 or image.shape != gene.shape:
        raise ValueError(
            f"image and gene must be paired matrices of one shape, not {tuple(image.shape)} and {tuple(gene.shape)}."
        )
    if targets not in TARGETS:
        raise ValueError(f"Unknown targets {targets!r}; choose one of {', '.join(TARGETS)}.")
    if column_targets not in COLUMN_TARGETS:
        raise ValueError(f"Unknown column_targets {column_targets!r}; choose one of {', '.join(COLUMN_TARGETS)}.")
    if not 0 <= lam <= 1:
        raise ValueError(f"lam must lie between 0 and 1, not {lam!r}.")
    if targets == "identity" and (alpha or beta):
        raise ValueError("alpha and beta shape soft targets only; pass targets='soft', or leave both at 0.")
    if targets == "soft" and not (alpha or beta):
        raise ValueError("Soft targets need a similarity: alpha for images, beta for genes, 0.5 and 0.5 for BLEEP.")
    if targets == "soft" and ids is not None:
        raise ValueError("ids shape identity targets only; soft targets find equal rows by themselves. Leave ids out.")


def info_nce(a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE with several positives: `contrastive` with identity targets, the loss of SpatialWhisperer."""
    return contrastive(b, a, scale, ids=ids)


def balanced_sigmoid(
    a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor, holds: torch.Tensor
) -> torch.Tensor:
    """Sigmoid loss of rows and captions in which all captions have the same weight, and so have their positives and negatives.

    ``mean_c [ mean_{i holds c} softplus(−s_ic) + mean_{i lacks c} softplus(s_ic) ]`` with ``s = scale · a bᵀ + bias``: the pairwise loss
    of SigLIP, balanced so that frequent captions do not dominate rare ones. A row may have several captions.

    Parameters
    ----------
    a
        Unit embeddings of rows, shape (n, u).
    b
        Unit embeddings of distinct captions, shape (c, u).
    scale, bias
        Scale and bias of the logits.
    holds
        Which caption is true of which row, Boolean, shape (n, c).
    """
    logits = scale * a @ b.T + bias
    true, false = holds.to(logits.dtype), (~holds).to(logits.dtype)
    positive = (functional.softplus(-logits) * true).sum(dim=0) / true.sum(dim=0).clamp_min(1)
    negative = (functional.softplus(logits) * false).sum(dim=0) / false.sum(dim=0).clamp_min(1)
    return (positive + negative).mean()


def masked_mean(losses: Mapping[K, torch.Tensor], weights: Mapping[K, float]) -> torch.Tensor:
    """Weighted mean over the modality pairs of a batch, whatever their numbers of rows.

    Parameters
    ----------
    losses
        Loss of each pair that the batch holds.
    weights
        Weight of each pair.

    Raises
    ------
    ValueError
        If there is no pair, or all weights are zero.
    """
    total = sum(weights[pair] for pair in losses)
    if not losses or total <= 0:
        raise ValueError("No modality pair with a positive weight in this batch.")
    weighted = [weights[pair] * loss for pair, loss in losses.items()]
    return reduce(torch.add, weighted) / total
