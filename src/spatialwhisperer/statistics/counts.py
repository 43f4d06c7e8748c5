"""What counts must look like, and which genes are worth encoding."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from spatialwhisperer._annotations import numbers

_CHUNK = 10_000_000
_SEEN_IN = 3


def not_counts(values: np.ndarray) -> str | None:
    """Why these values cannot be raw counts, in words for an error message; ``None`` where they can."""
    for start in range(0, values.size, _CHUNK):
        part = values.ravel()[start : start + _CHUNK]
        bad = ~(np.isfinite(part) & (part == np.rint(part)))
        if bad.any():
            kind = "non-integer" if np.isfinite(part[bad][0]) else "NaN or infinite"
            return f"{kind} values such as {', '.join(f'{v:g}' for v in part[bad][:3])}"
        if (part < 0).any():
            return f"negative values such as {', '.join(f'{v:g}' for v in part[part < 0][:3])}"
    return None


def stored_once(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """The same matrix with one value stored for each entry that is not zero, so that equal matrices are stored alike.

    Values that are stored for one entry are added, in a type that holds their sum.
    """
    if not matrix.has_canonical_format:
        # uint8 would wrap at 256
        matrix = matrix.astype(np.int64 if matrix.dtype.kind in "iub" else matrix.dtype, copy=True)
        matrix.sum_duplicates()
    if np.count_nonzero(matrix.data) < matrix.nnz:
        matrix = matrix.copy()
        matrix.eliminate_zeros()
    return matrix


def as_counts(counts: Any, n_genes: int) -> sp.csr_matrix:
    """Check raw counts of shape (n, n_genes) and return them as CSR of float32.

    Raises
    ------
    TypeError
        If they hold something else than numbers.
    ValueError
        If the number of genes differs, or values are negative, not whole or not finite.
    """
    if not sp.issparse(counts):
        counts = numbers("counts", counts, (None, None))
        # scipy has no sparse matrices of float16
        counts = counts.astype(np.float32) if counts.dtype == np.float16 else counts
    matrix = stored_once(sp.csr_matrix(counts))
    if matrix.shape[1] != n_genes:
        raise ValueError(
            f"counts have {matrix.shape[1]} columns and the encoder takes {n_genes} genes. Align them first: "
            "sw.pp.embed_genes(adata, encoder) does, and counts are then in the order of encoder.genes."
        )
    if problem := not_counts(matrix.data):
        raise ValueError(f"Gene encoders take raw counts; these hold {problem}.")
    return matrix.astype(np.float32, copy=False)


def training_counts(
    counts: Any, n_genes: int, n_top_genes: int | None, batch: np.ndarray | None
) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """Choose the genes and rows that a gene encoder is fitted on.

    Parameters
    ----------
    counts
        Raw counts, sparse or dense, shape (n, n_genes).
    n_genes
        Number of genes to expect.
    n_top_genes, batch
        As in `select_genes`.

    Returns
    -------
    Counts of the chosen rows and genes (CSR, float32), positions of the genes, and which rows were chosen (Boolean, shape (n,)):
    those with a count in the chosen genes.

    Raises
    ------
    ValueError
        If the counts are not raw counts, or fewer than three rows are left.
    """
    matrix = as_counts(counts, n_genes)
    chosen = select_genes(matrix, n_top_genes, batch)
    matrix = matrix[:, chosen]
    rows = np.asarray(matrix.sum(axis=1)).ravel() > 0
    if rows.sum() < 3:
        raise ValueError(f"{int(rows.sum())} rows with counts are too few to fit on.")
    return matrix[rows], chosen, rows


def select_genes(counts: sp.csr_matrix, n_top_genes: int | None, batch: np.ndarray | None) -> np.ndarray:
    """Pick highly variable genes on the training rows.

    This is ``flavor="seurat_v3"`` of :func:`scanpy.pp.highly_variable_genes` (Stuart et al., Cell 2019): genes are ranked within each
    batch and the ranks combined. Genes without any count are never chosen. Genes with counts in fewer than three rows are not chosen
    where ``n_top_genes`` limits the number.

    Parameters
    ----------
    counts
        Raw counts, shape (n, genes).
    n_top_genes
        How many genes to keep; ``None`` keeps every gene with a count.
    batch
        Batch of each row, shape (n,); ``None`` is one batch.

    Returns
    -------
    Positions of the genes, ascending.
    """
    seen = np.bincount(counts.indices[counts.data > 0], minlength=counts.shape[1])
    if n_top_genes is None or (seen > 0).sum() <= n_top_genes:
        return np.flatnonzero(seen > 0)
    # the fit of variance over mean is degenerate for genes with counts in one or two rows
    candidates = np.flatnonzero(seen >= _SEEN_IN)
    if len(candidates) <= n_top_genes:
        return candidates
    return candidates[_highly_variable(counts[:, candidates], n_top_genes, batch)]


def _highly_variable(counts: sp.csr_matrix, n_top_genes: int, batch: np.ndarray | None) -> np.ndarray:
    import anndata as ad
    import pandas as pd
    import scanpy as sc

    rows = pd.RangeIndex(counts.shape[0]).astype(str)
    codes = pd.Categorical(np.zeros(len(rows)) if batch is None else batch).remove_unused_categories()
    obs = pd.DataFrame({"batch": codes}, index=rows)
    smallest = int(codes.value_counts().min())
    try:
        if smallest < 2:
            # scanpy would rank the genes of such a batch by NaN
            raise ValueError("one row has no variance")
        table = sc.pp.highly_variable_genes(
            ad.AnnData(counts, obs=obs), flavor="seurat_v3", n_top_genes=n_top_genes, batch_key="batch", inplace=False
        )
    except ValueError as error:
        raise ValueError(
            f"Highly variable genes cannot be selected (the fit of variance over mean failed: {error}). The smallest batch "
            f"has {smallest} row(s): merge small batches, or keep every gene with n_top_genes=None."
        ) from error
    return np.flatnonzero(table["highly_variable"].to_numpy())
