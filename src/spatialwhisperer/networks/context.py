"""Context modules: layers between features and head that combine a row with other rows of its section or batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spatialwhisperer.retrieval.neighbours import Neighbourhood

TABLE_SIZE = 256
"""Positions that `BatchPeer` has a vector for along each axis, unless told otherwise."""

_POSITION_HIDDEN = 16
_FLOATS_PER_BATCH = 2**25


# ---------------------------------------------------------------------------------------------------- the modules


class ContextModule(nn.Module):
    """What every context module states about itself.

    Attributes
    ----------
    needs
        What it reads in addition to the features: "positions" or "neighbours".
    out_dim
        Width of its output.
    n_neighbours
        Number of neighbours, where it needs them.
    """

    needs: ClassVar[str]
    out_dim: int
    n_neighbours: int = 0


class BatchPeer(ContextModule):
    """Self-attention over the rows of a batch, with learned tables of positions (mclSTExp, arXiv 2407.08216).

    ``h = x + Ex[px] + Ey[py]``, followed by pre-norm Transformer blocks over all n rows as one sequence, without mask and without
    final norm. The result of a row depends on the other rows of the batch; that of :class:`SectionKNN` does not.

    A position that was never seen in training adds nothing, and neither does a position outside the tables. (Adam with L2
    regularisation, as published, shrinks such rows of the tables to zero, while AdamW would leave them at their random start.)

    Parameters
    ----------
    dim
        Width of the features.
    heads, head_dim
        Attention heads and the width of each.
    depth
        Number of blocks.
    table_size
        Number of positions per axis; 65,536 in the published code.
    dropout
        Dropout after attention and in the perceptron.
    """

    needs = "positions"
    seen_x: torch.Tensor
    seen_y: torch.Tensor

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 8,
        head_dim: int = 64,
        depth: int = 2,
        table_size: int = TABLE_SIZE,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.out_dim, self.table_size = dim, table_size
        self.table_x, self.table_y = nn.Embedding(table_size, dim), nn.Embedding(table_size, dim)
        self.seen_x = nn.Buffer(torch.zeros(table_size, dtype=torch.bool))
        self.seen_y = nn.Buffer(torch.zeros(table_size, dtype=torch.bool))
        self.blocks = nn.ModuleList(_Block(dim, heads, head_dim, dim, dropout) for _ in range(depth))

    def forward(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Combine rows of shape (n, dim) at whole-numbered positions (n, 2).

        Raises
        ------
        TypeError
            If positions are not whole numbers.
        """
        h = (
            x
            + self._at(self.table_x, self.seen_x, positions[:, 0])
            + self._at(self.table_y, self.seen_y, positions[:, 1])
        )
        h = h[None]
        for block in self.blocks:
            h = block(h, h)
        return h[0]

    def _at(self, table: nn.Embedding, seen: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        if position.is_floating_point():
            raise TypeError(
                "Positions in a table must be whole numbers, such as the row and column of a spot on its array, not "
                f"{position.dtype}. Convert them with .round().long()."
            )
        counts = (position >= 0) & (position < self.table_size)
        row = torch.where(counts, position, 0)
        if self.training:
            seen[row[counts]] = True
        return table(row) * (counts & seen[row])[:, None]


class SectionKNN(ContextModule):
    """Attention of each row over itself and its neighbours in the section.

    The row is the query. The position of a neighbour enters as a bias of each head and as a vector that is added to the features of
    the neighbour; both are learned functions of (dx, dy, distance) in units of the spacing of the section. The result depends only on
    the row and its neighbours, in any order. The last layer of each branch starts at zero, so that an untrained module returns the
    features unchanged.

    Parameters
    ----------
    dim
        Width of the features.
    heads, head_dim
        Attention heads and the width of each.
    depth
        Number of blocks; each of them attends to the features of the neighbours.
    n_neighbours
        Number of neighbours to find with :func:`~spatialwhisperer.retrieval.neighbours.section_neighbours`.
    dropout
        Dropout after attention and in the perceptron.
    """

    needs = "neighbours"

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        head_dim: int = 32,
        depth: int = 1,
        n_neighbours: int = 8,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.out_dim, self.n_neighbours = dim, n_neighbours
        # no constant terms: a constant bias does not change the attention, and the row itself is at the origin
        self.place = nn.Linear(3, dim, bias=False)
        self.biases = nn.ModuleList(
            nn.Sequential(nn.Linear(3, _POSITION_HIDDEN), nn.GELU(), nn.Linear(_POSITION_HIDDEN, heads, bias=False))
            for _ in range(depth)
        )
        blocks = [_Block(dim, heads, head_dim, 2 * heads * head_dim, dropout) for _ in range(depth)]
        for block in blocks:
            block.start_as_identity()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: torch.Tensor, offsets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Combine tokens (n, 1 + k, dim) at offsets (n, 1 + k, 2) into (n, dim); tokens where the mask (n, 1 + k) is false are ignored.

        Token 0 is the row itself and is never ignored.
        """
        mask = mask | _first(mask)
        # zero times NaN is NaN, so ignored tokens must be finite
        x = torch.where(mask[..., None], x, 0)
        where = torch.where(mask[..., None], offsets, 0).to(x.dtype)
        where = torch.cat([where, where.norm(dim=-1, keepdim=True)], dim=-1)
        h, others = x[:, :1], x[:, 1:] + self.place(where[:, 1:])
        for block, bias in zip(self.blocks, self.biases, strict=True):
            attn = bias(where).permute(0, 2, 1)[:, :, None].masked_fill(~mask[:, None, None], -torch.inf)
            h = block(h, torch.cat([h, others], dim=1), attn)
        return h[:, 0]


class NeighbourMean(ContextModule):
    """Features of a row, concatenated with the weighted mean of the features of its neighbours; without parameters.

    A neighbour at distance r, in units of the spacing of the section, has the weight ``exp(-r² / (2 bandwidth²))``. A row without
    neighbours gets its own features twice.

    Parameters
    ----------
    dim
        Width of the features.
    n_neighbours
        Number of neighbours to find with :func:`~spatialwhisperer.retrieval.neighbours.section_neighbours`.
    bandwidth
        Standard deviation of the Gaussian weights.

    Raises
    ------
    ValueError
        If the bandwidth is not positive.
    """

    needs = "neighbours"

    def __init__(self, dim: int, *, n_neighbours: int = 8, bandwidth: float = 1.0) -> None:
        super().__init__()
        if not bandwidth > 0:
            raise ValueError(f"bandwidth must be positive, not {bandwidth!r}.")
        self.out_dim, self.n_neighbours, self.bandwidth = 2 * dim, n_neighbours, bandwidth

    def forward(self, x: torch.Tensor, offsets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Combine tokens (n, 1 + k, dim) at offsets (n, 1 + k, 2) into (n, 2 dim); tokens where the mask (n, 1 + k) is false are ignored."""
        mask = mask & ~_first(mask)
        mask = mask | (_first(mask) & ~mask.any(dim=1, keepdim=True))
        logits = -offsets.to(x.dtype).square().sum(dim=-1) / (2 * self.bandwidth**2)
        weights = logits.masked_fill(~mask, -torch.inf).softmax(dim=1)
        mean = (weights[..., None] * torch.where(mask[..., None], x, 0)).sum(dim=1)
        return torch.cat([x[:, 0], mean], dim=1)


class _Block(nn.Module):
    """Pre-norm Transformer block: attention of queries to tokens, then a perceptron, each with a residual connection."""

    def __init__(self, dim: int, heads: int, head_dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, heads * head_dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * heads * head_dim, bias=False)
        self.out = nn.Sequential(nn.Linear(heads * head_dim, dim), nn.Dropout(dropout))
        self.perceptron = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, dim),
            nn.Dropout(dropout),
        )

    def start_as_identity(self) -> None:
        """Set the last layer of both branches to zero, so that the block returns its input."""
        for layer in (self.out[0], self.perceptron[4]):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, h: torch.Tensor, tokens: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Let (b, q, dim) attend to (b, t, dim); the bias, (b, heads, q, t), is added to the logits."""
        query = self.query(self.norm(h)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key_value = self.key_value(self.norm(tokens)).unflatten(-1, (2 * self.heads, -1)).transpose(1, 2)
        key, value = key_value.chunk(2, dim=1)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        h = h + self.out(mixed.transpose(1, 2).flatten(2))
        return h + self.perceptron(h)


def _first(mask: torch.Tensor) -> torch.Tensor:
    """True for token 0, shape (1, 1 + k)."""
    return (torch.arange(mask.shape[1], device=mask.device) == 0)[None]


CONTEXTS: dict[str, type[ContextModule]] = {
    "batch_peer": BatchPeer,
    "section_knn": SectionKNN,
    "section_mean": NeighbourMean,
}


def make_context(kind: str, dim: int, **options: Any) -> ContextModule:
    """Build a context module by name.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    if kind not in CONTEXTS:
        raise ValueError(f"Unknown context {kind!r}; choose one of {', '.join(CONTEXTS)}.")
    return CONTEXTS[kind](dim, **options)


# -------------------------------------------------------------------------------------------------- from a table


def gather_neighbours(
    features: torch.Tensor, index: torch.Tensor, complete: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of rows and their neighbours, for a module that needs neighbours.

    Parameters
    ----------
    features
        All rows, shape (n, d).
    index
        Some rows of :attr:`~spatialwhisperer.retrieval.neighbours.Neighbourhood.index`, shape (b, 1 + k).
    complete
        Which rows may be a neighbour, Boolean, shape (n,); ``None`` takes those without NaN.

    Returns
    -------
    Tokens (b, 1 + k, d), and the mask (b, 1 + k), false for tokens to ignore.
    """
    if complete is None:
        complete = torch.isfinite(features).all(dim=1)
    row = index.clamp_min(0)
    return features[row], (index >= 0) & complete[row]


@torch.no_grad()
def apply_context(
    context: ContextModule,
    features: torch.Tensor,
    *,
    neighbourhood: Neighbourhood | None = None,
    positions: torch.Tensor | None = None,
    chunk: int | None = None,
    batch_size: int = 4096,
) -> torch.Tensor:
    """Apply a context module to all rows, for inference.

    Parameters
    ----------
    context
        The module.
    features
        All rows, shape (n, d). A row with NaN is not a neighbour of other rows.
    neighbourhood
        Neighbours of all rows, for "section_knn" and "section_mean".
    positions
        Whole-numbered positions of all rows, shape (n, 2), for "batch_peer".
    chunk
        For "batch_peer": number of consecutive rows that are combined with each other (32 in the published code); ``None`` takes all.
        The result depends on it.
    batch_size
        For modules that need neighbours: largest number of rows in one pass. The result does not depend on it.

    Returns
    -------
    Shape (n, ``context.out_dim``), on the device of the features.

    Raises
    ------
    ValueError
        If the neighbourhood or the positions are missing or have another number of rows, or a size is not positive.
    """
    n = len(features)
    name, given = ("positions", positions) if context.needs == "positions" else ("neighbourhood", neighbourhood)
    if given is None or len(given) != n:
        got = "none was given" if given is None else f"it has {len(given)}"
        raise ValueError(f"{type(context).__name__} needs {name}=… of the {n} rows; {got}.")
    for label, size in (("chunk", chunk), ("batch_size", batch_size)):
        if size is not None and size < 1:
            raise ValueError(f"{label} must be a positive whole number, not {size!r}.")
    device = next((p.device for p in context.parameters()), features.device)
    training = context.training
    context.eval()
    try:
        if context.needs == "positions":
            pieces = _chunks(context, features, positions, chunk or max(n, 1), device)
        else:
            pieces = _batches(context, features, neighbourhood, batch_size, device)
        done = [piece.to(features.device) for piece in pieces]
    finally:
        context.train(training)
    return torch.cat(done) if done else features.new_empty((0, context.out_dim))


def _chunks(
    context: ContextModule, features: torch.Tensor, positions: Any, chunk: int, device: torch.device
) -> Iterator[torch.Tensor]:
    positions = torch.as_tensor(positions)
    for rows, at in zip(features.split(chunk), positions.split(chunk), strict=True):
        if len(rows):
            yield context(rows.to(device), at.to(device))


def _batches(
    context: ContextModule, features: torch.Tensor, neighbourhood: Any, batch_size: int, device: torch.device
) -> Iterator[torch.Tensor]:
    complete = torch.isfinite(features).all(dim=1)
    index = torch.as_tensor(neighbourhood.index, device=features.device)
    offsets = torch.as_tensor(neighbourhood.offsets, dtype=features.dtype)
    # wide features with many neighbours would not fit in memory at once
    size = max(1, min(batch_size, _FLOATS_PER_BATCH // max(1, index.shape[1] * features.shape[1])))
    for start in range(0, len(index), size):
        rows = slice(start, start + size)
        tokens, mask = gather_neighbours(features, index[rows], complete)
        yield context(tokens.to(device), offsets[rows].to(device), mask.to(device))
