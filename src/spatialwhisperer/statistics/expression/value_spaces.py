"""The scales on which expression is predicted and evaluated, by name. Metrics in different spaces are not comparable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from collections.abc import Sequence

TARGET = 1e4
"""Total counts that a spot, or a gene, is scaled to."""

SPACES = {
    "per_spot_log1p": "each spot scaled to 10,000 counts over all genes of its table, ln(1 + x)",
    "per_spot_log10": "each spot scaled to 10,000 counts over the genes of the model, log10(1 + x)",
    "per_gene_log10_peer": "each gene scaled to 10,000 counts within its section, log10(1 + x): no correction for depth",
}
"""Name to definition. The last one is what the published evaluation of mclSTExp computes."""

OVER_ALL = frozenset({"per_spot_log1p"})
"""Spaces in which the value of a gene depends on all genes of its table."""

OVER_CHOSEN = frozenset({"per_spot_log10"})
"""Spaces in which the value of a gene depends on which other genes are transformed with it."""


def to_space(
    counts: Any,
    space: str = "per_spot_log1p",
    *,
    library: np.ndarray | None = None,
    sections: Sequence[Any] | np.ndarray | None = None,
) -> Any:
    """Transform raw counts into a value space.

    Parameters
    ----------
    counts
        Raw counts of the chosen genes, CSR or dense, shape (n, g). For "per_spot_log10" these are all genes of a model: of some of
        them the values would be others.
    space
        One of `SPACES`.
    library
        Total counts of each spot over all its genes, shape (n,), for "per_spot_log1p". ``None`` takes the total over the chosen genes.
    sections
        Section of each spot, shape (n,), for "per_gene_log10_peer". ``None`` is one section.

    Returns
    -------
    float32 values of shape (n, g), CSR for sparse input (zero stays zero in every space), dense otherwise.

    Raises
    ------
    ValueError
        If the space is unknown.
    """
    check_space(space)
    matrix = sp.csr_matrix(counts, dtype=np.float64)
    if space == "per_gene_log10_peer":
        scaled = _per_gene(matrix, sections)
    else:
        own = np.asarray(matrix.sum(axis=1)).ravel()
        total = own if library is None or space in OVER_CHOSEN else np.asarray(library, dtype=np.float64)
        scaled = sp.diags(TARGET / np.where(total > 0, total, 1.0)) @ matrix
    scaled = scaled.tocsr()
    scaled.data = np.log1p(scaled.data) if space == "per_spot_log1p" else np.log10(1 + scaled.data)
    scaled = scaled.astype(np.float32)
    return scaled if sp.issparse(counts) else scaled.toarray()


def _per_gene(matrix: sp.csr_matrix, sections: Any) -> sp.csr_matrix:
    codes = (
        np.zeros(matrix.shape[0], int) if sections is None else np.unique(np.asarray(sections), return_inverse=True)[1]
    )
    out = matrix.tocoo()
    totals = np.zeros((codes.max(initial=0) + 1, matrix.shape[1]))
    np.add.at(totals, (codes[out.row], out.col), out.data)
    total = totals[codes[out.row], out.col]
    # a zero may be stored for a gene that has no count
    scaled = TARGET * out.data / np.where(total > 0, total, 1.0)
    return sp.csr_matrix((scaled, (out.row, out.col)), shape=matrix.shape)


def check_space(space: str) -> None:
    """Refuse an unknown space."""
    if space not in SPACES:
        raise ValueError(f"Unknown value space {space!r}; choose one of {listing(SPACES)}.")
