"""The encoder of scVI, fitted by scvi-tools and used without it."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from spatialwhisperer._docs import shared
from spatialwhisperer.encoders.gene._networks.rows import network_rows
from spatialwhisperer.encoders.gene._networks.scvi_training import train
from spatialwhisperer.encoders.gene.base import GeneEncoder, fraction, take_tensors, whole_number
from spatialwhisperer.encoders.registry import register_encoder
from spatialwhisperer.encoders.spec import EncoderSpec
from spatialwhisperer.statistics.counts import training_counts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import scipy.sparse as sp
    import torch

_EPS, _MOMENTUM = 1e-3, 0.01
_NORM = ("weight", "bias", "running_mean", "running_var")


@register_encoder(
    EncoderSpec(
        "scvi",
        "gene",
        None,
        licence="BSD-3-Clause (no weights)",
        commercial=True,
        url="https://docs.scvi-tools.org",
        citation="Lopez et al. 2018, Nat Methods 15:1053",
    ),
)
class SCVIEncoder(GeneEncoder):
    """Posterior mean of scVI's latent variables (Lopez et al., Nat Methods 2018).

    The model is fitted by scvi-tools with ``encode_covariates=False``: only the decoder knows the batch, so that the encoder can be
    applied to new sections. Of the model, the path from counts to the posterior mean is kept, a perceptron on log1p of the raw counts;
    its output equals ``get_latent_representation`` of scvi-tools.

    Genes that were not measured count as zero, as in scvi-tools for query data.
    """

    library = "scvi-tools"
    keeps_fits: ClassVar[bool] = True
    drvi: ClassVar[bool] = False
    norm_parts: ClassVar[tuple[str, ...]] = _NORM

    def __init__(
        self,
        genes: Sequence[str],
        gene_ids: Sequence[str] | None = None,
        *,
        weights: Mapping[str, np.ndarray],
        n_latent: int,
        n_hidden: int,
        n_layers: int,
        dropout_rate: float,
        fitted: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(genes, gene_ids, fitted)
        self.n_latent, self.n_hidden, self.n_layers, self.dropout_rate = n_latent, n_hidden, n_layers, dropout_rate
        self._weights = take_tensors(weights, self._shapes(), type(self).__name__)

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
        n_hidden: int = 128,
        n_layers: int = 1,
        dropout_rate: float = 0.1,
        gene_likelihood: Literal["nb", "zinb"] = "nb",
        n_top_genes: int | None = 2000,
        max_epochs: int | None = None,
        device: str | None = None,
        random_state: int = 0,
    ) -> SCVIEncoder:
        """Select genes and train scVI on all rows that have counts in these genes.

        Parameters
        ----------
        %(training_counts)s
        n_latent
            Latent variables.
        n_hidden
            Units of a hidden layer.
        n_layers
            Hidden layers.
        dropout_rate
            Dropout while training.
        gene_likelihood
            Distribution of the counts: "nb" (negative binomial) or "zinb" (the same, with an excess of zeros).
        %(n_top_genes)s
        max_epochs
            Passes over the rows; ``None`` takes scvi-tools' own rule.
        %(device)s
        random_state
            Seed of initial weights and minibatches.

        Raises
        ------
        ValueError
            If values are not counts, rows are too few, or the likelihood is unknown.
        """
        matrix, chosen, rows = training_counts(counts, len(genes), n_top_genes, batch)
        batch = None if batch is None else np.asarray(batch)[rows]
        model, epochs = train(
            matrix,
            batch,
            None,
            cls._parameters(n_latent, n_hidden, n_layers, dropout_rate, gene_likelihood),
            max_epochs,
            device,
            random_state,
            drvi=cls.drvi,
        )
        return cls._of(model, genes, gene_ids, chosen, how_fitted(matrix, batch, epochs, random_state))

    @classmethod
    def _parameters(
        cls, n_latent: int, n_hidden: int, n_layers: int, dropout_rate: float, likelihood: str
    ) -> dict[str, Any]:
        """Arguments of scvi-tools; a likelihood that the model does not have is refused."""
        if likelihood not in ("nb", "zinb"):
            raise ValueError(f"gene_likelihood must be 'nb' or 'zinb', not {likelihood!r}.")
        if cls.drvi and likelihood != "nb":
            raise ValueError(f"DRVI has no likelihood {likelihood!r}. Leave it out, or take encoder='scvi'.")
        sizes = {"n_latent": n_latent, "n_hidden": n_hidden, "n_layers": n_layers, "dropout_rate": dropout_rate}
        # that of DRVI is the negative binomial too, with its mean in log space
        return {**sizes, "gene_likelihood": "pnb" if cls.drvi else likelihood}

    @classmethod
    def _of(
        cls,
        model: Any,
        genes: Sequence[str],
        gene_ids: Sequence[str] | None,
        chosen: np.ndarray,
        fitted: Mapping[str, Any],
    ) -> Any:
        """Keep the encoder of a trained scvi-tools model."""
        module = model.module
        state = {k: v.detach().cpu().numpy() for k, v in module.z_encoder.state_dict().items()}
        linears = [layer[0] for layer in module.z_encoder.encoder.fc_layers]
        drops = [part.p for layer in module.z_encoder.encoder.fc_layers for part in layer if hasattr(part, "p")]
        weights = {f"mean.{part}": state[f"mean_encoder.{part}"] for part in ("weight", "bias")}
        for i in range(len(linears)):
            layer = f"encoder.fc_layers.Layer {i}."
            weights |= {f"linear_{i}.{part}": state[f"{layer}0.{part}"] for part in ("weight", "bias")}
            weights |= {f"norm_{i}.{part}": state[f"{layer}1.{part}"] for part in cls.norm_parts}
        return cls(
            [genes[i] for i in chosen],
            None if gene_ids is None else [gene_ids[i] for i in chosen],
            weights=weights,
            n_latent=int(module.n_latent),
            n_hidden=int(linears[0].out_features),
            n_layers=len(linears),
            dropout_rate=float(drops[0]) if drops else 0.0,
            fitted=fitted,
        )

    @property
    def dim(self) -> int:
        """Columns of the embedding."""
        return self.n_latent

    def tensors(self) -> dict[str, np.ndarray]:
        """Weights of the path from counts to the posterior mean, by name."""
        return dict(self._weights)

    def module(self) -> torch.nn.Module:
        """Return the encoder as a torch module, with its own copy of the weights: raw counts in, posterior mean out.

        It takes float counts of shape (n, len(genes)) and applies log1p itself, so gradients reach every weight in training
        from end to end. It comes in training mode (dropout on, batch statistics updated), as every new torch module does; call
        ``.eval()`` for the values that `encode` gives.
        """
        import torch
        from torch import nn

        sizes = [len(self.genes), *[self.n_hidden] * self.n_layers]
        parts: list[tuple[str, nn.Module]] = []
        for i, (n_in, n_out) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
            parts += [
                (f"linear_{i}", nn.utils.skip_init(nn.Linear, n_in, n_out)),
                (f"norm_{i}", self._norm(n_out)),
                (f"activation_{i}", self._activation()),
                (f"dropout_{i}", nn.Dropout(self.dropout_rate)),
            ]
        parts.append(("mean", nn.utils.skip_init(nn.Linear, sizes[-1], self.n_latent)))
        network = nn.Sequential(OrderedDict(parts))
        counted = self.n_layers if self.norm_parts else 0
        counters = {f"norm_{i}.num_batches_tracked": torch.tensor(0) for i in range(counted)}
        # copies: training the module must not change this encoder
        network.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in self._weights.items()} | counters)
        network.register_forward_pre_hook(_log1p)
        return network

    @staticmethod
    def _norm(width: int) -> torch.nn.Module:
        from torch import nn

        return nn.BatchNorm1d(width, momentum=_MOMENTUM, eps=_EPS)

    @staticmethod
    def _activation() -> torch.nn.Module:
        from torch import nn

        return nn.ReLU()

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        width = len(self.genes)
        for i in range(self.n_layers):
            shapes |= {f"linear_{i}.weight": (self.n_hidden, width), f"linear_{i}.bias": (self.n_hidden,)}
            shapes |= {f"norm_{i}.{part}": (self.n_hidden,) for part in self.norm_parts}
            width = self.n_hidden
        return shapes | {"mean.weight": (self.n_latent, width), "mean.bias": (self.n_latent,)}

    def options(self) -> dict[str, Any]:
        """Further arguments of the constructor."""
        return {"n_hidden": self.n_hidden, "n_layers": self.n_layers, "dropout_rate": self.dropout_rate}

    @classmethod
    def from_parts(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> SCVIEncoder:
        """Build the encoder of a stored configuration and its tensors."""
        return cls(
            config["genes"],
            config["gene_ids"],
            weights=tensors,
            n_latent=whole_number(config, "dim"),
            n_hidden=whole_number(config, "n_hidden"),
            n_layers=whole_number(config, "n_layers", most=len(tensors)),
            dropout_rate=fraction(config, "dropout_rate"),
            fitted=config.get("fitted"),
        )

    def encode_counts(
        self, counts: sp.csr_matrix, present: np.ndarray | None, batch_size: int, device: str | None
    ) -> np.ndarray:
        """Embed checked counts."""
        return network_rows(self.module(), counts, present, dim=self.dim, batch_size=batch_size, device=device)


def _log1p(_module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (inputs[0].log1p(), *inputs[1:])


def how_fitted(
    matrix: sp.csr_matrix, batch: np.ndarray | None, epochs: Sequence[int], random_state: int
) -> dict[str, Any]:
    """What is recorded of a fit by scvi-tools."""
    from importlib.metadata import version

    return {
        "rows": matrix.shape[0],
        "batches": 1 if batch is None else len(np.unique(batch)),
        "epochs": epochs,
        "random_state": random_state,
        "scvi_tools": version("scvi-tools"),
    }
