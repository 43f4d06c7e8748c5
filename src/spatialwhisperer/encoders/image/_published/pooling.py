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
        Shape (n, t, d): the class token, registers, then the patches. Maps (n, d, h, w), or (n, h, w, d), have a patch at each position.
    pooling
        "cls", "mean" (of the patches), or "cls+mean", which is twice as wide.
    n_prefix
        Tokens before the first patch: the class token and the registers.
    """
    if tokens.ndim == 4:
        # tiles are square, and so are their maps
        last = tokens.shape[1] == tokens.shape[2] != tokens.shape[3]
        tokens = tokens.flatten(1, 2) if last else tokens.flatten(2).transpose(1, 2)
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
        self.n_prefix = n_class_tokens(network) + _n_tokens(network, _REGISTERS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of normalised tiles (n, 3, p, p)."""
        network: Any = self.network
        out = network(pixel_values=x)
        if self.pooling == "pooler":
            return out.pooler_output.flatten(1)
        return pool(out.last_hidden_state, self.pooling, self.n_prefix)


def n_class_tokens(network: nn.Module) -> int:
    """Class tokens that a vision model of transformers puts before the patches."""
    return _n_tokens(network, _CLASS)


_CLASS = ("cls_token", "class_embedding")
_REGISTERS = ("register_tokens", "distillation_token", "cls_register_token")


def _n_tokens(network: nn.Module, names: tuple[str, ...]) -> int:
    # where tokens are embedded: a pooler may have a class token of its own
    found = {n.rpartition("."): v for n, v in network.named_parameters()}
    return sum(v.numel() // v.shape[-1] for (place, _, n), v in found.items() if n in names and "embed" in place)


def show_all_patches(network: nn.Module) -> None:
    """Let a masked autoencoder see all patches in their order; it would hide most at random in evaluation mode too."""
    embeddings = getattr(network, "embeddings", None)
    if hasattr(embeddings, "random_masking"):
        embeddings.random_masking = _nothing_masked  # type: ignore[union-attr]


def _nothing_masked(patches: torch.Tensor, _noise: Any = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    n, t = patches.shape[:2]
    return patches, patches.new_zeros(n, t), torch.arange(t, device=patches.device).expand(n, t)


class BlueFirst(nn.Module):
    """A network that was trained on B, G, R."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of normalised tiles (n, 3, p, p) of R, G, B."""
        return self.network(x.flip(1))


class Projected(nn.Module):
    """The image tower of a model of images and texts: its pooled output, and the projection into the space that both share."""

    def __init__(self, network: nn.Module, projection: nn.Module) -> None:
        super().__init__()
        self.network, self.projection = network, projection

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of normalised tiles (n, 3, p, p)."""
        return self.projection(self.network(pixel_values=x).pooler_output)
