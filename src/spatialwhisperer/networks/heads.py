"""Projection heads: from the features of one encoder into the joint space. None of them knows of any paper."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class BatchNormShortcut(nn.Module):
    """Two-layer perceptron with batch norm beside a linear shortcut, then layer norm.

    ``LayerNorm(W2 ReLU(BN(W1 x)) + b2 + Ws x + bs)``, the shortcut starting near the identity
    (SpatialWhisperer, ICML 2026; the block goes back to CLIP-Lite).
    """

    def __init__(self, in_dim: int, out_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.nonlinear = nn.Sequential(
            nn.Linear(in_dim, out_dim, bias=False),
            nn.BatchNorm1d(out_dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(out_dim, out_dim),
        )
        self.shortcut = nn.Linear(in_dim, out_dim)
        self.norm = nn.LayerNorm(out_dim)
        nn.init.uniform_(self.shortcut.weight, -0.01, 0.01)
        with torch.no_grad():
            self.shortcut.weight.fill_diagonal_(1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project (n, in_dim) to (n, out_dim)."""
        return self.norm(self.nonlinear(x) + self.shortcut(x))


class LinearNorm(nn.Module):
    """Dropout, one linear layer, layer norm: the head for few pairs."""

    def __init__(self, in_dim: int, out_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(in_dim, out_dim)
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project (n, in_dim) to (n, out_dim)."""
        return self.norm(self.linear(self.dropout(x)))


class Linear(nn.Linear):
    """One linear layer; holds a closed-form ridge solution."""

    def __init__(self, in_dim: int, out_dim: int, dropout: float = 0.0) -> None:
        if dropout:
            raise ValueError("The head 'linear' has no dropout; use 'linear_norm'.")
        super().__init__(in_dim, out_dim)


class ResidualMLP(nn.Module):
    """Linear layer, a second one on its GELU beside it, then layer norm.

    ``LayerNorm(p + Dropout(W2 GELU(p) + b2))`` with ``p = W1 x + b1`` (BLEEP, NeurIPS 2023; HECLIP and mclSTExp).
    """

    def __init__(self, in_dim: int, out_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.projection = nn.Linear(in_dim, out_dim)
        self.residual = nn.Sequential(nn.GELU(), nn.Linear(out_dim, out_dim), nn.Dropout(dropout))
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project (n, in_dim) to (n, out_dim)."""
        p = self.projection(x)
        return self.norm(p + self.residual(p))


class NoHead(nn.Identity):
    """The features as they are: the joint space is the space of the encoder (genes of HECLIP-hvg)."""

    def __init__(self, in_dim: int, out_dim: int, dropout: float = 0.0) -> None:
        if in_dim != out_dim:
            raise ValueError(
                f"The head 'none' changes no dimension, but features have {in_dim} and the joint space {out_dim}; "
                f"set the projection to {in_dim} dimensions or choose another head."
            )
        if dropout:
            raise ValueError("The head 'none' has no dropout; use 'linear_norm'.")
        super().__init__()


HEADS: dict[str, type[nn.Module]] = {
    "bn_shortcut": BatchNormShortcut,
    "linear": Linear,
    "linear_norm": LinearNorm,
    "none": NoHead,
    "rmlp": ResidualMLP,
}


def make_head(kind: str, in_dim: int, out_dim: int, **options: Any) -> nn.Module:
    """Build a head by name.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    if kind not in HEADS:
        raise ValueError(f"Unknown head {kind!r}; choose one of {', '.join(HEADS)}.")
    return HEADS[kind](in_dim, out_dim, **options)


def make_decoder(in_dim: int, out_dim: int, *, hidden: int = 256, dropout: float = 0.1) -> nn.Module:
    """A perceptron from the joint embedding (n, in_dim) to the expression of genes (n, out_dim).

    The regression head beside retrieval, trained together with the joint space.
    """
    return nn.Sequential(nn.Linear(in_dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, out_dim))
