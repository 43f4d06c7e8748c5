"""What predicted expression is compared with: a plain ridge regression on the same features, and the ceiling that counting sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.table.counts import counts_matrix
from spatialwhisperer.statistics.count_splitting import reliability
from spatialwhisperer.statistics.expression.value_spaces import to_space
from spatialwhisperer.statistics.left_out import left_out_units
from spatialwhisperer.statistics.standardize import standardize, statistics
from spatialwhisperer.training.ridge_link import solve_ridge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

RIDGE = "plain ridge, one tile size"
RIDGE_SIZES = "plain ridge, four tile sizes"
CEILING = "ceiling of counting noise"


def ridge(train: Sequence[AnnData], test: AnnData, genes: Sequence[str], key: str, space: str) -> AnnData:
    """Expression predicted by a ridge regression from image features, which are standardised within each section.

    Parameters
    ----------
    train, test
        Tables with image features and counts.
    genes
        Genes to predict.
    key
        Key of ``.obsm`` with the image features.
    space
        Value space, see :mod:`spatialwhisperer.statistics.expression.value_spaces`.
    """
    x = np.concatenate([_standardised(t, key) for t in train])
    y = np.concatenate([_values(t, genes, space) for t in train])
    section = np.repeat(np.arange(len(train)), [t.n_obs for t in train])
    patient = np.concatenate([t.obs["patient"].astype(str).to_numpy() for t in train])
    xy = np.concatenate([Slide.open(t).positions() for t in train])
    whole = np.isfinite(x).all(axis=1)
    units = left_out_units(patient[whole], section[whole], xy[whole])
    weight, _ = solve_ridge(x[whole], y[whole], units)
    return _prediction(test, _standardised(test, key) @ weight.T + y[whole].mean(axis=0), genes)


def ceiling_rows(
    test: AnnData, genes: Sequence[str], train: Sequence[AnnData], space: str, *, random_state: int = 0
) -> pd.DataFrame:
    """Correlation that the true expected expression of each spot would have with what was counted, mean over the genes of a list.

    The counts of a spot are split at random into halves, which share nothing but their expectation. Their correlation r gives the
    reliability ``2 r / (1 + r)`` of all counts (Spearman and Brown), of which the ceiling is the square root; 0 for r below 0.
    """
    rng = np.random.default_rng(random_state)
    counts = counts_matrix(test, None).toarray().astype(np.int64)
    half = rng.binomial(counts, 0.5)
    halves = [test.copy(), test.copy()]
    halves[0].X, halves[1].X = half.astype(np.float32), (counts - half).astype(np.float32)
    predicted = _prediction(test, _values(halves[0], genes, space), genes)
    found = sw.tl.evaluate_expression(
        halves[1], predicted, train=list(train), baselines=False, value_space=space, group_key="section", per_gene=True
    )
    r = found["pearson"].to_numpy()
    most = pd.Series(np.sqrt(reliability(r)), index=found["gene"])
    rows = [
        (str(test.obs["section"].iloc[0]), CEILING, name, "pearson", float(most.reindex(chosen).mean()))
        for name, chosen in found.attrs["gene_lists"].items()
    ]
    return pd.DataFrame(rows, columns=["section", "predictor", "gene_list", "metric", "value"])


def _standardised(table: AnnData, key: str) -> np.ndarray:
    x = np.asarray(table.obsm[key], dtype=np.float32)
    mean, std = statistics(x)
    return standardize(x, how="section", mean=mean, std=std)


def _values(table: AnnData, genes: Sequence[str], space: str) -> np.ndarray:
    import scipy.sparse as sp

    library = np.asarray(counts_matrix(table, None).sum(axis=1)).ravel()
    counts = sp.csr_matrix(counts_matrix(table[:, list(genes)], None))
    found: Any = to_space(counts, space, library=library, sections=np.zeros(table.n_obs, int))
    return np.asarray(found.toarray() if sp.issparse(found) else found, np.float32)


def _prediction(test: AnnData, values: np.ndarray, genes: Sequence[str]) -> AnnData:
    import anndata as ad

    return ad.AnnData(
        np.asarray(values, np.float32), obs=pd.DataFrame(index=test.obs_names), var=pd.DataFrame(index=list(genes))
    )
