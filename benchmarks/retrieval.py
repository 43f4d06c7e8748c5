"""Queries per second of expression by retrieval: ours, one query at a time as published, faiss's flat index, and scikit-learn's search.

usage: python benchmarks/retrieval.py [--queries 1000] [--bank 50000] [--dim 512] [--genes 1000] [--k 50] [--repeats 3]
       python benchmarks/retrieval.py --bank 200000

Ours gives mean and standard deviation over the neighbours; the others give the mean alone. The loop does what BLEEP does: the whole
similarity matrix, its top k, then for each query the mean of its rows. faiss and scikit-learn search, and the same loop averages.
The last line compares the neighbours with those of a search in float64.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from _measure import OURS, arguments, compare, processor
from sklearn.neighbors import NearestNeighbors

from spatialwhisperer.models import Retrieval
from spatialwhisperer.retrieval.retrieval import retrieve, retrieve_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    Method = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]


def ours(queries: np.ndarray, keys: np.ndarray, values: np.ndarray, k: int) -> np.ndarray:
    return retrieve_mean(queries, keys, values, retrieval=Retrieval(k=k), device="cpu")[0]


def means(nearest: np.ndarray, values: np.ndarray) -> np.ndarray:
    out = np.zeros((len(nearest), values.shape[1]), dtype=np.float32)
    for i, rows in enumerate(nearest):
        out[i] = np.mean(values[rows], axis=0)
    return out


def loop(queries: np.ndarray, keys: np.ndarray, values: np.ndarray, k: int) -> np.ndarray:
    left, right = (torch.nn.functional.normalize(torch.from_numpy(x), dim=1) for x in (queries, keys))
    return means((left @ right.T).topk(k, dim=1).indices.numpy(), values)


def faiss_flat(queries: np.ndarray, keys: np.ndarray, values: np.ndarray, k: int) -> np.ndarray:
    import faiss

    left, right = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, keys))
    index = faiss.IndexFlatIP(right.shape[1])
    index.add(right)
    return means(index.search(left, k)[1], values)


def scikit_learn(queries: np.ndarray, keys: np.ndarray, values: np.ndarray, k: int) -> np.ndarray:
    search = NearestNeighbors(n_neighbors=k, algorithm="brute", metric="cosine").fit(keys)
    return means(search.kneighbors(queries, return_distance=False), values)


METHODS: dict[str, Method] = {OURS: ours, "BLEEP's loop": loop, "scikit-learn brute": scikit_learn}
if find_spec("faiss"):
    METHODS["faiss flat"] = faiss_flat


def recall(queries: np.ndarray, keys: np.ndarray, k: int) -> float:
    """Fraction of the nearest keys in float64 that ours finds, for the first queries."""
    few = queries[:100]
    left, right = (x.astype(np.float64) / np.linalg.norm(x, axis=1, keepdims=True) for x in (few, keys))
    nearest = np.argsort(-(left @ right.T), axis=1, kind="stable")[:, :k]
    found = retrieve(few, keys, k=k, device="cpu").index
    return float(np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(nearest, found, strict=True)]))


def main() -> None:
    args = arguments(__doc__, queries=1000, bank=50_000, dim=512, genes=1000, k=50, repeats=3)
    rng = np.random.default_rng(0)
    queries, keys = (rng.standard_normal((n, args.dim), dtype=np.float32) for n in (args.queries, args.bank))
    values = rng.random((args.bank, args.genes), dtype=np.float32)
    for method in METHODS.values():
        method(queries[:64], keys[:1000], values[:1000], args.k)
    print(processor())
    path = f"retrieval, {args.queries} queries x {args.bank} x {args.dim}, {args.genes} genes, k = {args.k}"
    methods: dict[str, Any] = {
        name: lambda method=method: method(queries, keys, values, args.k) for name, method in METHODS.items()
    }
    found = compare(path, methods, items=args.queries, unit="queries", repeats=args.repeats, rows_file=args.rows_file)
    for name in list(METHODS)[1:]:
        apart = np.abs(found[name] - found[OURS]).max(axis=1)
        print(f"  same mean as {name}: {np.mean(apart < 1e-5):.4f} of the queries")
    print(f"  recall beside a search in float64: {recall(queries, keys, args.k):.4f}")


if __name__ == "__main__":
    main()
