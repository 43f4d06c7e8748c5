"""The regression head beside retrieval: expression decoded from the joint embedding, trained together with it."""

from __future__ import annotations

from torch import nn


def make_decoder(in_dim: int, *, out_dim: int, hidden: int = 256, dropout: float = 0.1) -> nn.Module:
    """A perceptron from the joint embedding (n, in_dim) to the values of genes (n, out_dim)."""
    return nn.Sequential(nn.Linear(in_dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, out_dim))
