"""Observed expression as log1p(CP10k) of variable genes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.table.counts import counts_matrix
from spatialwhisperer.statistics.expression.value_spaces import to_space

if TYPE_CHECKING:
    from anndata import AnnData


def variable_expression(
    table: AnnData, sections: np.ndarray, n_top_genes: int | None, layer: str | None = None
) -> np.ndarray:
    """log1p(CP10k) of the union of the highly variable genes of the sections, dense, shape (n, genes).

    Raises
    ------
    ValueError
        If ``.X`` (or the layer) does not hold raw counts, or ``n_top_genes`` is below one.
    """
    if n_top_genes is not None and n_top_genes < 1:
        raise ValueError(f"n_top_genes must be at least 1, not {n_top_genes!r}.")
    logged = to_space(counts_matrix(table, layer), "per_spot_log1p")
    return logged[:, variable_genes(logged, sections, n_top_genes)].toarray().astype(np.float64)


def variable_genes(logged: Any, sections: np.ndarray, n_top_genes: int | None) -> np.ndarray:
    """Positions of the genes that are highly variable (scanpy) in at least one section; of all detected genes for ``None``."""
    import anndata as ad
    import scanpy as sc

    detected = np.asarray((logged > 0).sum(axis=0)).ravel() > 0
    if n_top_genes is None or detected.sum() <= n_top_genes:
        return np.flatnonzero(detected)
    chosen = np.zeros(logged.shape[1], bool)
    for name in np.unique(sections):
        part = logged[sections == name]
        here = np.flatnonzero(np.asarray((part > 0).sum(axis=0)).ravel() > 0)
        if len(here) <= n_top_genes or part.shape[0] < 3:
            chosen[here] = True
            continue
        adata = ad.AnnData(part[:, here])
        adata.uns["log1p"] = {}
        ranked = sc.pp.highly_variable_genes(adata, n_top_genes=n_top_genes, inplace=False)
        chosen[here[ranked["highly_variable"].to_numpy()]] = True
    return np.flatnonzero(chosen)
