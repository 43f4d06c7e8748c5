"""The ground truth of rows, and the labels that are correct for them."""

from __future__ import annotations

import warnings
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer.tl.evaluation.rows.truth import (
    correct_labels,
    indistinct,
    judged,
    known_truth,
    label_sets,
    truth_of_each,
)


@pytest.fixture
def table() -> ad.AnnData:
    adata = ad.AnnData(np.zeros((3, 0), np.float32), obs=pd.DataFrame(index=["x", "y", "z"]))
    adata.obs["class"] = pd.Categorical(["b", None, "a"], categories=["a", "b", "none such"])
    return adata


# ------------------------------------------------------------------------------------------------- what is known


def test_a_column_states_presence(table: ad.AnnData) -> None:
    known = known_truth(table, "class")
    assert known.stated
    assert known.dominant.tolist() == ["b", None, "a"]
    # in the order of the categories, with those that no row has
    assert list(known.proportions) == ["a", "b", "none such"]
    assert known.proportions["a"].tolist()[::2] == [0, 1]
    assert known.proportions.iloc[1].isna().all()


@pytest.mark.parametrize("dtype", [float, object, "category", "Int64"])
def test_a_whole_number_is_one_class_beside_missing_values(table: ad.AnnData, dtype: Any) -> None:
    table.obs["code"] = pd.Series([2, None, 1], index=table.obs_names).astype(dtype)
    known = known_truth(table, "code")
    assert known.dominant.tolist() == ["2", None, "1"]
    assert set(known.proportions) == {"1", "2"}
    assert known.proportions["1"].tolist()[::2] == [0, 1]
    assert list(known_truth(table, pd.DataFrame({1.0: [0.0, 1, 1], 2.0: [1.0, 0, 0]})).proportions) == ["1", "2"]


def test_proportions_have_a_dominant_class_where_they_are_complete(table: ad.AnnData) -> None:
    table.obsm["mix"] = np.array([[0.2, 0.8], [np.nan, 1], [0.6, 0.4]])
    table.uns["mix"] = {"classes": ["a", "b"]}
    known = known_truth(table, "mix")
    assert not known.stated
    assert known.dominant.tolist() == ["b", None, "a"]
    frame = pd.DataFrame({"a": [True, pd.NA, False], "b": [False, True, True]}, dtype="boolean")
    assert known_truth(table, frame).stated
    assert known_truth(table, frame).dominant.tolist() == ["a", None, "b"]


@pytest.mark.parametrize("dtype", [float, int, bool])
def test_a_row_without_a_largest_class_has_none(dtype: type) -> None:
    values: Any = np.array([[0, 0, 1], [0, 0, 0], [1, 1, 0], [0, 1, 0]]).astype(dtype)
    table = ad.AnnData(np.zeros((4, 0), np.float32))
    for order in (["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a"]):
        truth = pd.DataFrame(values, columns=["a", "b", "c"])[order]
        assert known_truth(table, truth).dominant.tolist() == ["c", None, None, "b"]


def test_a_class_that_is_not_above_0_is_not_the_true_one(table: ad.AnnData) -> None:
    frame = pd.DataFrame({"a": [0.0, -1e-9, np.inf], "b": [-1e-7, 0.2, 0.0]})
    assert known_truth(table, frame).dominant.tolist() == [None, "b", None]


@pytest.mark.parametrize("dtype", [np.float32, np.float16, "Float64"])
def test_proportions_are_not_below_0(table: ad.AnnData, dtype: Any) -> None:
    frame = pd.DataFrame({"a": [0.5, np.nan, 1.0], "b": [-0.5, 0.2, -0.25]}).astype(dtype)
    with pytest.raises(
        ValueError, match=r"'b' of truth holds 2 negative values \(lowest -0\.5\).*: truth\.clip\(lower=0\)"
    ):
        known_truth(table, frame)
    assert known_truth(table, frame.clip(lower=0)).proportions["b"].tolist() == pytest.approx([0, 0.2, 0], abs=1e-4)


@pytest.mark.parametrize("dtype", [object, "category", "string"])
@pytest.mark.parametrize("missing", ["nan", "n/a"])
def test_missing_values_that_became_text_are_named(table: ad.AnnData, dtype: Any, missing: str) -> None:
    """They count as a class; the call in the message makes them unknown."""
    table.obs["read"] = pd.Series([missing, "a", ""], index=table.obs_names).astype(dtype)
    with pytest.warns(
        SpatialWhispererWarning, match=rf"2 rows of \.obs\['read'\] are of the class '{missing}', ''"
    ) as caught:
        assert known_truth(table, "read").dominant.tolist() == [missing, "a", ""]
    call = str(caught[0].message).split("unknown: ")[1].rstrip(".")
    exec(call, {"adata": table, "np": np})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert known_truth(table, "read").dominant.tolist() == [None, "a", None]


def test_rows_that_a_truth_does_not_name_are_unknown_after_the_call_of_the_message(table: ad.AnnData) -> None:
    some = pd.DataFrame({"a": [True, False], "b": [False, True]}, index=["z", "x"])
    with pytest.raises(
        ValueError, match=r"with NaN in the 1 that it does not name: truth\.reindex\(adata\.obs_names\)"
    ):
        known_truth(table, some)
    known = known_truth(table, some.reindex(table.obs_names))
    assert known.stated
    assert known.dominant.tolist() == ["b", None, "a"]


def test_rows_of_a_frame_are_found_by_their_names(table: ad.AnnData) -> None:
    frame = pd.DataFrame({"a": [0.1, 0.2, 0.3]}, index=["z", "x", "y"])
    assert known_truth(table, frame).proportions["a"].tolist() == [0.2, 0.3, 0.1]
    # without names they are in the order of the table
    assert known_truth(table, frame.reset_index(drop=True)).proportions["a"].tolist() == [0.1, 0.2, 0.3]
    numbered = ad.AnnData(np.zeros((3, 0), np.float32), obs=pd.DataFrame(index=["7", "8", "9"]))
    frame.index = pd.Index([9, 7, 8])
    assert known_truth(numbered, frame).proportions["a"].tolist() == [0.2, 0.3, 0.1]
    twice = ad.AnnData(np.zeros((3, 0), np.float32), obs=pd.DataFrame(index=["x", "x", "y"]))
    frame.index = pd.Index(["x", "x", "y"])
    assert known_truth(twice, frame).proportions["a"].tolist() == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("names", [["x", "y", "other"], ["x", "y", "y"], [1, 2, 3]])
def test_other_rows_are_refused(table: ad.AnnData, names: Any) -> None:
    with pytest.raises(ValueError, match=r"are not those of the table \(x, y, z\).*reset_index"):
        known_truth(table, pd.DataFrame({"a": [0.1, 0.2, 0.3]}, index=names))


def test_a_sparse_matrix_holds_proportions(table: ad.AnnData) -> None:
    table.obsm["mix"] = sp.csr_matrix([[0.2, 0.8], [0, 1], [0.6, 0.4]])
    table.uns["mix"] = {"classes": ["a", "b"]}
    assert known_truth(table, "mix").dominant.tolist() == ["b", "b", "a"]
    table.uns["mix"] = {"classes": ["a", "b", "c"]}
    with pytest.raises(ValueError, match=r"shape \(3, 2\) and .* 3 names"):
        known_truth(table, "mix")
    table.uns["mix"] = "no record"
    with pytest.raises(KeyError, match="without class names"):
        known_truth(table, "mix")


def test_each_object_has_a_truth_of_its_own() -> None:
    frame = pd.DataFrame({"a": [0.1, 0.2, 0.3]})
    assert truth_of_each("class", 2) == ["class", "class"]
    assert truth_of_each(frame, 1) == [frame]
    assert truth_of_each([frame, "class"], 2) == [frame, "class"]
    with pytest.raises(ValueError, match=r"one DataFrame for 2 objects. Pass a list"):
        truth_of_each(frame, 2)
    with pytest.raises(ValueError, match="lists 1 names or DataFrames for 2 objects"):
        truth_of_each([frame], 2)


@pytest.mark.parametrize(
    ("truth", "error", "message"),
    [
        (pd.DataFrame([[1, 2, 3]] * 3, columns=["a", "b", "a"]), ValueError, "Several columns of truth are named a."),
        (pd.DataFrame([[1, 2]] * 3, columns=[1, "1"]), ValueError, "Several columns of truth are named 1."),
        (pd.DataFrame(index=range(3)), ValueError, "truth has no columns"),
        (pd.DataFrame({"a": [1.0] * 3, "note": ["p", "q", "r"]}), TypeError, "column 'note' of truth must hold"),
        (pd.DataFrame({"day": pd.to_datetime(["2020-01-01"] * 3)}), TypeError, "column 'day' of truth must hold"),
        ("nowhere", KeyError, r"neither in \.obs \(found: class\) nor in \.obsm"),
        ("array", KeyError, "an array without class names"),
        (pd.DataFrame({"a": [1.0]}), ValueError, "truth has 1 rows, the table 3"),
        (["a", "b"], TypeError, "a name or a DataFrame, not list"),
    ],
)
def test_a_bad_truth_is_refused(table: ad.AnnData, truth: Any, error: Any, message: str) -> None:
    table.obsm["array"] = np.zeros((3, 2))
    with pytest.raises(error, match=message):
        known_truth(table, truth)


# ------------------------------------------------------------------------------------------------- which labels are correct


def test_a_class_may_have_several_labels_or_none() -> None:
    labels = ["tumour", "T", "B"]
    assert label_sets(["T", "fat"], labels, None) == {"T": ["T"]}
    mapping = {"immune": ["B", "T", "unknown"], "cancer": "tumour", "other": "T"}
    # labels in the order of the annotation
    assert label_sets(["cancer", "immune", "fat"], labels, mapping) == {"cancer": ["tumour"], "immune": ["T", "B"]}
    with pytest.raises(ValueError, match=r"None of the true classes \(fat\) is among the labels.*Pass mapping="):
        label_sets(["fat"], labels, None)
    for number in (1, 1.0):
        assert label_sets(["1"], labels, {number: "T"}) == {"1": ["T"]}
    with pytest.raises(ValueError, match=r"mapping is for 1\.0, and none of these is a true class \(found: 1, 2\)"):
        label_sets(["1", "2"], labels, {"1.0": "T"})
    with pytest.raises(TypeError, match="mapping must be a mapping from true class to label, not list"):
        label_sets(["fat"], labels, ["T"])  # type: ignore[arg-type]


def test_correct_labels_are_those_of_the_dominant_class() -> None:
    sets = {"immune": ["T", "B"], "cancer": ["tumour"]}
    dominant = np.array(["cancer", None, "fat", "immune"], object)
    got = correct_labels(dominant, sets, ["tumour", "T", "B"])
    assert got.astype(int).tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 1]]


def test_labels_of_the_same_classes_cannot_be_told_apart() -> None:
    sets = {"immune": ["T", "B"], "cancer": ["tumour"]}
    got = indistinct(sets, ["T", "tumour", "B", "fat", "nerve"])
    assert got.astype(int).tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_the_best_label_is_compared_with_the_truth() -> None:
    probability = np.array([[0.5, 0.3, 0.2], [0.1, 0.4, 0.5]])
    correct = np.array([[True, False, False], [False, True, True]])
    together = np.array([[True, False], [False, True], [False, True]])
    got = judged(probability, correct, together)
    assert got.confidence.tolist() == [0.5, 0.5]
    assert np.allclose(got.summed, [0.5, 0.9])
    assert got.correct.tolist() == [True, True]
    assert judged(probability, ~correct, together).correct.tolist() == [False, False]
