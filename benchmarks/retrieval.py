"""Queries per second of expression by retrieval: ours, one query at a time as published, and scikit-learn's search.

usage: python benchmarks/retrieval.py [--queries 1000] [--bank 50000] [--dim 256] [--genes 1000] [--k 50]
       python benchmarks/retrieval.py --bank 200000 --dim 512

Ours gives mean and standard deviation over the neighbours; the others give the mean alone. The loop does what BLEEP does:
the whole similarity matrix, its top k, then for each query the mean of its rows. All are run in turn, several
rounds, and the best round counts. Memory is what the process holds at most beyond what it held before, each in a
process of its own (Linux).
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np
import sklearn
import torch
from sklearn.neighbors import NearestNeighbors

from spatialwhisperer.models import Retrieval
from spatialwhisperer.retrieval.retrieval import retrieve_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    Method = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]


def ours(queries: np.ndarray, keys: np.ndarray, values: np.ndarray, k: int) -> np.ndarray:
    return retrieve_mean(queries, keys, values, retrieval=Retrieval(k=k), device="cpu")[0]


def loop(queries: np.ndarray, keys: np.ndarray, values: np.ndarray, k: int) -> np.ndarray:
    left, right = (torch.nn.functional.normalize(torch.from_numpy(x), dim=1) for x in (queries, keys))
    nearest = (left @ right.T).topk(k, dim=1).indices.numpy()
    out = np.zeros((len(queries), values.shape[1]), dtype=np.float32)
    for i, rows in enumerate(nearest):
        out[i] = np.mean(values[rows], axis=0)
    return out


def scikit_learn(queries: np.ndarray, keys: np.ndarray, values: np.ndarray, k: int) -> np.ndarray:
    search = NearestNeighbors(n_neighbors=k, algorithm="brute", metric="cosine").fit(keys)
    nearest = search.kneighbors(queries, return_distance=False)
    return np.stack([values[rows].mean(axis=0) for rows in nearest])


METHODS: dict[str, Method] = {"spatialwhisperer": ours, "loop over queries": loop, "scikit-learn brute": scikit_learn}


def make(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    queries, keys = (rng.standard_normal((n, args.dim), dtype=np.float32) for n in (args.queries, args.bank))
    return queries, keys, rng.random((args.bank, args.genes), dtype=np.float32)


def peak_mib(name: str, args: argparse.Namespace) -> float:
    parts = make(args)
    # what the libraries load on first use is not part of the method
    METHODS[name](parts[0][:64], parts[1][:1000], parts[2][:1000], args.k)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    METHODS[name](*parts, args.k)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--bank", type=int, default=50_000, help="rows of the bank")
    parser.add_argument("--dim", type=int, default=256, help="dimensions of the embeddings")
    parser.add_argument("--genes", type=int, default=1000)
    parser.add_argument("--k", type=int, default=50, help="neighbours of a query")
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args()
    print(
        f"numpy {np.__version__}, torch {torch.__version__}, scikit-learn {sklearn.__version__}, {os.cpu_count()} cores"
    )
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peaks = {name: pool.apply(peak_mib, (name, args)) for name in METHODS}
    parts = make(args)
    best = dict.fromkeys(METHODS, 0.0)
    results = {}
    for _ in range(args.rounds):
        for name, method in METHODS.items():
            start = time.perf_counter()
            results[name] = method(*parts, args.k)
            best[name] = max(best[name], args.queries / (time.perf_counter() - start))
    print(f"{args.queries} queries, bank {args.bank} x {args.dim}, {args.genes} genes, k = {args.k}")
    for name, value in best.items():
        apart = np.abs(results[name] - results["spatialwhisperer"]).max(axis=1)
        print(
            f"  {name:20s} {value:8.0f} queries/s   ours is {best['spatialwhisperer'] / value:5.2f} x   "
            f"{peaks[name]:6.0f} MiB   same mean for {np.mean(apart < 1e-5):.4f} of the queries"
        )


if __name__ == "__main__":
    main()
