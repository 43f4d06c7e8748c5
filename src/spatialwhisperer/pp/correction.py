"""Batch correction of the expression matrix itself, as some papers do before training and evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from spatialwhisperer._access.columns import as_list
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.table.counts import counts_matrix
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import listing, require
from spatialwhisperer.pp.genes import batch_codes
from spatialwhisperer.statistics.expression.value_spaces import check_space, to_space

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

_FEWEST_ROWS = 16


@shared
@checked
def harmonize_expression(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    *,
    genes: Sequence[str],
    batch_key: str | None = None,
    value_space: str = "per_spot_log1p",
    ridge: float | None = 1.0,
    layer: str | None = None,
    table_key: str | None = None,
    random_state: int = 0,
) -> list[np.ndarray]:
    """Run Harmony (Korsunsky et al., Nat Methods 2019) on gene expression instead of principal components.

    BLEEP and HECLIP train on such a matrix, retrieve from it and evaluate against it. Two cautions:

    - The correction uses all sections that are passed. With held-out sections, pass the training sections only; a held-out section
      then has no corrected values.
    - Corrected expression is a different ground truth. Scores against it cannot be compared with scores against the data.

    Nothing is written, because corrected values can be negative and are not counts. Needs harmonypy (GPL licence):
    ``pip install 'spatialwhisperer[harmony]'``.

    Parameters
    ----------
    data
        One object or several.
    genes
        Names of the genes to correct; each table must have them.
    batch_key
        Column of ``.obs`` with the batch. Equal values in several objects are one batch. ``None`` takes each object, and each section
        within it, as a batch.
    value_space
        Transformation of the counts, for input and output: "per_spot_log1p", "per_spot_log10" or "per_gene_log10_peer", which
        :doc:`/concepts` defines.
    ridge
        Ridge penalty on the correction, as in the paper; ``None`` lets harmonypy estimate one per cluster.
    %(layer)s
    %(table_key)s
    %(random_state)s

    Returns
    -------
    Corrected values, one array of float32 and shape (n, len(genes)) for each object, in row order.

    Raises
    ------
    ImportError
        If harmonypy is not installed.
    KeyError
        If a gene, layer, table or column does not exist.
    ValueError
        If values are not raw counts, there is only one batch, there are too few rows, or an argument is out of range.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections = sw.datasets.simulate_sections(2, 60, n_genes=30, n_reference_cells=50).sections
    >>> genes = list(sections["P1"]["table"].var_names)
    >>> corrected = sw.pp.harmonize_expression(list(sections.values()), genes=genes)
    >>> corrected[0].shape
    (60, 30)
    """
    check_space(value_space)
    if ridge is not None and not (np.isfinite(ridge) and ridge > 0):
        raise ValueError(
            f"ridge must be a positive number, or None, not {ridge!r}: without it Harmony's equations have no solution."
        )
    genes = _names(genes)
    slides = [Slide.open(d, table_key=table_key) for d in as_list(data)]
    tables = [slide.table for slide in slides]
    for i, table in enumerate(tables):
        if missing := [g for g in genes if g not in table.var_names]:
            raise KeyError(
                f"{len(missing)} genes are not in object {i}: {listing(missing, 5)}. sw.pp.select_genes(data) names such that all have."
            )
    batches = batch_codes(slides, batch_key)
    batch = np.unique(np.concatenate(batches), return_inverse=True)[1]
    if batch.max(initial=0) == 0:
        raise ValueError(
            "All rows are of one batch: there is nothing to correct. batch_key=… names a column that differs."
        )
    if len(batch) < _FEWEST_ROWS:
        raise ValueError(f"{len(batch)} rows are too few for Harmony's clusters; it takes at least {_FEWEST_ROWS}.")
    harmonypy = require("harmonypy", extra="harmony")
    parts, depth = [], []
    for table in tables:
        counts = counts_matrix(table, layer)
        parts.append(counts[:, table.var_names.get_indexer(pd.Index(genes))])
        depth.append(np.asarray(counts.sum(axis=1)).ravel())
    # a batch may hold several sections, and values that are scaled within sections are scaled as elsewhere
    sections = np.concatenate(batch_codes(slides, None))
    values = to_space(sp.vstack(parts, format="csr"), value_space, library=np.concatenate(depth), sections=sections)
    # genes x rows: the other orientation is misread where there are as many genes as rows
    out = harmonypy.run_harmony(
        values.toarray().T, {"batch": batch}, "batch", lamb=ridge, random_state=random_state, verbose=False
    )
    corrected = np.asarray(out.Z_corr, dtype=np.float32)
    return np.split(corrected, np.cumsum([t.n_obs for t in tables])[:-1])


def _names(genes: Sequence[str]) -> list[str]:
    if isinstance(genes, str):
        raise TypeError("genes is one string; pass a list of names: [gene].")
    names = [str(g) for g in genes]
    if not names:
        raise ValueError("genes is empty; sw.pp.select_genes(data) chooses some.")
    if len(set(names)) != len(names):
        raise ValueError("genes repeats a name.")
    return names
