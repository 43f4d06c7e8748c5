"""Sentences per second of the most expressed genes: ours, and a sort of one dense row at a time as published.

usage: python benchmarks/gene_sentences.py [--rows 20000] [--genes 20000] [--depth 700] [--peer-rows 1000] [--repeats 5]

"one dense row at a time" sorts all genes of a row and joins the names of the first 50, which is the step of Loki; a stable sort gives the
same sentences, which is checked. It is slow, so it gets the first --peer-rows rows only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from _measure import OURS, arguments, compare, processor
from rank_tokens import make

from spatialwhisperer.encoders.gene.sentence import gene_sentences

if TYPE_CHECKING:
    import scipy.sparse as sp

TOP = 50


def dense_rows(counts: sp.csr_matrix, genes: np.ndarray) -> list[str]:
    out = []
    for i in range(counts.shape[0]):
        row = counts[i].toarray().ravel()
        order = np.argsort(-row, kind="stable")[:TOP]
        out.append(" ".join(genes[order[row[order] > 0]]))
    return out


def main() -> None:
    args = arguments(__doc__, rows=20_000, genes=20_000, depth=700, peer_rows=1_000, repeats=5)
    counts = make(args.rows, args.genes, args.depth)[0]
    names = [f"GENE{i}" for i in range(args.genes)]
    genes, few = np.array(names, object), counts[: args.peer_rows]
    gene_sentences(counts[:10], names, top=TOP)
    print(processor())
    found = compare(
        f"gene sentences, {args.rows} rows x {args.genes} genes, {counts.nnz / args.rows:.0f} genes in a row",
        {
            OURS: lambda: gene_sentences(counts, names, top=TOP),
            "one dense row at a time": lambda: dense_rows(few, genes),
        },
        items={OURS: args.rows, "one dense row at a time": few.shape[0]},
        unit="sentences",
        repeats=args.repeats,
        rows_file=args.rows_file,
    )
    same = np.mean([a == b for a, b in zip(*found.values(), strict=False)])
    print(f"  the same sentence in {same:.4f} of the rows")


if __name__ == "__main__":
    main()
