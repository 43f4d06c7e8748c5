"""The two sides of a model of images and texts, each as a module of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class ClipImage(nn.Module):
    """Image side of a model of open_clip."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.visual = network.visual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of normalised tiles (n, 3, p, p) in the space that images and texts share."""
        out = self.visual(x)
        # CoCa returns its other tokens too
        return out[0] if isinstance(out, tuple) else out
