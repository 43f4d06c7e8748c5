"""Sentences per second of the most expressed genes: ours, and one dense row at a time.

usage: python benchmarks/gene_sentences.py [--rows 20000] [--genes 20000] [--depth 700] [--peer-rows 400] [--repeats 5]

"rows of a DataFrame" takes the 50 largest of each row of a dense table and joins their names, which is what the published Loki describes;
"sort of each row" does the same with NumPy. All give the same sentences, which is checked. They are slow, so they get the first
--peer-rows rows only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
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


def table_rows(counts: sp.csr_matrix, genes: np.ndarray) -> list[str]:
    table = pd.DataFrame(counts.toarray(), columns=genes)

    def sentence(row: pd.Series) -> str:
        best = row.nlargest(TOP)
        return " ".join(best.index[best > 0])

    return table.apply(sentence, axis=1).tolist()


def main() -> None:
    args = arguments(__doc__, rows=20_000, genes=20_000, depth=700, peer_rows=400, repeats=5)
    counts = make(args.rows, args.genes, args.depth)[0]
    names = [f"GENE{i}" for i in range(args.genes)]
    genes, few = np.array(names, object), counts[: args.peer_rows]
    gene_sentences(counts[:10], names, top=TOP)
    print(processor())
    found = compare(
        f"gene sentences, {args.rows} rows x {args.genes} genes, {counts.nnz / args.rows:.0f} genes in a row",
        {
            OURS: lambda: gene_sentences(counts, names, top=TOP),
            "rows of a DataFrame": lambda: table_rows(few, genes),
            "sort of each row": lambda: dense_rows(few, genes),
        },
        items={OURS: args.rows, "rows of a DataFrame": few.shape[0], "sort of each row": few.shape[0]},
        unit="sentences",
        repeats=args.repeats,
        rows_file=args.rows_file,
    )
    same = np.mean([len({*rows}) == 1 for rows in zip(*found.values(), strict=False)])
    print(f"  the same sentence in {same:.4f} of the rows")


if __name__ == "__main__":
    main()
