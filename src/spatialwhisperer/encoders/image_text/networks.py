"""The towers of models of images and texts, each as a module of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class ClipImage(nn.Module):
    """Image tower of a model of open_clip."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.visual = network.visual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of normalised tiles (n, 3, p, p) in the space that images and texts share."""
        out = self.visual(x)
        # CoCa returns its other tokens too
        return out[0] if isinstance(out, tuple) else out


class ClipText(nn.Module):
    """Text tower of a model of open_clip, whose image tower is dropped."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        network.visual = None
        self.network = network

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Features of token ids (n, length)."""
        network: Any = self.network
        return network.encode_text(tokens, normalize=False)


class ProjectedText(nn.Module):
    """Text tower of a model of transformers: its pooled output and the projection."""

    def __init__(self, network: nn.Module, projection: nn.Module) -> None:
        super().__init__()
        self.network, self.projection = network, projection

    def forward(self, **tokens: torch.Tensor) -> torch.Tensor:
        """Features of token ids and their attention mask."""
        return self.projection(self.network(**tokens).pooler_output)


class PoolerText(nn.Module):
    """A BERT whose pooler output is the row of a text."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, **tokens: torch.Tensor) -> torch.Tensor:
        """Features of token ids and their attention mask."""
        return self.network(**tokens).pooler_output
