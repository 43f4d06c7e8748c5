"""AUROC of every class and Pearson correlation of every gene: ours, and one class or gene after the other as published.

usage: python benchmarks/metrics.py [--cells 200000] [--classes 16] [--spots 5000] [--genes 2000] [--repeats 5]

The peer of the AUROC is scikit-learn's roc_auc_score by class. The peers of the correlation are np.corrcoef by gene, and
scipy.stats.pearsonr by gene as in the HEST benchmark. The scores have ties. Results are compared with each other.
"""

from __future__ import annotations

import numpy as np
from _measure import OURS, arguments, compare, processor
from scipy.stats import pearsonr
from sklearn.metrics import roc_auc_score

from spatialwhisperer.statistics.expression.metrics import pearson_per_gene
from spatialwhisperer.statistics.intervals.auroc import aurocs


def main() -> None:
    args = arguments(__doc__, cells=200_000, classes=16, spots=5_000, genes=2_000, repeats=5)
    rng = np.random.default_rng(0)
    print(processor())
    codes = rng.integers(0, args.classes, args.cells)
    scores = rng.standard_normal((args.cells, args.classes), dtype=np.float32)
    scores[np.arange(args.cells), codes] += 1
    scores = scores.round(4)
    found = compare(
        f"AUROC, {args.cells} cells x {args.classes} classes",
        {
            OURS: lambda: aurocs(scores, codes),
            "scikit-learn by class": lambda: [roc_auc_score(codes == c, scores[:, c]) for c in range(args.classes)],
        },
        items=args.classes,
        unit="classes",
        repeats=args.repeats,
        rows_file=args.rows_file,
    )
    print(f"  apart: {np.abs(found[OURS] - found['scikit-learn by class']).max():.1e}")
    truth, predicted = (rng.random((args.spots, args.genes), dtype=np.float32) for _ in range(2))
    predicted += truth
    pearson_per_gene(truth[:100], predicted[:100])
    found = compare(
        f"Pearson, {args.spots} spots x {args.genes} genes",
        {
            OURS: lambda: pearson_per_gene(truth, predicted),
            "np.corrcoef by gene": lambda: [np.corrcoef(truth[:, g], predicted[:, g])[0, 1] for g in range(args.genes)],
            "scipy by gene (HEST)": lambda: [pearsonr(truth[:, g], predicted[:, g])[0] for g in range(args.genes)],
        },
        items=args.genes,
        unit="genes",
        repeats=args.repeats,
        rows_file=args.rows_file,
    )
    print(f"  apart: {np.abs(found[OURS] - found['np.corrcoef by gene']).max():.1e}")


if __name__ == "__main__":
    main()
