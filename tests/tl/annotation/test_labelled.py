"""What is written of probabilities: labels of rows that are sure, near and common enough, and why the others have none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spatialwhisperer.tl._annotation.decision import Decided
from spatialwhisperer.tl._annotation.labelled import Limits, labelled, with_wording_sd
from spatialwhisperer.tl._annotation.range import guard
from spatialwhisperer.tl._annotation.record import AnnotationRecord
from spatialwhisperer.tl._annotation.rollup import Classes, Coarse

NAN = np.full(3, np.nan)
PROBABILITY = np.array([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.3, 0.6], [0.45, 0.3, 0.25], NAN, [0.9, 0.05, 0.05]])
CLASSES = Classes(["a", "b", "c"], ["CL:1", None, "CL:3"], None, None, [])


def written(limits: Limits, found: Any = None, classes: Classes = CLASSES, probabilities: Any = "softmax") -> Any:
    code = np.array([0, 0, 2, 0, -1, 0])
    record = AnnotationRecord(
        ("a", "b", "c"), ("a", "b", "c"), (("a",),) * 3, "cosine", "none", None, 1.0, False, None, None, None, 0.0, 0.0, False, {},
        probabilities=probabilities,
    )  # fmt: skip
    return labelled("l", Decided(PROBABILITY, code, classes, True), limits, PROBABILITY - 1, record, found)


def text(values: Any) -> list[Any]:
    return [None if v != v else v for v in values]


def test_every_row_with_scores_gets_its_best_label_without_limits() -> None:
    result = written(Limits(0.0, 0.0, 1))
    assert text(result.obs["l"]) == ["a", "a", "c", "a", None, "a"]
    # a label that no row has is no category
    assert list(result.obs["l"].categories) == ["a", "c"]
    np.testing.assert_allclose(result.obs["l_confidence"], [0.7, 0.5, 0.6, 0.45, np.nan, 0.9], rtol=1e-6)
    np.testing.assert_allclose(result.obs["l_margin"], [0.5, 0.1, 0.3, 0.15, np.nan, 0.85], rtol=1e-6)
    assert [v for v in result.obs.values() if hasattr(v, "categories")][1].categories.tolist() == [guard.NO_EMBEDDING]
    assert text(result.obs["l_cl"]) == ["CL:1", "CL:1", "CL:3", "CL:1", None, "CL:1"]
    assert result.parameters.without_label == {guard.NO_EMBEDDING: 1}
    assert np.array_equal(result.obsm["l_scores"], PROBABILITY - 1, equal_nan=True)
    assert result.uns["l"]["classes"].tolist() == ["a", "b", "c"]
    assert list(result.colours["l"]) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("limits", "labels", "reasons"),
    [
        # a row at the limit keeps its label
        (Limits(0.5, 0.0, 1), "a a c - - a", {guard.NO_EMBEDDING: 1, guard.CONFIDENCE: 1}),
        (Limits(0.51, 0.0, 1), "a - c - - a", {guard.NO_EMBEDDING: 1, guard.CONFIDENCE: 2}),
        (Limits(0.0, 0.2, 1), "a - c - - a", {guard.NO_EMBEDDING: 1, guard.MARGIN: 2}),
        (Limits(0.5, 0.2, 1), "a - c - - a", {guard.NO_EMBEDDING: 1, guard.CONFIDENCE: 1, guard.MARGIN: 1}),
        (Limits(0.0, 0.0, 2), "a a - a - a", {guard.NO_EMBEDDING: 1, guard.RARE: 1}),
        (Limits(0.0, 0.0, 4), "a a - a - a", {guard.NO_EMBEDDING: 1, guard.RARE: 1}),
        (Limits(0.0, 0.0, 5), "- - - - - -", {guard.NO_EMBEDDING: 1, guard.RARE: 5}),
    ],
)
def test_rows_below_a_limit_get_no_label_and_the_first_reason(
    limits: Limits, labels: str, reasons: dict[str, int]
) -> None:
    result = written(limits)
    expected = [None if label == "-" else label for label in labels.split()]
    assert text(result.obs["l"]) == expected
    assert [t is None for t in text(result.obs["l_cl"])] == [label is None for label in expected]
    assert result.parameters.without_label == reasons


def test_rows_unlike_the_training_tissue_get_no_label() -> None:
    found = guard.RowRange(np.array([3.0, 1.0, 1.0, 1.0, 1.0, 2.0]), 2.0, np.array([0, 1, 0, 0, 0, 0], bool))
    result = written(Limits(0.0, 0.0, 1), found)
    assert text(result.obs["l"]) == [None, None, "c", "a", None, "a"]
    assert result.parameters.without_label == {guard.NO_EMBEDDING: 1, guard.SECTION: 1, guard.ROW: 1}


def test_what_earlier_calls_wrote_is_removed_where_it_is_not_written_again() -> None:
    plain = written(Limits(0.0, 0.0, 1), classes=Classes(["a", "b", "c"], [None] * 3, None, None, []))
    assert "l_cl" not in plain.obs
    assert {"l_cl", "l_probability", "l_agreement"} <= set(plain.gone)
    stored = written(Limits(0.0, 0.0, 1), probabilities="stored")
    assert not {"l_cl", "l_probability"} & set(stored.gone)
    assert np.array_equal(stored.obsm["l_probability"], PROBABILITY, equal_nan=True)
    (sd,) = set(with_wording_sd(plain, None).gone) - set(plain.gone)
    kept = with_wording_sd(plain, PROBABILITY)
    assert kept.obsm[sd] is PROBABILITY
    assert sd not in kept.gone


def test_the_classes_of_each_coarser_term_are_recorded() -> None:
    member = np.array([[1, 0], [1, 1], [0, 1]], bool)
    classes = CLASSES._replace(coarse=Coarse(["CL:7", None], member), coarse_names=["ab", "c"])
    # a class of the same name is meant by that name
    assert written(Limits(0.0, 0.0, 1), classes=classes).parameters.coarser == {"ab": ("a", "b")}
    assert written(Limits(0.0, 0.0, 1)).parameters.coarser == {}
