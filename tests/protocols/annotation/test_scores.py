from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.protocols.annotation.scores import aurocs


def test_unknown_spots_do_not_count() -> None:
    truth = pd.DataFrame({"a": pd.array([True, False, pd.NA, True], dtype="boolean")})
    scores = pd.DataFrame({"a": [2.0, 1.0, 9.0, np.nan]})
    assert aurocs(scores, truth)["auroc"].tolist() == [1.0]


def test_a_class_that_is_not_scored_is_left_out() -> None:
    truth = pd.DataFrame({name: pd.array([True, False], dtype="boolean") for name in "ab"})
    assert aurocs(pd.DataFrame({"b": [1.0, 0.0]}), truth)["class"].tolist() == ["b"]


def test_no_scores_are_refused() -> None:
    with pytest.raises(TypeError, match="inplace=False"):
        aurocs(None, pd.DataFrame())
