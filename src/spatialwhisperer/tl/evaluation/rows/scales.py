"""Whether measured and predicted values were scaled over comparable sets of genes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spatialwhisperer._access.table.counts import other_species_of
from spatialwhisperer._messages import warn
from spatialwhisperer.statistics.expression.gene_numbers import FEWEST, GeneNumbers, different_scales
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


@dataclass(frozen=True)
class Scales:
    """What tells whether measured and predicted values are on one scale.

    Attributes
    ----------
    measured
        Genes over which the measured spots were scaled; ``None`` where values do not depend on all genes of their table.
    trained
        Those of the training tables of the model; ``None`` where they are not known.
    lacking
        Sentence that says that the measured table lacks most genes of the model; empty where it does not, or nothing depends on it.
    """

    measured: GeneNumbers | None
    trained: GeneNumbers | None
    lacking: str


def scales_of(
    table: AnnData, found: np.ndarray, *, space: str, measured: GeneNumbers | None, trained: GeneNumbers | None
) -> Scales:
    """Those of a measured table and a prediction.

    Parameters
    ----------
    table
        The measured table.
    found
        Which of the genes of the model it has, Boolean.
    space
        Value space of the prediction.
    measured, trained
        As in :class:`Scales`.
    """
    lacking = ""
    if space in OVER_ALL | OVER_CHOSEN and found.mean() < FEWEST:
        lacking = (
            f"The measured table of {table.n_vars} genes has {int(found.sum())} of the {len(found)} genes of the model, and its spots are "
            "scaled over fewer genes."
        )
    return Scales(measured, trained, lacking)


def warn_of_scales(scales: Scales, train: Sequence[GeneNumbers] = ()) -> None:
    """Say once where the measured table, the training tables of the model and those of the baselines are on different scales.

    Parameters
    ----------
    scales
        Those of measured and predicted values.
    train
        Genes over which the spots of each training table of the baselines were scaled.
    """
    text = ""
    if scales.measured is not None:
        model = {} if scales.trained is None else {"the training tables of the model": scales.trained}
        baselines = {f"train[{i}]": numbers for i, numbers in enumerate(train)}
        text = different_scales({"the measured table": scales.measured} | model | baselines)
    # where the tables of the model are known, its genes tell nothing more
    if not text and (scales.measured is None or scales.trained is None):
        text = scales.lacking
    if text:
        warn(f"{text} {_SO}")
