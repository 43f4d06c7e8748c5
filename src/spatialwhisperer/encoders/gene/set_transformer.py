"""A set transformer over the expressed genes of a row."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import scipy.sparse as sp

from spatialwhisperer._docs import shared
from spatialwhisperer._messages import progress
from spatialwhisperer._random import isolated_rng
from spatialwhisperer._storage.sketches import without_memory
from spatialwhisperer.encoders.gene._networks.rows import network_rows
from spatialwhisperer.encoders.gene.base import GeneEncoder, take_tensors, whole_number
from spatialwhisperer.encoders.registry import register_encoder
from spatialwhisperer.encoders.spec import EncoderSpec
from spatialwhisperer.statistics.counts import training_counts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

_BATCH, _STEPS, _RATE, _HIDDEN_FRACTION = (16, 128), 10, 2e-3, 0.5
_ROWS_TO_SEE, _EPOCHS = 40_000, (5, 100)


@register_encoder(
    EncoderSpec("set_transformer", "gene", None, licence="BSD-3-Clause (no weights)", commercial=True),
)
class SetTransformerEncoder(GeneEncoder):
    r"""Latent of a set transformer (Lee et al., ICML 2019) over the expressed genes of a row.

    A row is the set of its expressed genes, at most ``max_genes`` of them, the highest counts first. Gene :math:`g` with
    :math:`y = \log(1 + \mathrm{CP10k})` over the encoder's own genes becomes the token :math:`e_g (1 + a(y)) + b(y)` with a learnt
    vector :math:`e_g` and a small network :math:`(a, b)`. Two blocks of attention through learnt points, attention pooling beside
    the mean, and a linear map give the latent. The order of the genes plays no part.

    It is fitted without labels: half of a row's genes are hidden, and a linear decoder predicts :math:`y` of all genes from the
    latent of the rest, each gene weighted by its inverse variance. With several batches the decoder has an offset for each batch; the
    encoder does not use the batch.

    Genes that were not measured count as zero.
    """

    keeps_fits: ClassVar[bool] = True

    def __init__(
        self,
        genes: Sequence[str],
        gene_ids: Sequence[str] | None = None,
        *,
        weights: Mapping[str, np.ndarray],
        n_latent: int,
        n_hidden: int,
        n_heads: int,
        n_inducing: int,
        n_blocks: int,
        max_genes: int,
        fitted: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(genes, gene_ids, fitted)
        self.n_latent = n_latent
        self.sizes = {
            "n_hidden": n_hidden,
            "n_heads": n_heads,
            "n_inducing": n_inducing,
            "n_blocks": n_blocks,
            "max_genes": max_genes,
        }
        _check(n_latent, self.sizes)
        with without_memory():
            shapes = {name: tuple(value.shape) for name, value in self._network(None).state_dict().items()}
        self._weights = take_tensors(weights, shapes, type(self).__name__)

    @classmethod
    @shared
    def fit(
        cls,
        counts: Any,
        genes: Sequence[str],
        gene_ids: Sequence[str] | None = None,
        *,
        batch: np.ndarray | None = None,
        n_latent: int = 32,
        n_hidden: int = 32,
        n_heads: int = 4,
        n_inducing: int = 8,
        n_blocks: int = 2,
        max_genes: int = 128,
        n_top_genes: int | None = 2000,
        max_epochs: int | None = None,
        device: str | None = None,
        random_state: int = 0,
    ) -> SetTransformerEncoder:
        """Select genes and train on all rows that have counts in these genes.

        Parameters
        ----------
        %(training_counts)s
        n_latent
            Columns of the embedding.
        n_hidden
            Width of a token, a multiple of ``n_heads``.
        n_heads
            Attention heads.
        n_inducing
            Learnt points of a block.
        n_blocks
            Blocks.
        max_genes
            Largest set. Equal counts at its edge are settled for the gene with the higher mean in the training rows.
        %(n_top_genes)s
        max_epochs
            Passes over the rows; ``None`` takes as many as show about 40,000 rows, from 5 to 100.
        %(device)s
        random_state
            Seed of initial weights, hidden genes and minibatches.

        Raises
        ------
        ValueError
            If values are not counts, rows are too few, or a size is impossible.
        """
        import torch

        from spatialwhisperer._settings import settings
        from spatialwhisperer.encoders.gene._networks.set_network import SetNetwork

        sizes = {
            "n_hidden": n_hidden,
            "n_heads": n_heads,
            "n_inducing": n_inducing,
            "n_blocks": n_blocks,
            "max_genes": max_genes,
        }
        _check(n_latent, sizes)
        if max_epochs is not None and max_epochs < 1:
            raise ValueError(f"max_epochs must be a positive integer, not {max_epochs!r}.")
        matrix, chosen, rows = training_counts(counts, len(genes), n_top_genes, batch)
        codes = (
            np.zeros(matrix.shape[0], np.int64)
            if batch is None
            else np.unique(np.asarray(batch)[rows], return_inverse=True)[1]
        )
        epochs = int(np.clip(round(_ROWS_TO_SEE / len(codes)), *_EPOCHS)) if max_epochs is None else max_epochs
        device = settings.resolve_device(device)
        with isolated_rng(random_state):
            network = SetNetwork(len(chosen), n_latent, **sizes)
            mean = np.asarray(matrix.mean(axis=0)).ravel()
            order = np.argsort(np.argsort(mean, kind="stable"), kind="stable")
            network.priority.copy_(torch.from_numpy(order))
            loss = _train(network.to(device), matrix, codes, epochs, device, random_state)
        return cls(
            [genes[i] for i in chosen],
            None if gene_ids is None else [gene_ids[i] for i in chosen],
            weights={name: value.cpu().numpy() for name, value in network.state_dict().items()},
            n_latent=n_latent,
            **sizes,
            fitted={
                "rows": matrix.shape[0],
                "batches": int(codes.max()) + 1,
                "epochs": epochs,
                "unexplained_variance": round(loss, 6),
                "random_state": random_state,
            },
        )

    @property
    def dim(self) -> int:
        """Columns of the embedding."""
        return self.n_latent

    def tensors(self) -> dict[str, np.ndarray]:
        """Weights of the network without the decoder, by name."""
        return dict(self._weights)

    def module(self) -> torch.nn.Module:
        """Return the encoder as a torch module with its own copy of the weights: raw counts (n, len(genes)) in, latent out.

        It normalises itself, and gradients reach every weight. It has no dropout and no batch statistics, so training and
        evaluation mode give the same values.
        """
        import torch

        network = self._network("cpu")
        state = {name: torch.from_numpy(value.copy()) for name, value in self._weights.items()}
        network.load_state_dict(state | {"priority": state["priority"].long()})
        return network

    def _network(self, device: str | None) -> torch.nn.Module:
        import torch

        from spatialwhisperer.encoders.gene._networks.set_network import SetNetwork

        # the initial values are thrown away, so they must not cost the process its random state
        with isolated_rng(0), nullcontext() if device is None else torch.device(device):
            return SetNetwork(len(self.genes), self.n_latent, **self.sizes)

    def options(self) -> dict[str, Any]:
        """Further arguments of the constructor."""
        return dict(self.sizes)

    @classmethod
    def from_parts(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> SetTransformerEncoder:
        """Build the encoder of a stored configuration and its tensors."""
        sizes = {name: whole_number(config, name) for name in ("n_hidden", "n_heads", "n_inducing", "max_genes")}
        # a block has tensors of its own
        sizes["n_blocks"] = whole_number(config, "n_blocks", most=len(tensors))
        return cls(
            config["genes"],
            config["gene_ids"],
            weights=tensors,
            n_latent=whole_number(config, "dim"),
            fitted=config.get("fitted"),
            **sizes,
        )

    def encode_counts(
        self, counts: sp.csr_matrix, present: np.ndarray | None, batch_size: int, device: str | None
    ) -> np.ndarray:
        """Embed checked counts."""
        return network_rows(self.module(), counts, present, dim=self.dim, batch_size=batch_size, device=device)


def _train(
    network: Any, counts: sp.csr_matrix, codes: np.ndarray, epochs: int, device: str, random_state: int
) -> float:
    """Train network and decoder together; return the unexplained fraction of variance in the last epoch."""
    import torch

    from spatialwhisperer.encoders.gene._networks.set_network import log_normalise

    mean, weight = _moments(counts, codes)
    decoder = torch.nn.Linear(network.out.out_features, counts.shape[1], bias=False).to(device)
    offset = torch.nn.Parameter(torch.from_numpy(mean).to(device))
    scale = torch.from_numpy(weight).to(device)
    parameters = [*network.parameters(), *decoder.parameters(), offset]
    # few rows still need many steps
    size = int(np.clip(len(codes) // _STEPS, *_BATCH))
    steps = epochs * -(-len(codes) // size)
    optimizer = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=_RATE, total_steps=steps)
    rng = np.random.default_rng(random_state)
    # drawn on the CPU, so that every device hides the same genes
    generator = torch.Generator().manual_seed(random_state)
    last = 0.0
    network.train()
    for _ in progress(range(epochs), desc="set transformer", unit="epoch"):
        order, last = rng.permutation(len(codes)), 0.0
        for start in range(0, len(order), size):
            take = order[start : start + size]
            dense = torch.from_numpy(counts[take].toarray()).to(device)
            hidden = (torch.rand(dense.shape, generator=generator) < _HIDDEN_FRACTION).to(device)
            predicted = decoder(network(dense, hidden)) + offset[torch.from_numpy(codes[take]).to(device)]
            loss = ((predicted - log_normalise(dense)).square() * scale).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            last += float(loss.detach()) * len(take) / len(order)
    return last


def _moments(counts: sp.csr_matrix, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of each gene in each batch, (batches, g), and the inverse of its variance within batches, (g,)."""
    total = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    logged = sp.csr_matrix(sp.diags_array(1e4 / total) @ counts.astype(np.float64))
    logged.data = np.log1p(logged.data)
    member = sp.csr_matrix((np.ones(len(codes)), (codes, np.arange(len(codes)))))
    size = np.asarray(member.sum(axis=1)).ravel()
    mean = (member @ logged).toarray() / size[:, None]
    square = np.asarray(logged.multiply(logged).mean(axis=0)).ravel()
    variance = square - (size[:, None] * mean**2).sum(axis=0) / len(codes)
    # a gene that hardly varies must not dominate
    floor = max(0.05 * float(np.median(variance)), 1e-6)
    return mean.astype(np.float32), (1 / np.maximum(variance, floor)).astype(np.float32)


def _check(n_latent: int, sizes: Mapping[str, int]) -> None:
    for name, value in {"n_latent": n_latent, **sizes}.items():
        if value < 1:
            raise ValueError(f"{name} must be a positive integer, not {value!r}.")
    if sizes["n_hidden"] % sizes["n_heads"]:
        raise ValueError(f"n_hidden={sizes['n_hidden']} is not a multiple of n_heads={sizes['n_heads']}.")
