from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from spatialwhisperer.retrieval.retrieval import Neighbours, impute, retrieve, retrieve_mean
from spatialwhisperer.retrieval.rule import Retrieval
from spatialwhisperer.retrieval.weights import WEIGHTS

# the four pairs of three numbers on which the code of the peers was run
B, K = np.arange(4)[:, None], np.arange(3)[None, :]
IMAGE, GENE = np.sin(1 + 3 * B + K), 0.5 * np.cos(2 * B + 0.5 * K)

Q, M, D, G = 23, 157, 9, 12


@pytest.fixture(scope="module")
def parts() -> tuple[np.ndarray, np.ndarray, sp.csr_matrix]:
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(Q, D)) + 0.4, rng.normal(size=(M, D)) + 0.4
    return queries, keys, sp.random(M, G, density=0.4, format="csr", random_state=1)


def oracle(q: np.ndarray, keys: np.ndarray, k: int, weights: str, t: float = 0.1, allowed: Any = None) -> Any:
    """One query, written out; the columns of the bank in the order of the answer, and their weights."""
    cosine = np.array([q @ key / np.linalg.norm(q) / np.linalg.norm(key) for key in keys])
    rows = [j for j in np.argsort(-cosine, kind="stable") if allowed is None or allowed[j]][:k]
    l1, l2 = (np.array([np.linalg.norm(keys[j] - q, p) for j in rows]) for p in (1, 2))
    c = cosine[rows]
    w = {
        "uniform": np.ones(len(rows)),
        "inv_sq_l1": 1 / l1**2,
        "inv_sq_l2": 1 / l2**2,
        "exp_gap": np.exp(-(l2**2 - l2[0] ** 2 + 1)),
        "softmax": np.exp(c / t),
        "raw_cosine": c,
        "clipped_cosine": np.maximum(c, 1e-9),
    }[weights]
    return rows, w / w.sum(), c


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("inv_sq_l1", [0.467625, 0.046146, 0.086836, 0.399393]),
        ("inv_sq_l2", [0.447655, 0.049272, 0.066298, 0.436776]),
        ("exp_gap", [0.459116, 0.026101, 0.059705, 0.455078]),
        ("raw_cosine", [2.418415, -1.840661, -1.911371, 2.333617]),
    ],
)
def test_weights_are_those_of_the_published_code(weights: str, expected: list[float]) -> None:
    """Cosines and weights of the peers' own code, over k neighbours and over the whole bank."""
    near = retrieve(IMAGE[:1], GENE, k=4, weights=weights)
    back = np.argsort(near.index[0])
    assert near.similarity[0, back] == pytest.approx([0.958188, -0.729279, -0.757294, 0.924590], abs=1e-6)
    assert near.weight[0, back] == pytest.approx(expected, abs=2e-6)
    mean, _ = retrieve_mean(IMAGE[:1], GENE, np.eye(4), retrieval=Retrieval(k=None, weights=weights))
    assert mean[0] == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("k", [1, 7, M])
def test_it_equals_a_naive_search_in_float64(weights: str, k: int, parts: Any) -> None:
    queries, keys, values = parts
    near = retrieve(queries, keys, k=k, weights=weights, block_rows=40)
    mean, std = impute(near, values)
    dense = values.toarray()
    for i in range(Q):
        rows, w, cosine = oracle(queries[i], keys, k, weights)
        assert near.index[i].tolist() == rows
        np.testing.assert_allclose(near.weight[i], w, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(near.similarity[i], cosine, atol=1e-6)
        np.testing.assert_allclose(mean[i], w @ dense[rows], rtol=1e-5, atol=1e-6)
        variance = w @ np.square(dense[rows]) - np.square(w @ dense[rows])
        np.testing.assert_allclose(std[i], np.sqrt(np.maximum(variance, 0)), rtol=1e-4, atol=2e-5)
    assert (near.index.dtype, near.weight.dtype, near.similarity.dtype) == (np.int64, np.float32, np.float32)
    assert mean.dtype == std.dtype == np.float32


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("grouped", [False, True])
def test_the_whole_bank_equals_k_of_its_size(weights: str, grouped: bool, parts: Any) -> None:
    queries, keys, values = parts
    where: dict[str, Any] = (
        {"query_group": np.arange(Q) % 2, "key_group": (np.arange(M) < 80).astype(int)} if grouped else {}
    )
    some: dict[str, Any] = {"k": None, "weights": weights, "temperature": 0.01}
    mean, std = retrieve_mean(queries, keys, values, retrieval=Retrieval(**some), block_rows=31, **where)
    if not grouped:
        all_of_it = impute(retrieve(queries, keys, **some | {"k": M}), values)
        np.testing.assert_allclose(mean, all_of_it[0], rtol=1e-5, atol=1e-5)
        # signed weights cancel, and the square root magnifies what their rounding leaves
        np.testing.assert_allclose(std, all_of_it[1], atol=5e-3 if weights == "raw_cosine" else 1e-5)
    for i in range(Q):
        allowed = where["key_group"] != i % 2 if grouped else None
        rows, w, _ = oracle(queries[i], keys, M, weights, 0.01, allowed)
        np.testing.assert_allclose(mean[i], w @ values.toarray()[rows], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("block_rows", [1, 13, 64, 100_000])
def test_block_size_changes_nothing(block_rows: int, parts: Any) -> None:
    queries, keys, values = parts
    keys = np.vstack([keys, keys[::-1], keys[:50]])
    one, other = (retrieve(queries, keys, k=40, weights="softmax", block_rows=b) for b in (block_rows, 57))
    for field in ("index", "weight", "similarity"):
        assert np.array_equal(getattr(one, field), getattr(other, field))
    values = sp.vstack([values, values[::-1], values[:50]])
    whole = [
        retrieve_mean(queries, keys, values, retrieval=Retrieval(k=None, weights="softmax"), block_rows=b)
        for b in (block_rows, 57)
    ]
    np.testing.assert_allclose(whole[0], whole[1], rtol=1e-5, atol=1e-6)


def test_copies_of_a_key_come_in_the_order_of_the_bank(parts: Any) -> None:
    queries, keys, _ = parts
    near = retrieve(queries, np.tile(keys[:5], (6, 1)), k=9, block_rows=7)
    best = np.argmax(queries @ (keys[:5] / np.linalg.norm(keys[:5], axis=1, keepdims=True)).T, axis=1)
    assert np.array_equal(near.index[:, :6], best[:, None] + 5 * np.arange(6))


@pytest.mark.parametrize("block_rows", [1, 50, 700, 10_000])
def test_many_copies_of_a_key_come_in_the_order_of_the_bank(block_rows: int) -> None:
    """More copies than candidates, in 256 dimensions, where rounding of a product depends on its shape."""
    rng = np.random.default_rng(0)
    keys = np.repeat(rng.normal(size=(3, 256)), 300, axis=0)[rng.permutation(900)].astype(np.float32)
    queries = rng.normal(size=(6, 256)).astype(np.float32)
    best = np.argmax(queries @ keys.T, axis=1)
    group = np.arange(900) % 2
    near = retrieve(queries, keys, k=20, block_rows=block_rows)
    grouped = retrieve(queries, keys, k=20, block_rows=block_rows, query_group=[0] * 6, key_group=group)
    for i in range(6):
        copies = (keys == keys[best[i]]).all(axis=1)
        assert near.index[i].tolist() == np.flatnonzero(copies)[:20].tolist()
        assert grouped.index[i].tolist() == np.flatnonzero(copies & (group == 1))[:20].tolist()


@pytest.mark.parametrize("block_rows", [40, 10_000])
def test_queries_with_equal_keys_are_searched_again_and_others_are_left_alone(block_rows: int) -> None:
    """Of the queries, every third has a hundred copies of its best key, more than candidates: the first copies of the bank are its own."""
    rng = np.random.default_rng(4)
    keys = rng.normal(size=(300, 24)).astype(np.float32)
    copies = np.sort(rng.permutation(300)[:100])
    keys[copies] = keys[copies[0]]
    queries = rng.normal(size=(9, 24)).astype(np.float32)
    queries[::3] = keys[copies[0]] + 0.1 * queries[::3]
    near = retrieve(queries, keys, k=7, weights="softmax", block_rows=block_rows)
    cosine = (queries.astype(float) @ keys.T) / np.outer(*(np.linalg.norm(z, axis=1) for z in (queries, keys)))
    for i, found in enumerate(near.index):
        expected = copies[:7] if i % 3 == 0 else np.argsort(-cosine[i], kind="stable")[:7]
        assert found.tolist() == expected.tolist(), i
        assert near.similarity[i] == pytest.approx(cosine[i][expected], abs=1e-6)
        weight = np.exp(cosine[i][expected] / 0.1)
        assert near.weight[i] == pytest.approx(weight / weight.sum(), rel=1e-4)


def test_answers_do_not_depend_on_the_other_queries(parts: Any) -> None:
    queries, keys, _ = parts
    together, alone = retrieve(queries, keys, k=11), retrieve(queries[4:5], keys, k=11)
    assert np.array_equal(together.index[4], alone.index[0])
    assert np.array_equal(together.similarity[4], alone.similarity[0])


@pytest.mark.parametrize("block_rows", [10, 1000])
def test_keys_of_the_own_group_are_never_used(block_rows: int, parts: Any) -> None:
    queries, keys, values = parts
    patients = np.array(["A", "B", "C"])
    ours, theirs = patients[np.arange(Q) % 3], patients[np.arange(M) % 3]
    # the best keys of all: copies of the queries, of their own patient
    keys = keys.copy()
    keys[[np.flatnonzero(theirs == own)[i] for i, own in enumerate(ours)]] = queries
    near = retrieve(queries, keys, k=20, query_group=ours, key_group=theirs, block_rows=block_rows)
    assert (theirs[near.index] != ours[:, None]).all()
    for i in range(Q):
        assert near.index[i].tolist() == oracle(queries[i], keys, 20, "uniform", allowed=theirs != ours[i])[0]
    groups: dict[str, Any] = {"query_group": ours, "key_group": theirs}
    mean, _ = retrieve_mean(queries, keys, values, retrieval=Retrieval(k=20), **groups)
    assert np.array_equal(mean, impute(near, values)[0])


def test_rows_without_direction_have_no_neighbours(parts: Any) -> None:
    queries, keys, values = (p.copy() for p in parts)
    queries[3], keys[5, 2], keys[8], keys[9, 0] = np.nan, np.nan, 0, np.inf
    near = retrieve(queries, keys, k=M - 3, weights="inv_sq_l2")
    assert not np.isin(near.index, [5, 8, 9]).any()
    assert (near.index[3] == -1).all()
    assert np.isnan(near.weight[3]).all()
    assert np.isnan(near.similarity[3]).all()
    for k in (10, None):
        mean, std = retrieve_mean(queries, keys, values, retrieval=Retrieval(k=k, weights="inv_sq_l2"))
        assert np.flatnonzero(np.isnan(mean).any(axis=1)).tolist() == [3]
        assert np.isnan(std[3]).all()
    with pytest.raises(ValueError, match="the bank has 154 usable rows"):
        retrieve(queries, keys, k=M - 2)


@pytest.mark.parametrize("weights", ["inv_sq_l1", "inv_sq_l2"])
def test_an_exact_copy_gets_all_the_weight_and_copies_divide_it(weights: str, parts: Any) -> None:
    queries, keys, _ = parts
    near = retrieve(queries, np.vstack([keys, queries]), k=5, weights=weights)
    assert np.array_equal(near.index[:, 0], M + np.arange(Q))
    assert np.isfinite(near.weight).all()
    np.testing.assert_allclose(near.weight[:, 0], 1, atol=1e-6)
    twice = retrieve(queries, np.vstack([queries, keys, queries]), k=5, weights=weights)
    np.testing.assert_allclose(twice.weight[:, :2], 0.5, atol=1e-6)


@pytest.mark.parametrize("weights", ["exp_gap", "softmax"])
def test_exponents_do_not_overflow(weights: str, parts: Any) -> None:
    queries, keys, values = parts
    for k in (6, None):
        retrieval = Retrieval(k=k, weights=weights, temperature=1e-5)
        mean, std = retrieve_mean(100 * queries, 100 * keys, values, retrieval=retrieval)
        assert np.isfinite(mean).all()
        assert np.isfinite(std).all()


@pytest.mark.slow
def test_input_of_any_type_gives_the_same(parts: Any) -> None:
    queries, keys, values = parts
    near = retrieve(queries.astype(np.float32), np.asfortranarray(keys.astype(np.float32)), k=8)
    want = impute(near, values)
    for same in (values.toarray(), values.tocsc(), sp.csr_array(values), values.astype(np.float64)):
        np.testing.assert_allclose(impute(near, same), want, rtol=1e-6)
    empty = retrieve(queries[:0], keys, k=8)
    assert empty.index.shape == (0, 8)
    assert impute(empty, values)[0].shape == (0, G)
    # of as many keys as there are neighbours, float16 included
    assert retrieve(queries.astype(np.float16), keys[:3].astype(np.float16), k=3).index.shape == (Q, 3)


def test_input_that_does_not_fit_is_refused(parts: Any) -> None:
    queries, keys, values = parts
    with pytest.raises(ValueError, match="k = 200 neighbours .* 157 usable rows .* Lower k to 157 or less"):
        retrieve(queries, keys, k=200)
    groups: dict[str, Any] = {"query_group": ["A"] * Q, "key_group": ["A"] * 150 + ["B"] * 7}
    with pytest.raises(ValueError, match="k = 8 .* 7 usable rows for the query whose own group is the largest"):
        retrieve(queries, keys, k=8, **groups)
    assert retrieve(queries, keys, k=7, **groups).index.min() == 150
    with pytest.raises(
        ValueError,
        match="all .* usable rows of the bank are of the section or patient of a query.*Train the model on further sections",
    ):
        retrieve_mean(queries, keys, values, retrieval=Retrieval(k=None), query_group=["A"] * Q, key_group=["A"] * M)
    with pytest.raises(ValueError, match="pass both, or neither"):
        retrieve(queries, keys, k=5, query_group=["A"] * Q)
    with pytest.raises(ValueError, match=r"key_group must name one group per row, shape \(157,\)"):
        retrieve(queries, keys, k=5, query_group=["A"] * Q, key_group=["B"])
    with pytest.raises(ValueError, match="query_group has 1 rows without a group"):
        retrieve(queries, keys, k=5, query_group=["A"] * (Q - 1) + [None], key_group=["B"] * M)
    with pytest.raises(ValueError, match="same number of columns"):
        retrieve(queries[:, :4], keys, k=5)
    with pytest.raises(ValueError, match="Unknown weights 'gauss'; choose one of uniform"):
        retrieve(queries, keys, k=5, weights="gauss")
    with pytest.raises(ValueError, match="block_rows must be at least 1"):
        retrieve(queries, keys, k=5, block_rows=0)
    with pytest.raises(ValueError, match=r"call retrieve_mean with Retrieval\(k=None\)"):
        retrieve(queries, keys, k=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="keys has 157 rows and values 10"):
        retrieve_mean(queries, keys, values[:10], retrieval=Retrieval(k=5))
    with pytest.raises(ValueError, match="values has 10 rows"):
        impute(retrieve(queries, keys, k=50), values[:10])
    with pytest.raises(ValueError, match="values must be a matrix"):
        impute(Neighbours(*[np.zeros((1, 1), int)] * 3), np.zeros(4))


MEMORY = """
import resource
import numpy as np
from spatialwhisperer.models import Retrieval
from spatialwhisperer.retrieval.retrieval import retrieve_mean
import torch

rng = np.random.default_rng(0)
bank = rng.random((200_000, 64), dtype=np.float32)
values = rng.random((200_000, 20), dtype=np.float32)
retrieve_mean(bank[:10], bank[:1000], values[:1000], retrieval=Retrieval(k=50))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for k, n in ((50, 1000), (None, 250)):
    retrieve_mean(bank[:n], bank, values, retrieval=Retrieval(k=k, weights="softmax"))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_memory_is_bounded() -> None:
    """All cosines of the first search would take 763 MiB in float32; of the second one, 381 MiB in float64."""
    out = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert float(out.stdout) < 300
