"""The network of Geneformer up to its second-to-last layer, and the mean over the genes of a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from spatialwhisperer._messages import require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spatialwhisperer.encoders.gene._geneformer.architecture import Architecture


class GeneformerNetwork(nn.Module):
    """BERT over the gene tokens of a row, and the mean over those that are no padding (Theodoris et al., Nature 2023).

    Parameters
    ----------
    sizes
        The architecture.
    """

    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        transformers = require("transformers", extra="text")
        config = transformers.BertConfig(
            vocab_size=sizes.vocab_size,
            hidden_size=sizes.hidden_size,
            num_hidden_layers=sizes.n_layers,
            num_attention_heads=sizes.n_heads,
            intermediate_size=sizes.intermediate_size,
            max_position_embeddings=sizes.max_positions,
            hidden_act=sizes.hidden_act,
            layer_norm_eps=sizes.layer_norm_eps,
            hidden_dropout_prob=sizes.dropout,
            attention_probs_dropout_prob=sizes.dropout,
            pad_token_id=0,
        )
        self.bert = transformers.BertModel(config, add_pooling_layer=False)

    def forward(self, tokens: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Embed rows from their tokens and attention mask, both (n, length); float (n, hidden_size)."""
        mask = tokens["attention_mask"]
        hidden: Any = self.bert(input_ids=tokens["input_ids"], attention_mask=mask).last_hidden_state
        weight = mask[..., None].to(hidden.dtype)
        # a row without genes has length 0, which counts as 1
        return (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


def padded(tokens: list[Any]) -> dict[str, torch.Tensor]:
    """Token ids of rows of different length, filled up with zeros, and their attention mask; int64 (n, longest)."""
    longest = max([1, *map(len, tokens)])
    ids = torch.zeros((len(tokens), longest), dtype=torch.int64)
    mask = torch.zeros((len(tokens), longest), dtype=torch.int64)
    for i, row in enumerate(tokens):
        ids[i, : len(row)] = torch.as_tensor(row, dtype=torch.int64)
        mask[i, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}
