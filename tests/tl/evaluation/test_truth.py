"""The ground truth of rows, and the labels that are correct for them."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.tl.evaluation.truth import correct_labels, indistinct, judged, known_truth, label_sets


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


def test_proportions_have_a_dominant_class_where_they_are_complete(table: ad.AnnData) -> None:
    table.obsm["mix"] = np.array([[0.2, 0.8], [np.nan, 1], [0.6, 0.4]])
    table.uns["mix"] = {"classes": ["a", "b"]}
    known = known_truth(table, "mix")
    assert not known.stated
    assert known.dominant.tolist() == ["b", None, "a"]
    frame = pd.DataFrame({"a": [True, pd.NA, False], "b": [False, True, True]}, dtype="boolean")
    assert known_truth(table, frame).stated
    assert known_truth(table, frame).dominant.tolist() == ["a", None, "b"]


@pytest.mark.parametrize(
    ("truth", "error", "message"),
    [
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
