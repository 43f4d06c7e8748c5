"""Groups have one name, however their column is stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from spatialwhisperer._access.table.groups import by_group, group_name, group_names, known_labels, names_in_order


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([1, 2]),
        pd.Series([1.0, 2.0]),
        pd.Series([1.0, 2.0], dtype="category"),
        pd.Series([1, 2], dtype="Int64"),
        pd.Series([np.float32(1), 2], dtype=object),
        ["1", "2"],
    ],
)
def test_a_whole_number_has_one_name(values: Any) -> None:
    assert group_names(values).tolist() == ["1", "2"]


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([1.0, np.nan]),
        pd.Series([1, None], dtype="Int64"),
        pd.Series(["1", None], dtype="category"),
        pd.Series([1.0, np.nan], dtype="category"),
        pd.Series(["1", None], dtype="string"),
        pd.Series(["1", np.nan], dtype=object),
    ],
)
def test_a_missing_value_is_no_group(values: Any) -> None:
    assert group_names(values).tolist() == ["1", None]


def test_other_values_are_named_as_they_are() -> None:
    assert group_names(pd.Series([True, False])).tolist() == ["True", "False"]
    assert [group_name(v) for v in (1.5, np.inf, "1.0", np.bool_(True))] == ["1.5", "inf", "1.0", "True"]
    assert group_names(pd.Series([], dtype=float)).tolist() == []


def test_labels_to_ignore_are_named_in_any_form() -> None:
    labels = group_names(pd.Series([1, np.nan, 2]))
    each: list[Any] = [[1], ["1"], [1.0]]
    for ignore in each:
        assert known_labels(labels, ignore).tolist() == [None, None, "2"]
    assert known_labels(labels, ["1.0"]).tolist() == known_labels(labels, []).tolist() == ["1", None, "2"]
    with pytest.raises(TypeError, match="ignore must be a list of labels, not the string '1'"):
        known_labels(labels, "1")


def test_names_stand_in_the_order_of_the_categories_then_of_the_alphabet() -> None:
    columns: list[Any] = [pd.Series([2.0, 1.0], dtype=pd.CategoricalDtype([3.0, 2.0, 1.0])), pd.Series(["b", "a"])]
    assert names_in_order(["1", "b", None, "2", "a", "1"], columns) == ["2", "1", "a", "b"]


def test_keys_of_a_caller_are_names_of_groups() -> None:
    assert by_group("mpp", {1: 0.5, 2.0: 0.4, np.int64(3): 0.3, "a": 0.2}) == {"1": 0.5, "2": 0.4, "3": 0.3, "a": 0.2}
    with pytest.raises(ValueError, match=r"mpp names a section twice \(found: 1, '1'\); keep one of its keys"):
        by_group("mpp", {1: 0.5, "1": 0.4})
