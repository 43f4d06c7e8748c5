"""Rows per CPU second of Geneformer's rank-value tokens: ours, and a sort of one row at a time as published.

usage: python benchmarks/rank_tokens.py [--rows 20000] [--genes 20000] [--depth 700] [--rounds 5]

Counts are simulated: genes of very different abundance, rows of different depth, and medians spread as those of Geneformer's genes.
"rows of a sparse matrix" scales the whole matrix and then takes and sorts row after row, as the published tokenizer does; "slices" sorts
slices of the arrays instead. Both sort with NumPy, stably, so that all three give the same tokens, which is checked. All are run in turn
in one process, several rounds, and the best round of each counts. Time is that of the processor, over all threads.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

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
    "spatialwhisperer": ranked_tokens,
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--depth", type=int, default=700, help="median total of a row")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    counts, tokens, medians = make(args.rows, args.genes, args.depth)
    ranked_tokens(counts[:10], tokens, medians)  # compile before the clock starts
    best = dict.fromkeys(METHODS, 0.0)
    results = {}
    for _ in range(args.rounds):
        for name, method in METHODS.items():
            start = time.process_time()
            results[name] = method(counts, tokens, medians)
            best[name] = max(best[name], args.rows / (time.process_time() - start))
    print(f"numpy {np.__version__}, {os.cpu_count()} cores")
    print(f"{args.rows} rows x {args.genes} genes, {counts.nnz / args.rows:.0f} genes in a row")
    for name, value in best.items():
        same = np.mean([np.array_equal(a, b) for a, b in zip(results[name], results["spatialwhisperer"], strict=True)])
        ratio = best["spatialwhisperer"] / value
        print(f"  {name:24s} {value:8.0f} rows/CPU s   ours is {ratio:5.1f} x   same tokens in {same:.4f} of the rows")


if __name__ == "__main__":
    main()
