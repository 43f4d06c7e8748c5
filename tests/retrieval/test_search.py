from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from spatialwhisperer.retrieval.retrieval import retrieve
from spatialwhisperer.retrieval.search import check_bank, embeddings, groups, search, search_all
from spatialwhisperer.retrieval.vectors import Vectors

Q, M, D = 7, 90, 5


@pytest.fixture
def both() -> tuple[Vectors, Vectors]:
    rng = np.random.default_rng(0)
    return Vectors(rng.normal(size=(Q, D))), Vectors(rng.normal(size=(M, D)))


def naive(asks: Vectors, bank: Vectors) -> np.ndarray:
    """Cosines in float64; -inf for keys of the own group."""
    q, k = (v.vectors / np.linalg.norm(v.vectors, axis=1, keepdims=True) for v in (asks, bank))
    cosine = q @ k.T
    if asks.group is not None and bank.group is not None:
        cosine[asks.group[:, None] == bank.group[None]] = -np.inf
    return cosine


# ------------------------------------------------------------------------------------------------- the search


@pytest.mark.parametrize("block_rows", [1, 8, 1000])
@pytest.mark.parametrize("grouped", [False, True])
def test_the_best_keys_are_those_of_a_naive_search(
    both: tuple[Vectors, Vectors], block_rows: int, grouped: bool
) -> None:
    asks, bank = both
    if grouped:
        asks.group, bank.group = np.arange(Q) % 3, np.arange(M) % 3
    expected = np.argsort(-naive(asks, bank), axis=1)[:, :12]
    index, allowed = search(asks, asks.rows, bank, 12, block_rows, "cpu")
    assert np.array_equal(np.sort(index, axis=1), np.sort(expected, axis=1))
    assert allowed.all()
    index, allowed = search_all(asks, asks.rows, bank, 12, block_rows)
    assert np.array_equal(index, expected)
    assert allowed.all()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_default_type_of_torch_does_not_matter(kind: Any) -> None:
    """A bank above two blocks of 8192 rows: later blocks are compared with the best keys so far."""
    rng = np.random.default_rng(0)
    asks, bank = Vectors(rng.normal(size=(3, 4)).astype(kind)), Vectors(rng.normal(size=(20_000, 4)).astype(kind))
    expected = search(asks, asks.rows, bank, 5, 8192, "cpu")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        found = search(asks, asks.rows, bank, 5, 8192, "cpu")
        near = retrieve(asks.vectors, bank.vectors, k=5, device="cpu")
    finally:
        torch.set_default_dtype(before)
    assert np.array_equal(found[0], expected[0])
    assert found[1].all()
    assert np.array_equal(near.index, np.argsort(-naive(asks, bank), axis=1)[:, :5])


@pytest.mark.parametrize("exact", [False, True])
def test_keys_of_the_own_group_are_marked_where_there_are_too_few_others(
    both: tuple[Vectors, Vectors], exact: bool
) -> None:
    asks, bank = both
    asks.group, bank.group = np.zeros(Q, int), (np.arange(M) >= 80).astype(int)
    found = search_all(asks, asks.rows, bank, 15, 8) if exact else search(asks, asks.rows, bank, 15, 8, "cpu")
    index, allowed = found
    assert (allowed.sum(axis=1) == 10).all()
    assert (index[allowed] >= 80).all()


def test_the_exact_search_keeps_the_order_of_the_bank_among_equal_keys() -> None:
    bank = Vectors(np.tile(np.eye(2), (10, 1)))
    index, _ = search_all(Vectors(np.eye(2)), np.arange(2), bank, 6, 3)
    assert index.tolist() == [[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]]


# ------------------------------------------------------------------------------------------------- what is compared


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_only_finite_rows_of_positive_length_have_a_direction(kind: Any) -> None:
    x = np.array([[3, 4], [0, 0], [np.nan, 1], [np.inf, 1], [0, 2]], kind)
    vectors = Vectors(x)
    assert vectors.rows.tolist() == [0, 4]
    assert vectors.length[[0, 4]].tolist() == [5, 2]
    assert vectors.unit(vectors.rows) == pytest.approx(np.array([[0.6, 0.8], [0, 1]]))
    assert vectors.unit(vectors.rows).dtype == np.float32
    assert [block.tolist() for block in vectors.blocks(1)] == [[0], [4]]


def test_equal_groups_have_equal_codes() -> None:
    ours, theirs = groups(["b", "a"], pd.Series(["a", "c", "b"]), 2, 3)
    assert ours is not None
    assert theirs is not None
    assert (ours[:, None] == theirs[None]).tolist() == [[False, False, True], [True, False, False]]
    assert groups(None, None, 2, 3) == (None, None)


@pytest.mark.parametrize(
    ("query_group", "key_group", "message"),
    [
        (["a", "b"], None, "pass both, or neither"),
        (["a"], ["a", "b", "c"], r"query_group must name one group per row, shape \(2,\), not \(1,\)"),
        (["a", "b"], ["a", None, float("nan")], "key_group has 2 rows without a group"),
    ],
)
def test_groups_that_do_not_fit_are_refused(query_group: Any, key_group: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        groups(query_group, key_group, 2, 3)


def test_embeddings_need_as_many_columns() -> None:
    queries, keys = embeddings([[1, 2]], [[3, 4], [5, 6]])  # type: ignore[arg-type]
    assert (queries.shape, keys.shape) == ((1, 2), (2, 2))
    for wrong in (np.zeros(2), np.zeros((2, 3))):
        with pytest.raises(ValueError, match="same number of columns.*embed both with one model"):
            embeddings(np.zeros((1, 2)), wrong)


def test_k_is_at_most_the_number_of_usable_keys(both: tuple[Vectors, Vectors]) -> None:
    asks, bank = both
    check_bank(M, asks, bank)
    with pytest.raises(ValueError, match="the bank has 90 usable rows .90 in all.*Lower k to 90 or less"):
        check_bank(M + 1, asks, bank)
    asks.group, bank.group = np.zeros(Q, int), (np.arange(M) >= 80).astype(int)
    check_bank(10, asks, bank)
    with pytest.raises(ValueError, match="10 usable rows for the query whose own group is the largest"):
        check_bank(11, asks, bank)
