"""A transformer over token ids, pooled to one vector for each text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping


class TextNetwork(nn.Module):
    """A Hugging Face text model and its pooling.

    Parameters
    ----------
    network
        The transformer.
    pooling
        "mean" over the tokens, the first one ("cls"), or the model's own "pooler" output.
    normalize
        Divide each vector by its length.
    """

    def __init__(self, network: nn.Module, pooling: str, normalize: bool) -> None:
        super().__init__()
        self.network, self.pooling, self.normalize = network, pooling, normalize

    def forward(self, tokens: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Vectors of texts, from their token ids and attention mask; shape (n, d)."""
        out = self.network(**tokens)
        if self.pooling == "pooler":
            pooled = out.pooler_output
        elif self.pooling == "cls":
            pooled = out.last_hidden_state[:, 0]
        else:
            weight = tokens["attention_mask"][..., None].to(out.last_hidden_state.dtype)
            pooled = (out.last_hidden_state * weight).sum(1) / weight.sum(1)
        return nn.functional.normalize(pooled, dim=1) if self.normalize else pooled
