"""Search through cosines in bfloat16 beside a search in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spatialwhisperer._compute import blocks as parallel
from spatialwhisperer.retrieval import sieve
from spatialwhisperer.retrieval.kernels import rounding
from spatialwhisperer.retrieval.retrieval import impute, retrieve
from spatialwhisperer.retrieval.sieve import Sieve
from spatialwhisperer.retrieval.vectors import Vectors

N = 6


def vectors(kind: str, rows: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 16)).astype(np.float32)
    if kind == "clustered":
        # all cosines are within the rounding of bfloat16
        x = np.ones(16, np.float32) + np.float32(0.01) * x
    elif kind == "opposed":
        x = np.abs(x) * (1 if seed else -1)
    elif kind == "ties":
        x = np.sign(x)
    elif kind == "orthogonal":
        # large terms cancel, so that the rounding of bfloat16 is as large as the cosines
        basis = np.linalg.qr(np.random.default_rng(7).normal(size=(16, 16)))[0]
        x[:, 4:] *= 1 if seed else 0
        x[:, :4] *= 1e-3 if seed else 1
        x = (x @ basis).astype(np.float32)
    return x


@pytest.mark.parametrize("kind", ["random", "clustered", "opposed", "ties", "orthogonal"])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(("block_rows", "threads"), [(50, 1), (170, 2), (10_000, 3)])
def test_a_rough_look_misses_no_key(
    kind: str, grouped: bool, block_rows: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sieve, "_ROWS_OF_EACH", 8)
    if kind == "orthogonal":
        # rough cosines are used although they tell little apart
        monkeypatch.setattr(sieve, "MANY", 1.0)
    monkeypatch.setattr(parallel, "cores", lambda: threads)
    asks, bank = Vectors(vectors(kind, 70, 0)), Vectors(vectors(kind, 1500, 1))
    if grouped:
        asks.group, bank.group = np.arange(70) % 3, np.arange(1500) % 5
    left, right = (v.vectors.astype(np.float64) / v.length[:, None] for v in (asks, bank))
    cosine = left @ right.T
    if asks.group is not None and bank.group is not None:
        cosine[asks.group[:, None] == bank.group] = -np.inf
    nearest = -np.sort(-cosine, axis=1)[:, :N]
    for rough in (True, False):
        index, allowed = Sieve(asks, asks.rows, bank, N, rough=rough).search(block_rows)
        assert allowed.all()
        assert all(len(set(row)) == N for row in index.tolist())
        found = -np.sort(-np.take_along_axis(cosine, index, 1), axis=1)
        assert np.allclose(found, nearest, rtol=0, atol=5e-7)


@pytest.mark.parametrize("kind", ["random", "clustered", "ties"])
def test_the_processor_changes_no_answer(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sieve, "_ROWS_OF_EACH", 1)
    queries, keys, answers = vectors(kind, 40, 2), vectors(kind, 3000, 3), []
    for units in (True, False):
        monkeypatch.setattr(sieve, "processor_has_bfloat16", lambda units=units: units)
        answers += [retrieve(queries, keys, k=9, block_rows=rows, device="cpu") for rows in (200, 8192)]
    for other in answers[1:]:
        assert np.array_equal(other.index, answers[0].index)
        assert np.array_equal(other.similarity, answers[0].similarity)
        assert np.array_equal(other.weight, answers[0].weight)


def test_rough_cosines_are_within_the_slack() -> None:
    """The bound that decides which keys are looked at again."""
    left, right = (Vectors(vectors("random", 200, seed)).unit(np.arange(200)) for seed in (4, 5))
    halves = [torch.from_numpy(x).bfloat16() for x in (left, right)]
    error = [np.empty(200, np.float32) for _ in range(2)]
    for x, half, out in zip((left, right), halves, error, strict=True):
        rounding(x, half.view(torch.int16).numpy(), out)
        assert np.allclose(out, np.linalg.norm(x - half.float().numpy(), axis=1), rtol=1e-4)
    rough = (halves[0] @ halves[1].T).double().numpy()
    exact = left.astype(np.float64) @ right.T.astype(np.float64)
    slack = error[0][:, None] + 1.01 * error[1][None] + float(sieve._SUM)
    assert (np.abs(rough - exact) <= slack + np.abs(rough) / 256).all()


def test_integers_have_the_order_of_the_numbers() -> None:
    rng = np.random.default_rng(6)
    values = np.r_[0.0, -0.0, 1.0, -1.0, rng.normal(size=500), 1e-6 * rng.normal(size=50)].astype(np.float32)
    half = torch.from_numpy(values).bfloat16()
    bits = half.view(torch.int16).numpy()
    ordered, below = bits ^ ((bits >> 15) & 0x7FFF), sieve._ordered_below(values)
    higher = half.float().numpy()[None, :] > values[:, None]
    assert (ordered[None, :] > below[:, None])[higher].all()


@pytest.mark.parametrize("kind", ["dense", "float64", "integers", "columns", "sparse", "duplicates"])
@pytest.mark.parametrize("threads", [1, 3])
def test_averages_are_those_of_float64(kind: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import scipy.sparse as sp

    monkeypatch.setattr(parallel, "cores", lambda: threads)
    rng = np.random.default_rng(7)
    dense = rng.poisson(0.7, (300, 21)).astype(np.float32)
    near = retrieve(vectors("random", 33, 8), vectors("random", 300, 9), k=5, weights="softmax", device="cpu")
    kinds = {
        "dense": dense,
        "float64": dense.astype(np.float64),
        "integers": dense.astype(np.int64),
        "columns": np.asfortranarray(dense),
        "sparse": sp.csr_matrix(dense),
    }
    if kind == "duplicates":
        halves = [sp.coo_matrix(dense * part) for part in (0.25, 0.75)]
        stacked = [np.concatenate([getattr(h, name) for h in halves]) for name in ("data", "row", "col")]
        order = np.argsort(stacked[1], kind="stable")
        pointer = np.r_[0, np.bincount(stacked[1], minlength=300).cumsum()]
        kinds[kind] = sp.csr_matrix((stacked[0][order], stacked[2][order], pointer), shape=dense.shape)
    weight = near.weight.astype(np.float64) / near.weight.astype(np.float64).sum(axis=1, keepdims=True)
    of_neighbours = dense.astype(np.float64)[near.index]
    mean = (weight[:, :, None] * of_neighbours).sum(axis=1)
    std = np.sqrt((weight[:, :, None] * (of_neighbours - mean[:, None]) ** 2).sum(axis=1))
    found = impute(near, kinds[kind])
    assert np.allclose(found[0], mean, atol=1e-6)
    assert np.allclose(found[1], std, atol=1e-5)
