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


HEADS: dict[str, type[nn.Module]] = {"bn_shortcut": BatchNormShortcut, "linear": Linear, "linear_norm": LinearNorm}


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
