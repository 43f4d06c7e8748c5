"""Arrays that a caller passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from spatialwhisperer._arrays import numbers, one_for_each


def test_numbers_of_the_shape_pass() -> None:
    assert numbers("x", [[1, 2], [3, 4]], (None, 2)).shape == (2, 2)
    assert numbers("x", np.zeros((3, 4)), (3, None)).shape == (3, 4)
    assert numbers("x", 5).shape == ()


@pytest.mark.parametrize("value", ["a", {}, None, [[1], [1, 2]], np.array([1j]), np.array(["a"]), object()])
def test_what_holds_no_numbers_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="x must be an array of numbers"):
        numbers("x", value, (None,))


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x must be of shape \(n, 2\); found \(3, 3\)"):
        numbers("x", np.eye(3), (None, 2))


@pytest.mark.parametrize("value", [["a", "b"], np.array([1, 2]), pd.Series(["a", "b"]), pd.Categorical(["a", "b"])])
def test_one_for_each_row(value: Any) -> None:
    assert len(one_for_each("sections", value, 2)) == 2


@pytest.mark.parametrize("value", ["ab", 7, None, ["a"], np.array(2), np.eye(2), {"a": 1, "b": 2}])
def test_not_one_for_each_row(value: Any) -> None:
    with pytest.raises(ValueError, match="sections must name one for each of the 2 rows"):
        one_for_each("sections", value, 2)
