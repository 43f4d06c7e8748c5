"""The network of the set transformer over counts. Imports torch: import it inside functions."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

_TARGET = 1e4


def log_normalise(counts: torch.Tensor) -> torch.Tensor:
    """log1p of counts scaled to 10,000 per row; shape as given."""
    return torch.log1p(counts * (_TARGET / counts.sum(dim=1, keepdim=True).clamp_min(1)))


class SetNetwork(nn.Module):
    """Counts (n, g) to an embedding (n, d), through the set of each row's expressed genes.

    Parameters
    ----------
    n_genes, n_latent, n_hidden, n_heads, n_inducing, n_blocks
        Sizes.
    max_genes
        Largest set; of more expressed genes the highest count, ties by ``priority``.
    """

    priority: torch.Tensor

    def __init__(
        self,
        n_genes: int,
        n_latent: int,
        *,
        n_hidden: int,
        n_heads: int,
        n_inducing: int,
        n_blocks: int,
        max_genes: int,
    ) -> None:
        super().__init__()
        self.max_genes = min(max_genes, n_genes)
        self.gene = nn.Embedding(n_genes, n_hidden)
        self.value = nn.Sequential(nn.Linear(1, n_hidden), nn.GELU(), nn.Linear(n_hidden, 2 * n_hidden))
        self.empty = nn.Parameter(torch.zeros(1, 1, n_hidden))
        self.blocks = nn.ModuleList(_Induced(n_hidden, n_heads, n_inducing) for _ in range(n_blocks))
        self.seed = nn.Parameter(torch.randn(1, 1, n_hidden) / n_hidden**0.5)
        self.pool = _Attend(n_hidden, n_heads)
        self.out = nn.Linear(2 * n_hidden, n_latent)
        self.register_buffer("priority", torch.arange(n_genes))

    def forward(self, counts: torch.Tensor, hidden: torch.Tensor | None = None) -> torch.Tensor:
        """Embed counts; ``hidden`` (n, g) marks genes that are left out of the set after normalisation."""
        x = log_normalise(counts)
        if hidden is not None:
            counts, x = counts.masked_fill(hidden, 0), x.masked_fill(hidden, 0)
        # equal counts are the rule: ties are broken by a property of the gene, so that the order of columns does not matter
        score = counts.long() * counts.shape[1] + self.priority
        genes = score.topk(self.max_genes, dim=1, sorted=False).indices
        return self.embed_set(genes, x.gather(1, genes))

    def embed_set(self, genes: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Embed sets of genes (n, k) with their values (n, k), 0 for an unused place; shape (n, d)."""
        scale, shift = self.value(values[..., None]).chunk(2, dim=-1)
        tokens = self.gene(genes) * (1 + scale) + shift
        there = values > 0
        # a token that is always there, so that no set is empty
        tokens = torch.cat([self.empty.expand(len(tokens), -1, -1), tokens], dim=1)
        there = torch.cat([there.new_ones(len(there), 1), there], dim=1)
        for block in self.blocks:
            tokens = block(tokens, there)
        pooled = self.pool(self.seed.expand(len(tokens), -1, -1), tokens, there)[:, 0]
        weight = there[..., None].to(tokens.dtype)
        mean = (tokens * weight).sum(dim=1) / weight.sum(dim=1)
        return self.out(torch.cat([pooled, mean], dim=1))


class _Attend(nn.Module):
    """Multi-head attention with a residual and a feed-forward step: MAB of Lee et al., ICML 2019."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.pair = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.join = nn.Linear(width, width)
        self.forth = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, query: torch.Tensor, to: torch.Tensor, there: torch.Tensor | None = None) -> torch.Tensor:
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.pair(to).chunk(2, dim=-1)
        mask = None if there is None else there[:, None, None, :]
        seen = scaled_dot_product_attention(split(self.query(query)), split(key), split(value), attn_mask=mask)
        out = self.norm_1(query + self.join(seen.transpose(1, 2).flatten(-2)))
        return self.norm_2(out + self.forth(out))


class _Induced(nn.Module):
    """Self-attention through a few learnt points, linear in the size of the set: ISAB of Lee et al., ICML 2019."""

    def __init__(self, width: int, heads: int, points: int) -> None:
        super().__init__()
        self.points = nn.Parameter(torch.randn(1, points, width) / width**0.5)
        self.gather, self.scatter = _Attend(width, heads), _Attend(width, heads)

    def forward(self, tokens: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        summary = self.gather(self.points.expand(len(tokens), -1, -1), tokens, there)
        return self.scatter(tokens, summary)
