from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from spatialwhisperer.datasets._sections.spots import array_obs, selected, whole_numbers


def test_counts_may_be_stored_as_floats_but_are_whole() -> None:
    matrix = whole_numbers(pd.DataFrame([[0.0, 2.0], [1.0, 0.0]]), Path("x.tsv"))
    assert matrix.dtype == np.int32
    assert matrix.toarray().tolist() == [[0, 2], [1, 0]]
    for wrong in ([[0.5]], [[-1]], [["a"]], [[np.nan]]):
        with pytest.raises(ValueError, match="x.tsv must hold counts"):
            whole_numbers(pd.DataFrame(wrong), Path("x.tsv"))


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix, sp.coo_matrix])
def test_sparse_counts_are_whole_too(kind: Any) -> None:
    matrix = whole_numbers(kind(np.array([[0.0, 2.0], [1.0, 0.0]])), Path("x.h5"))
    assert matrix.dtype == np.int32
    assert matrix.toarray().tolist() == [[0, 2], [1, 0]]
    for wrong in (0.693, -1.0, np.nan):
        with pytest.raises(ValueError, match="x.h5 must hold counts"):
            whole_numbers(kind(np.array([[wrong, 0.0]])), Path("x.h5"))


def test_spots_are_named_by_their_indices() -> None:
    spots = pd.DataFrame({"x": [3.0, 4.0], "y": [7, 8], "selected": [1, 0]})
    one = selected(spots)
    assert list(one.index) == ["3x7"]
    obs = array_obs("S", "P", one, whole_numbers(pd.DataFrame([[2, 0, 1]]), Path("x")))
    assert obs.loc["S_3x7"].to_dict() == {
        "array_row": 7, "array_col": 3, "section": "S", "patient": "P", "total_counts": 3, "n_genes": 2
    }  # fmt: skip
