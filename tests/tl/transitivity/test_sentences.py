"""What the report says of a value."""

from __future__ import annotations

import numpy as np
import pytest

from spatialwhisperer.tl._annotation.range.training_range import SectionRange
from spatialwhisperer.tl._transitivity import sentences as words

EVEN = (0.4, 0.9)
SURE = (0.6, 0.9)


@pytest.mark.parametrize(
    ("value", "ends", "expected"),
    [
        (0.9, EVEN, "no better than by chance"),
        (0.52, SURE, "no better than by chance"),
        (0.6, SURE, "agree weakly"),
        (0.8, SURE, "rank the spots as labels from their expression do"),
    ],
)
def test_agreement_is_called_by_value_and_interval(value: float, ends: tuple[float, float], expected: str) -> None:
    assert expected in words.consistency(value, ends, 3, 3)
    assert "(all 3 labels)" in words.consistency(value, ends, 3, 3)
    assert "(2 of 3 labels could be assessed)" in words.consistency(value, ends, 2, 3)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.9, "The expression is similar"),
        (0.6, "Part of the expression differs"),
        (0.2, "do not expect correct labels"),
    ],
)
def test_coverage_is_called_by_its_value(value: float, expected: str) -> None:
    both = words.coverage(value, {"within_reach": 0.5, "expression_alike": 0.25})
    assert both.startswith(expected) or expected in both
    assert "50% are as near to training rows" in both
    assert "25% have similar counts" in both
    assert "counts" not in words.coverage(value, {"within_reach": 0.5})


def test_an_image_that_does_not_find_its_expression_may_be_misplaced() -> None:
    assert "registered" in words.rank(0.6, EVEN)
    assert "in 70% of the cases" in words.rank(0.7, SURE)


@pytest.mark.parametrize(
    ("value", "how"),
    [(0.5, "hardly distinguishes"), (0.8, "partly distinguishes"), (0.95, "classifier distinguishes")],
)
def test_separability_is_called_by_its_value(value: float, how: str) -> None:
    for name in ("bridge_auroc", "bridge_auroc_knn"):
        assert how in words.separable(value, name)


def test_labels_that_cannot_be_distinguished_are_named() -> None:
    assert "no two labels have highly correlated scores" in words.margin("a", "b", [])
    pairs = [["a", "b"], ["a", "c"], ["b", "c"], ["c", "d"], ["d", "e"]]
    some = words.margin("a", "b", pairs)
    assert "'a' with 'b', 'a' with 'c', 'b' with 'c' and 2 more pairs" in some


def test_a_label_of_most_rows_is_a_hub() -> None:
    assert "normalize='centre'" in words.hub("a", 0.8, 5)
    assert "no label is the best of most rows" in words.hub("a", 0.4, 5)
    # of two labels one always has half of the rows
    assert "no label is the best of most rows" in words.hub("a", 0.8, 2)


def test_errors_are_given_as_angles() -> None:
    assert "90° apart" in words.link(1.0, "image", "expression")
    assert "0° apart" in words.link(0.0, "image", "expression")
    assert "180° apart" in words.link(2.5, "image", "expression")


def test_counts_are_compared_with_training_rows() -> None:
    usual = np.linspace(0.0, 1.0, 101)
    assert "as well as" in words.cross_entropy(0.5, usual)
    assert "worse than" in words.cross_entropy(2.0, usual)


def test_images_are_called_by_distance_and_scale() -> None:
    usual = SectionRange("s", 9, 9, 0.5, 1.0, 1.0, 2.0)
    other = SectionRange("t", 9, 9, 0.1, 0.2, 5.0, 2.0)
    assert "within the usual range" in words.image_distance(usual)
    assert "differ from every training section (section 't'" in words.image_distance(other)
    assert "at the scale of the training images (0.5 µm per pixel)" in words.image_scale(usual)
    assert "'t' is read finer" in words.image_scale(other)
    assert "Most tiles are similar to" in words.image_coverage(0.9)
    assert "Most tiles are unlike" in words.image_coverage(0.1)


def test_no_difference_is_no_proof_of_one() -> None:
    assert "No difference" in words.mmd(0.2)
    assert "independent spots" in words.mmd(0.01)
