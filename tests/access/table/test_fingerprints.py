"""Rows that a model was trained on are recognised by a hash."""

from __future__ import annotations

import numpy as np
import pandas as pd

from spatialwhisperer._access.table.fingerprints import row_hash


def test_the_hash_of_rows_does_not_depend_on_their_order() -> None:
    def hashed(names: list[str], xy: list[list[float]] | None, inside: list[bool] | None = None) -> str:
        chosen = np.ones(len(names), bool) if inside is None else np.array(inside)
        return row_hash(pd.Index(names), None if xy is None else np.array(xy, float), chosen)

    here = hashed(["a", "b"], [[0, 1], [2, 3]])
    assert here == hashed(["b", "a"], [[2, 3], [0, 1]])
    assert here != hashed(["a", "c"], [[0, 1], [2, 3]])
    # another slide may number its spots alike
    assert here != hashed(["a", "b"], [[0, 1], [2, 4]])
    assert here == hashed(["x", "b", "a"], [[9, 9], [2, 3], [0, 1]], [False, True, True])
    assert hashed(["a", "b"], None) == hashed(["b", "a"], None)
