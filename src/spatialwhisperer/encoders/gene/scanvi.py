"""The encoder of scANVI, fitted by scvi-tools and used without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spatialwhisperer._docs import shared
from spatialwhisperer.encoders.gene._networks.scvi_training import train
from spatialwhisperer.encoders.gene.scvi import SCVIEncoder, how_fitted
from spatialwhisperer.encoders.registry import register_encoder
from spatialwhisperer.encoders.spec import EncoderSpec
from spatialwhisperer.statistics.counts import training_counts

if TYPE_CHECKING:
    from collections.abc import Sequence


@register_encoder(
    EncoderSpec(
        "scanvi",
        "gene",
        None,
        licence="BSD-3-Clause (no weights)",
        commercial=True,
        url="https://docs.scvi-tools.org",
        citation="Xu et al. 2021, Mol Syst Biol 17:e9620",
    ),
)
class SCANVIEncoder(SCVIEncoder):
    """Posterior mean of scANVI's latent variables (Xu et al., Mol Syst Biol 2021): scVI, fine-tuned to tell labels apart.

    Otherwise it is like `SCVIEncoder`.
    """

    @classmethod
    @shared
    def fit(  # type: ignore[override]
        cls,
        counts: Any,
        genes: Sequence[str],
        gene_ids: Sequence[str] | None = None,
        *,
        labels: Sequence[Any],
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
    ) -> SCANVIEncoder:
        """Select genes, train scVI, then scANVI from it, on all rows that have counts in these genes.

        Parameters
        ----------
        %(training_counts)s
        labels
            Label of each row, length n; missing values mark rows without a label.
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
            Passes over the rows for scVI, of which scANVI takes a third, from 2 to 10; ``None`` takes scvi-tools' own rule for both.
        %(device)s
        random_state
            Seed of initial weights and minibatches.

        Raises
        ------
        ValueError
            If values are not counts, rows are too few, or rows with counts have fewer than two labels.
        """
        import pandas as pd

        given = pd.Series(list(labels), dtype=object)
        if len(given) != np.shape(counts)[0]:
            raise ValueError(f"There are {len(given)} labels for {np.shape(counts)[0]} rows.")
        matrix, chosen, rows = training_counts(counts, len(genes), n_top_genes, batch)
        codes, classes = pd.factorize(given[rows], sort=False)
        if len(classes) < 2:
            raise ValueError(
                f"scANVI needs at least two labels; the {len(codes)} rows with counts have {len(classes)}. Use encoder='scvi'."
            )
        batch = None if batch is None else np.asarray(batch)[rows]
        model, epochs = train(
            matrix,
            batch,
            codes,
            cls._parameters(n_latent, n_hidden, n_layers, dropout_rate, gene_likelihood),
            max_epochs,
            device,
            random_state,
        )
        fitted = how_fitted(matrix, batch, epochs, random_state) | {"labels": len(classes)}
        return cls._of(model, genes, gene_ids, chosen, fitted)
