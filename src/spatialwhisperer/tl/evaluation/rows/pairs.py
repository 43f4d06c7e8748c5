"""Measured and predicted expression of the same rows and genes, in one value space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from spatialwhisperer import _keys
from spatialwhisperer._access.table.counts import counts_matrix, match_genes
from spatialwhisperer._access.table.row_names import check_same_rows
from spatialwhisperer._access.tables import is_spatialdata
from spatialwhisperer._messages import listing, warn
from spatialwhisperer._provenance import recorded
from spatialwhisperer._storage.schema import from_plain
from spatialwhisperer.statistics.expression.gene_numbers import GeneNumbers, gene_numbers
from spatialwhisperer.statistics.expression.value_spaces import OVER_ALL, OVER_CHOSEN, SPACES, check_space, to_space
from spatialwhisperer.tl.evaluation.rows.groups import row_groups
from spatialwhisperer.tl.evaluation.rows.scales import Scales, check_species, scales_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer._access.slide import Slide

AS_GIVEN = "as given"
"""Recorded as the value space where a model was trained on the values of a layer rather than on counts."""


class Library(NamedTuple):
    """Names and Ensembl ids of the genes over which a spot is scaled in the spaces `OVER_CHOSEN`."""

    genes: list[str]
    gene_ids: list[str]

    def columns(self, table: AnnData) -> np.ndarray:
        """Column of each gene in a table, -1 where it has none."""
        return match_genes(self.genes, self.gene_ids, table)


@dataclass(frozen=True)
class Pair:
    """Measured and predicted values of the same spots and genes.

    Attributes
    ----------
    table
        The table with the measured values.
    genes, gene_ids
        Names of the predicted genes that were measured, and their Ensembl ids ("" where unknown).
    truth
        Measured values, CSR float32 of shape (n, g).
    predicted
        Predicted values, shape (n, g); NaN where there is no prediction.
    groups
        Group (section) of each row.
    space
        Value space of both.
    lists
        Gene lists that the prediction recorded: they were chosen on the training data of its model.
    library
        All genes that were predicted, also those that are not evaluated; ``None`` where values do not depend on them.
    totals
        Counts of each row over all genes of the table, shape (n,); NaN where values were not counts.
    scales
        Genes over which the spots of both were scaled.
    """

    table: AnnData
    genes: list[str]
    gene_ids: list[str]
    truth: sp.csr_matrix
    predicted: np.ndarray
    groups: np.ndarray
    space: str
    lists: dict[str, list[str]]
    library: Library | None
    totals: np.ndarray
    scales: Scales


class SlideValues(NamedTuple):
    """Values of some genes of a slide.

    Attributes
    ----------
    values
        CSR of shape (n, genes).
    totals
        Counts of each row over all genes of the table, shape (n,); NaN where values were not counts.
    scaled_over
        Genes over which spots were scaled; ``None`` where values do not depend on all genes of the table.
    """

    values: sp.csr_matrix
    totals: np.ndarray
    scaled_over: GeneNumbers | None


@dataclass(frozen=True)
class Predicted:
    """Predicted values of a slide on which nothing was measured.

    Attributes
    ----------
    genes
        Names of the genes.
    values
        Predicted values, shape (n, g); NaN where there is no prediction.
    held_out
        Correlation of each gene on held-out training tissue, shape (g,); NaN where it is not known.
    space
        Value space; ``None`` where it is neither recorded nor stated.
    """

    genes: list[str]
    values: np.ndarray
    held_out: np.ndarray
    space: str | None


def make_predicted(
    slide: Slide, prediction: AnnData | None, *, genes: Sequence[str] | None, value_space: str | None, key: str
) -> Predicted:
    """Find the prediction for a slide on which nothing was measured.

    Raises
    ------
    KeyError
        If there is no prediction, or a gene that is named was not predicted.
    ValueError
        If its rows are not those of the slide, it holds no value, or the value space is unknown or not that of the prediction.
    """
    prediction = _prediction_of(slide, prediction, key)
    space = (recorded(prediction, _keys.EXPRESSION) or {}).get("value_space")
    if value_space is not None:
        space = check_value_space(value_space, space)
    keep = _chosen(np.asarray(prediction.var_names), genes, True, "predicted")
    values = _dense(prediction, keep)
    _check_values(values)
    held_out: Any = prediction.var.get("held_out_pearson")
    r = np.full(len(keep), np.nan) if held_out is None else held_out.to_numpy(dtype=float)[keep]
    return Predicted([str(g) for g in prediction.var_names[keep]], values, r, space)


def make_pair(
    slide: Slide,
    prediction: AnnData | None,
    *,
    genes: Sequence[str] | None,
    value_space: str | None,
    layer: str | None,
    group_key: str | None,
    key: str,
    all_genes: bool = True,
) -> Pair:
    """Find measured values and prediction, check that they belong together, and bring the former into the space of the latter.

    Without ``all_genes``, those of ``genes`` that were not both predicted and measured are left out, which may be every one.

    Raises
    ------
    KeyError
        If there is no prediction, or a column, layer or gene that is named does not exist.
    ValueError
        If rows differ, no predicted gene was measured or few because the table is of another species, the prediction holds no value,
        or the value space is unknown or not that of the prediction.
    """
    table = slide.table
    prediction = _prediction_of(slide, prediction, key)
    known = recorded(prediction, _keys.EXPRESSION) or {}
    space = check_value_space(value_space, known.get("value_space"))
    ids = [str(i) for i in prediction.var["gene_id"]] if "gene_id" in prediction.var else [""] * prediction.n_vars
    names = [str(name) for name in prediction.var_names]
    columns = match_genes(names, ids, table)
    measured = columns >= 0
    check_species(names, ids, table, measured, "the measured table")
    _check_measured(prediction, table, measured)
    library = _library(known, names, ids) if space in OVER_CHOSEN else None
    found = measured if library is None else library.columns(table) >= 0
    truth, totals, scaled_over = values_of(slide, columns[measured], space=space, layer=layer, library=library)
    scales = scales_of(table, found, space=space, measured=scaled_over, trained=_trained(known))
    chosen = _chosen(np.asarray(prediction.var_names)[measured], genes, all_genes, "both predicted and measured")
    keep = np.flatnonzero(measured)[chosen]
    predicted = _dense(prediction, keep)
    _check_values(predicted)
    return Pair(
        table,
        [str(g) for g in prediction.var_names[keep]],
        [ids[i] for i in keep],
        truth[:, chosen],
        predicted,
        row_groups(slide, group_key),
        space,
        known.get("gene_lists") or {},
        library,
        totals,
        scales,
    )


def _prediction_of(slide: Slide, prediction: AnnData | None, key: str) -> AnnData:
    """The prediction for a slide: the one that is given, else the table of a SpatialData, whose rows must be those of the slide."""
    prediction = _prediction(slide.data, prediction, key)
    _check_rows(slide.table, prediction, key)
    return prediction


def check_value_space(asked: str | None, known: str | None) -> str:
    """The value space of the prediction, as it was recorded or as the caller states it."""
    if known is None and asked is None:
        raise ValueError(
            f"The value space of the prediction is not recorded; pass value_space=…, one of {listing(SPACES)}."
        )
    if asked is not None and asked != AS_GIVEN:
        check_space(asked)
    if known is not None and asked is not None and asked != known:
        raise ValueError(
            f"The prediction is in value space {known!r}, and predicted values cannot be converted to {asked!r} without the counts "
            "behind them. Leave value_space out, or train a model with that value space and predict again."
        )
    return str(known if asked is None else asked)


def values_of(
    slide: Slide, columns: np.ndarray, *, space: str, layer: str | None, library: Library | None = None
) -> SlideValues:
    """Values of some genes in a space; column -1 is a gene that the table lacks and counts as 0.

    Parameters
    ----------
    slide, columns
        The slide, and columns of its table.
    space, layer
        Value space, and layer with the counts.
    library
        Genes over which a spot is scaled; ``None`` takes all genes of the table, or in the spaces `OVER_CHOSEN` those of the columns.
    """
    if space == AS_GIVEN:
        given = _given_values(slide.table, columns, layer)
        return SlideValues(given, np.full(slide.table.n_obs, np.nan), None)
    counts = counts_matrix(slide.table, layer)
    others = np.setdiff1d([] if library is None else library.columns(slide.table), [*columns, -1]).astype(int)
    part = _take(counts, np.concatenate([columns, others]))
    totals = np.asarray(counts.sum(axis=1), np.float64).ravel()
    values = to_space(part, space, library=totals, sections=slide.sections)[:, : len(columns)]
    return SlideValues(values, totals, gene_numbers(counts) if space in OVER_ALL else None)


def _given_values(table: AnnData, columns: np.ndarray, layer: str | None) -> sp.csr_matrix:
    if layer is None or layer not in table.layers:
        raise KeyError(
            "The model was trained on the values of a layer, not on counts: name the layer with the same values, "
            f"layer=… (.layers holds: {listing(sorted(k for k in table.layers.keys() if k is not None))})."
        )
    values = _take(sp.csr_matrix(table.layers[layer], dtype=np.float32), columns)
    if not np.isfinite(values.data).all():
        raise ValueError(f".layers[{layer!r}] holds values that are not finite.")
    return values


def _take(matrix: sp.csr_matrix, columns: np.ndarray) -> sp.csr_matrix:
    present = np.flatnonzero(columns >= 0)
    part = matrix[:, columns[present]].tocsr()
    out = sp.csr_matrix((part.data, present[part.indices], part.indptr), shape=(matrix.shape[0], len(columns)))
    out.sort_indices()
    return out


def _prediction(data: AnnData | SpatialData, prediction: AnnData | None, key: str) -> AnnData:
    if prediction is not None:
        if is_spatialdata(prediction):
            raise TypeError(f"prediction must be the table itself: prediction=sdata[{key!r}].")
        return prediction
    if not is_spatialdata(data):
        raise KeyError(
            "The prediction for an AnnData is a table of its own. Pass prediction=sw.tl.predict_expression(adata, model=…)."
        )
    if key not in data.tables:
        raise KeyError(
            f"There is no table {key!r} (found: {listing(data.tables)}). Run sw.tl.predict_expression(sdata, model=…) first, "
            "or pass prediction=…."
        )
    return data.tables[key]


def _library(known: Mapping[str, Any], names: list[str], ids: list[str]) -> Library:
    """The genes that a prediction was scaled over: those it recorded, else all that it holds."""
    stated = known.get("library")
    return Library(stated["genes"], stated["gene_ids"]) if isinstance(stated, Mapping) else Library(names, ids)


def _check_rows(table: AnnData, prediction: AnnData, key: str) -> None:
    if prediction is table:
        raise ValueError(
            f"Measured and predicted values are the same table ({key!r}); name the measured one with table_key=…."
        )
    check_same_rows(prediction, table)


def _trained(known: Mapping[str, Any]) -> GeneNumbers | None:
    """Genes of the training tables, as a prediction recorded them."""
    stated = known.get("measured")
    return from_plain(GeneNumbers, stated, "the record of the prediction") if isinstance(stated, Mapping) else None


def _check_measured(prediction: AnnData, table: AnnData, measured: np.ndarray) -> None:
    if not measured.any():
        raise ValueError(
            f"No predicted gene ({listing(prediction.var_names, 5)}) is in the measured table ({listing(table.var_names, 5)})."
        )
    if not measured.all():
        absent = prediction.var_names[~measured]
        warn(f"{len(absent)} predicted genes were not measured and are left out: {listing(absent, 5)}.")


def _dense(prediction: AnnData, columns: np.ndarray) -> np.ndarray:
    """Predicted values of some genes, float32."""
    values: Any = prediction.X
    values = values[:, columns]
    return np.asarray(values.toarray() if sp.issparse(values) else values, np.float32)


def _chosen(names: np.ndarray, genes: Sequence[str] | None, all_genes: bool, what: str) -> np.ndarray:
    if genes is None:
        return np.arange(len(names))
    wanted = [genes] if isinstance(genes, str) else list(dict.fromkeys(str(g) for g in genes))
    where = {str(g): i for i, g in enumerate(names)}
    missing = [g for g in wanted if g not in where]
    if (missing and all_genes) or not wanted:
        raise KeyError(f"genes not {what}: {listing(missing)} (there are {listing(names, 5)}).")
    return np.array([where[g] for g in wanted if g in where], dtype=int)


def _check_values(predicted: np.ndarray) -> None:
    if np.isinf(predicted).any():
        raise ValueError(f"The prediction holds {int(np.isinf(predicted).sum())} infinite values.")
    empty = np.isnan(predicted)
    if empty.any(axis=1).all():
        raise ValueError(
            f"Every row of the prediction has a NaN ({int(empty.all(axis=1).sum())} of {len(predicted)} rows are NaN "
            "altogether), so there is nothing to compare. Predict again, or leave genes without values out with genes=…."
        )
