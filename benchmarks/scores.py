"""Cells per second of zero-shot scores, probabilities and labels: ours, and whole matrices one after the other.

usage: python benchmarks/scores.py [--cells 20000] [--terms 2000] [--dim 512] [--repeats 5]

"whole softmax" is what the published CellWhisperer computes: all logits, their softmax, its maximum or its five largest values, each as
a whole matrix in torch. "one product" computes the cosines and nothing else: no exact scores take less. Scores and probabilities are the
output of all but the last, and count in the memory of each: 2 matrices of cells by terms in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from _measure import OURS, arguments, compare, processor

from spatialwhisperer.tl._annotation.scoring import Correction, best_labels, score_rows, top_codes

if TYPE_CHECKING:
    from collections.abc import Callable

TEMPERATURE = 0.05
K = 5


def ours(z: np.ndarray, text: np.ndarray, labels: Callable[[np.ndarray], Any]) -> tuple[Any, ...]:
    correction = Correction("none", None, None, TEMPERATURE, False)
    scores, probability = score_rows(z, text, sections=np.zeros(len(z), int), correction=correction)
    return scores, probability, labels(probability)


def whole_softmax(z: np.ndarray, text: np.ndarray, labels: Callable[[torch.Tensor], Any]) -> tuple[Any, ...]:
    scores = torch.from_numpy(z) @ torch.from_numpy(text).T
    probability = torch.softmax(scores / TEMPERATURE, dim=1)
    return scores.numpy(), probability.numpy(), labels(probability)


def main() -> None:
    args = arguments(__doc__, cells=20_000, terms=2_000, dim=512, repeats=5)
    rng = np.random.default_rng(0)
    z, text = (rng.standard_normal((n, args.dim), dtype=np.float32) for n in (args.cells, args.terms))
    for x in (z, text):
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    kinds: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
        "scores and best label": (best_labels, lambda p: p.max(dim=1)),
        f"scores and {K} best labels": (lambda p: top_codes(p, K), lambda p: p.topk(K, dim=1).indices),
    }
    print(processor())
    for name, (labels, theirs) in kinds.items():
        methods: dict[str, Callable[[], Any]] = {
            OURS: lambda labels=labels: ours(z, text, labels),
            "whole softmax": lambda theirs=theirs: whole_softmax(z, text, theirs),
            "one product": lambda: z @ text.T,
        }
        path = f"{name}, {args.cells} cells x {args.terms} terms x {args.dim}"
        found = compare(path, methods, items=args.cells, unit="cells", repeats=args.repeats, rows_file=args.rows_file)
        apart = np.abs(found[OURS][1] - found["whole softmax"][1]).max()
        print(f"  probabilities apart: {apart:.1e}")
    print(f"  output: {2 * args.cells * args.terms * 4 / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
