"""Contrastive losses as pure functions of embeddings, scale and identities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def positive_targets(ids_a: torch.Tensor, ids_b: torch.Tensor) -> torch.Tensor:
    """Soft targets in which every equal identity is a positive.

    Parameters
    ----------
    ids_a, ids_b
        Identities of the rows and the columns, shapes (n,) and (m,): spots for image and gene, captions for gene and text.

    Returns
    -------
    Matrix of shape (n, m) whose rows sum to one.
    """
    same = (ids_a[:, None] == ids_b[None, :]).float()
    return same / same.sum(dim=1, keepdim=True).clamp_min(1.0)


def info_nce(a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE with several positives.

    ``½ [CE(S, T) + CE(Sᵀ, T)]`` with ``S = scale · a bᵀ``; with distinct ``ids`` the targets are the identity and this is
    the loss of CLIP and of SpatialWhisperer (ICML 2026).

    Parameters
    ----------
    a, b
        Paired unit embeddings, shape (n, u).
    scale
        Inverse temperature.
    ids
        Identity of each pair, shape (n,): rows of equal identity are positives of each other, never negatives.
    """
    logits = scale * a @ b.T
    targets = positive_targets(ids, ids)
    return 0.5 * (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets))


def balanced_sigmoid(
    a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor, holds: torch.Tensor
) -> torch.Tensor:
    """Sigmoid loss of rows against captions, each caption and each side of it weighing the same.

    ``mean_c [ mean_{i holds c} softplus(−s_ic) + mean_{i lacks c} softplus(s_ic) ]`` with ``s = scale · a bᵀ + bias``: the
    pairwise loss of SigLIP, balanced so that a frequent caption does not rule a rare one. A row may hold several captions.

    Parameters
    ----------
    a
        Unit embeddings of rows, shape (n, u).
    b
        Unit embeddings of distinct captions, shape (c, u).
    scale, bias
        Of the logits.
    holds
        Which caption is true of which row, bool, shape (n, c).
    """
    logits = scale * a @ b.T + bias
    true, false = holds.float(), (~holds).float()
    positive = (functional.softplus(-logits) * true).sum(dim=0) / true.sum(dim=0).clamp_min(1)
    negative = (functional.softplus(logits) * false).sum(dim=0) / false.sum(dim=0).clamp_min(1)
    return (positive + negative).mean()


def masked_mean(losses: Mapping[str, torch.Tensor], weights: Mapping[str, float]) -> torch.Tensor:
    """Weighted mean over the modality pairs that a batch holds, whatever their row counts.

    Raises
    ------
    ValueError
        If no pair is there or all weights are zero.
    """
    total = sum(weights[pair] for pair in losses)
    if not losses or total <= 0:
        raise ValueError("No modality pair with a positive weight in this batch.")
    return sum(weights[pair] * loss for pair, loss in losses.items()) / total
