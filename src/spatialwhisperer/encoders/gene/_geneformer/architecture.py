"""Sizes of a Geneformer network, as they are stored. Nothing heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spatialwhisperer._storage.schema import Stored


@dataclass(frozen=True)
class Architecture(Stored):
    """Sizes of a network.

    Attributes
    ----------
    vocab_size, hidden_size, n_heads, intermediate_size, max_positions
        As BERT has them.
    n_layers
        Layers that are computed: one less than the published network has, because the hidden state before the last layer is taken.
    hidden_act, layer_norm_eps, dropout
        Activation, constant of the layer norms, and dropout in training.
    """

    vocab_size: int
    hidden_size: int
    n_layers: int
    n_heads: int
    intermediate_size: int
    max_positions: int
    hidden_act: Literal["relu", "gelu"] = "relu"
    layer_norm_eps: float = 1e-12
    dropout: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("vocab_size", "hidden_size", "n_layers", "n_heads", "intermediate_size", "max_positions"):
            if not 0 < getattr(self, name) < 2**31:
                raise ValueError(f"{name} of a Geneformer must be a positive whole number, not {getattr(self, name)}.")
        if self.hidden_size % self.n_heads:
            raise ValueError(f"{self.hidden_size} hidden units cannot be divided among {self.n_heads} heads.")
