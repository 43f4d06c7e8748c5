"""Rank-value tokens of rows (Theodoris et al., Nature 2023), on all cores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._compute.blocks import each

if TYPE_CHECKING:
    import scipy.sparse as sp

MOST_TOKENS = 2048
_ROWS_OF_A_THREAD = 4096


def ranked_tokens(
    counts: sp.csr_matrix,
    tokens: np.ndarray,
    medians: np.ndarray,
    *,
    totals: np.ndarray | None = None,
    most: int = MOST_TOKENS,
) -> list[np.ndarray]:
    """Rank-value tokens of rows.

    Parameters
    ----------
    counts
        Raw counts of genes with an ENSG0 id, CSR, shape (n, g).
    tokens
        Token of each gene, shape (g,); negative where it has none.
    medians
        Non-zero median of each gene, shape (g,).
    totals
        Total of each row, shape (n,); ``None`` takes the sum over all genes. It is the same for all genes of a row, so that it moves
        no rank.
    most
        Longest row of tokens.

    Returns
    -------
    Tokens of each row, int32; the highest value first, ties in ascending order of the tokens.

    Raises
    ------
    ValueError
        If a count is negative, NaN or infinite.
    """
    from spatialwhisperer.encoders.gene._geneformer.ranking import rank_tokens

    order = np.argsort(tokens, kind="stable")
    matrix = counts if (order == np.arange(len(order))).all() else counts[:, order]
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    n = matrix.shape[0]
    columns = np.ascontiguousarray(tokens[order], np.int32), np.ascontiguousarray(medians[order], np.float64)
    whole = np.full(n, np.nan) if totals is None else np.ascontiguousarray(totals, np.float64)
    begin = np.concatenate([[0], np.minimum(np.diff(matrix.indptr), most).cumsum(dtype=np.int64)])
    out, length = np.empty(begin[-1], np.int32), np.empty(n, np.int64)

    def rank(rows: slice) -> None:
        inside = slice(rows.start, rows.stop + 1)
        rank_tokens(
            matrix.data,
            matrix.indices,
            matrix.indptr[inside],
            *columns,
            whole[rows],
            most,
            begin[rows],
            out,
            length[rows],
        )

    parts = [slice(start, min(start + _ROWS_OF_A_THREAD, n)) for start in range(0, n, _ROWS_OF_A_THREAD)]
    each(rank, parts)
    if (length < 0).any():
        row = int(np.argmax(length < 0))
        raise ValueError(
            f"Row {row} of the counts holds a value that is negative, NaN or infinite. Rank-value tokens need raw counts: "
            "pass the layer that holds them."
        )
    return [out[start : start + k] for start, k in zip(begin.tolist(), length.tolist(), strict=False)]
