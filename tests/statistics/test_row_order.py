"""An order of rows by what they hold."""

from __future__ import annotations

import numpy as np

from spatialwhisperer.statistics.row_order import row_order


def test_shuffled_rows_come_into_the_same_order() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3)).astype(np.float32)
    x[10] = x[20]
    shuffled = x[rng.permutation(50)]
    assert (x[row_order(x)] == shuffled[row_order(shuffled)]).all()
    assert sorted(row_order(x).tolist()) == list(range(50))


def test_equal_rows_stay_as_they_are() -> None:
    # the two zeros are equal, and have other bytes
    assert row_order(np.array([[0.0], [-0.0], [0.0]])).tolist() == [0, 1, 2]
    assert row_order(np.ones((4, 2))[:, ::2]).tolist() == [0, 1, 2, 3]


def test_rows_without_columns_and_no_rows_have_an_order() -> None:
    assert row_order(np.ones((3, 0))).tolist() == [0, 1, 2]
    assert row_order(np.ones((0, 2))).tolist() == []
