"""Rows per second of Geneformer's rank-value tokens: ours, and a sort of one row at a time as published.

usage: python benchmarks/rank_tokens.py [--rows 20000] [--genes 20000] [--depth 700] [--repeats 5]

Counts are simulated: genes of very different abundance, rows of different depth, and medians spread as those of Geneformer's genes.
"rows of a sparse matrix" scales the whole matrix and then takes and sorts row after row, as the published tokenizer does; "slices" sorts
slices of the arrays instead. Both sort with NumPy, stably, so that all three give the same tokens, which is checked. The depth is the
median total of a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from _measure import OURS, arguments, compare, processor

from spatialwhisperer.encoders.gene.geneformer import ranked_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    Method = Callable[[sp.csr_matrix, np.ndarray, np.ndarray], list[np.ndarray]]

MOST = 2048


def rows_of_a_matrix(counts: sp.csr_matrix, tokens: np.ndarray, medians: np.ndarray) -> list[np.ndarray]:
    values = counts.astype(np.float64)
    totals = np.repeat(np.asarray(counts.sum(axis=1), np.float64).ravel(), np.diff(counts.indptr))
    values.data = values.data / totals * 10_000.0 / medians[values.indices]
    out = []
    for i in range(values.shape[0]):
        row = values[i]
        out.append(tokens[row.indices[np.argsort(-row.data, kind="stable")]][:MOST])
    return out


def slices(counts: sp.csr_matrix, tokens: np.ndarray, medians: np.ndarray) -> list[np.ndarray]:
    out = []
    for start, end in zip(counts.indptr[:-1], counts.indptr[1:], strict=True):
        row, columns = counts.data[start:end].astype(np.float64), counts.indices[start:end]
        order = np.argsort(-(row / row.sum() * 10_000.0 / medians[columns]), kind="stable")
        out.append(tokens[columns[order]][:MOST])
    return out


METHODS: dict[str, Method] = {
    OURS: ranked_tokens,
    "rows of a sparse matrix": rows_of_a_matrix,
    "slices": slices,
}


def make(rows: int, genes: int, depth: int) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """Counts, tokens and medians; ``depth`` is the median total of a row."""
    rng = np.random.default_rng(0)
    share = rng.lognormal(0.0, 1.8, genes).cumsum()
    share /= share[-1]
    parts = []
    for start in range(0, rows, 2000):
        totals = rng.poisson(rng.lognormal(np.log(depth), 0.5, min(2000, rows - start)))
        columns = np.minimum(np.searchsorted(share, rng.random(totals.sum())), genes - 1)
        places = np.repeat(np.arange(len(totals)), totals), columns
        parts.append(sp.coo_matrix((np.ones(len(columns), np.float32), places), (len(totals), genes)).tocsr())
    medians = rng.lognormal(np.log(2.8), 0.6, genes).round(5)
    return sp.vstack(parts, format="csr"), np.arange(genes) + 2, medians


def main() -> None:
    args = arguments(__doc__, rows=20_000, genes=20_000, depth=700, repeats=5)
    counts, tokens, medians = make(args.rows, args.genes, args.depth)
    ranked_tokens(counts[:10], tokens, medians)  # compile before the clock starts
    print(processor())
    found = compare(
        f"rank tokens, {args.rows} rows x {args.genes} genes, {counts.nnz / args.rows:.0f} genes in a row",
        {name: lambda method=method: method(counts, tokens, medians) for name, method in METHODS.items()},
        items=args.rows,
        unit="rows",
        repeats=args.repeats,
        rows_file=args.rows_file,
    )
    for name in list(METHODS)[1:]:
        same = np.mean([np.array_equal(a, b) for a, b in zip(found[name], found[OURS], strict=True)])
        print(f"  same tokens as {name}: {same:.4f} of the rows")


if __name__ == "__main__":
    main()
