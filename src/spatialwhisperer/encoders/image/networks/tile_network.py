"""A network over tiles as they are read from a slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from spatialwhisperer.encoders.spec import EncoderSpec


class TileNetwork(nn.Module):
    """A network over uint8 tiles: it scales, normalises and, where an edge is given, resizes them first.

    Parameters
    ----------
    network
        Takes normalised float tiles (n, 3, p, p), returns (n, d).
    spec
        Mean and standard deviation of R, G, B in [0, 1]; without them tiles are scaled to [0, 1] only.
    edge_px
        Edge that tiles are resized to; ``None`` takes them as they come.
    channels_last
        Lay normalised tiles out with their channels last.
    """

    def __init__(
        self, network: nn.Module, spec: EncoderSpec, edge_px: int | None = None, *, channels_last: bool = False
    ) -> None:
        super().__init__()
        self.network, self.edge_px = network, edge_px
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.normalise = (spec.mean, spec.std) if spec.mean is not None and spec.std is not None else None

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Features of uint8 tiles (n, 3, p, p); shape (n, d)."""
        return self.network(self.prepared(tiles))

    def prepared(self, tiles: torch.Tensor) -> torch.Tensor:
        """What the network gets for uint8 tiles (n, 3, p, p)."""
        edge = self.edge_px
        if edge is not None and tiles.shape[-1] != edge:
            size = (edge, edge)
            # whole numbers are resized on processors alone; elsewhere the result is rounded to them
            whole = tiles.device.type == "cpu"
            tiles = nn.functional.interpolate(
                tiles if whole else tiles.float(), size=size, mode="bilinear", align_corners=False, antialias=True
            )
            tiles = tiles if whole else tiles.round()
        x = tiles.float() / 255
        if self.normalise is not None:
            mean, std = (torch.tensor(v, dtype=x.dtype, device=x.device).view(1, 3, 1, 1) for v in self.normalise)
            x = (x - mean) / std
        # training in "64-true" or "bf16-true" converts the network, and the tiles are whole numbers
        kinds = (p.dtype for p in self.network.parameters() if p.is_floating_point())
        return x.to(next(kinds, x.dtype), memory_format=self.memory_format)
