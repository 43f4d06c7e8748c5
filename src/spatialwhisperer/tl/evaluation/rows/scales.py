"""Whether measured and predicted values were scaled over comparable sets of genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialwhisperer._access.table.counts import counts_matrix, other_species_of
from spatialwhisperer._messages import warn
from spatialwhisperer.statistics.expression.gene_numbers import FEWEST, GeneNumbers, gene_numbers
from spatialwhisperer.statistics.expression.value_spaces import OVER_ALL, OVER_CHOSEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from anndata import AnnData

_SO = (
    "Their values are on different scales: MSE and MAE are not comparable with those on other tables, and correlations change too. Train and "
    "measure on tables of the same genes, such as adata[:, genes].copy()."
)


def check_species(genes: Sequence[str], gene_ids: Sequence[str], table: AnnData, found: np.ndarray, what: str) -> None:
    """Refuse a table of which few of the genes were found, because it is of another species.

    Parameters
    ----------
    genes, gene_ids
        Names and Ensembl ids of the predicted genes.
    table
        The table.
    found
        Which of the genes it has, Boolean of shape (len(genes),).
    what
        What the table is, for the message.

    Raises
    ------
    ValueError
        If its names look like those of another species.
    """
    if found.mean() < FEWEST and (species := other_species_of(genes, gene_ids, table)):
        raise ValueError(f"Only {int(found.sum())} of the {len(found)} predicted genes are in {what}. {species}")


def warn_of_scale(
    table: AnnData, found: np.ndarray, *, space: str, layer: str | None, trained: GeneNumbers | None
) -> None:
    """Say where the spots of the measured table and of training were scaled over very different numbers of genes.

    Parameters
    ----------
    table, layer
        The measured table, and the layer with its counts.
    found
        Which of the genes of the model it has, Boolean.
    space
        Value space of the prediction.
    trained
        Genes of the training tables; ``None`` where they are not known, and only those of the model can be counted.
    """
    if space in OVER_ALL and trained is not None:
        own = gene_numbers(counts_matrix(table, layer))
        if own.few_beside(trained):
            text = f"over the {own.genes} genes of the measured table, and those of training over {trained.counted}"
        elif trained.few_beside(own):
            text = f"over the {own.counted} genes that the measured table counts, and those of training over {trained.genes}"
        else:
            return
        warn(f"Measured spots are scaled {text}. {_SO}")
    elif space in OVER_ALL | OVER_CHOSEN and found.mean() < FEWEST:
        warn(
            f"The measured table of {table.n_vars} genes has {int(found.sum())} of the {len(found)} genes of the model, and its spots are "
            f"scaled over fewer genes. {_SO}"
        )


def warn_of_training(tables: Sequence[AnnData], measured: AnnData, *, space: str, layer: str | None) -> None:
    """Say which training tables of the baselines were scaled over another number of genes than the measured one."""
    if space not in OVER_ALL:
        return
    own = gene_numbers(counts_matrix(measured, layer))
    numbers = [gene_numbers(counts_matrix(table, layer)) for table in tables]
    found = [f"train[{i}] ({one.genes})" for i, one in enumerate(numbers) if one.few_beside(own) or own.few_beside(one)]
    if found:
        warn(
            f"The spots of {', '.join(found)} and those of the measured table ({own.genes}) are scaled over very different numbers of genes. "
            f"{_SO}"
        )
