"""From the tokens of a network to one row for each tile."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def pool(tokens: torch.Tensor, pooling: str, n_prefix: int) -> torch.Tensor:
    """One row for each tile.

    Parameters
    ----------
    tokens
        Shape (n, t, d): the class token, registers, then the patches.
    pooling
        "cls", "mean" (of the patches), or "cls+mean", which is twice as wide.
    n_prefix
        Tokens before the first patch: the class token and the registers.
    """
    if pooling == "cls":
        return tokens[:, 0]
    patches = tokens[:, n_prefix:].mean(1)
    return patches if pooling == "mean" else torch.cat([tokens[:, 0], patches], dim=1)


class TimmTokens(nn.Module):
    """A vision transformer of timm whose tokens are pooled here."""

    def __init__(self, network: nn.Module, pooling: str) -> None:
        super().__init__()
        self.network, self.pooling = network, pooling

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of normalised tiles (n, 3, p, p)."""
        network: Any = self.network
        return pool(network.forward_features(x), self.pooling, network.num_prefix_tokens)


class TransformersTokens(nn.Module):
    """A vision model of transformers, whose tokens are pooled here, or that pools by itself."""

    def __init__(self, network: nn.Module, pooling: str) -> None:
        super().__init__()
        self.network, self.pooling = network, pooling

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of normalised tiles (n, 3, p, p)."""
        network: Any = self.network
        out = network(pixel_values=x)
        if self.pooling == "pooler":
            return out.pooler_output.flatten(1)
        n_registers = int(getattr(network.config, "num_register_tokens", 0) or 0)
        return pool(out.last_hidden_state, self.pooling, 1 + n_registers)


class Projected(nn.Module):
    """The image tower of a model of images and texts: its pooled output, and the projection into the space that both share."""

    def __init__(self, network: nn.Module, projection: nn.Module) -> None:
        super().__init__()
        self.network, self.projection = network, projection

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of normalised tiles (n, 3, p, p)."""
        return self.projection(self.network(pixel_values=x).pooler_output)
