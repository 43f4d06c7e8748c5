"""Labels inside classes."""

from __future__ import annotations

import numpy as np
import pytest

from spatialwhisperer.statistics.labels.tree import best_on_path, class_probabilities, equal_classes, nested

# labels T, B, macrophage, fat, tumour; lymphocyte = T, B; leukocyte = T, B, macrophage
MEMBER = np.array([[1, 1], [1, 1], [0, 1], [0, 0], [0, 0]], bool)


def test_classes_of_a_level_have_the_same_prior_probability() -> None:
    alike = np.full((1, 5), 0.2, np.float32)
    got = equal_classes(alike, MEMBER)
    # leukocyte, fat and tumour a third each; inside lymphocyte and macrophage a half; inside T and B a half
    assert got[0].tolist() == pytest.approx([1 / 12, 1 / 12, 1 / 6, 1 / 3, 1 / 3])
    assert got.dtype == np.float32
    assert class_probabilities(got, MEMBER)[0].tolist() == pytest.approx([1 / 6, 1 / 3])


def test_a_class_is_compared_by_its_mean_at_each_level() -> None:
    p = np.array([[0.4, 0.1, 0.05, 0.15, 0.3]])
    lymphocyte = (0.4 + 0.1) / 2
    leukocyte = (lymphocyte + 0.05) / 2
    total = leukocyte + 0.15 + 0.3
    got = equal_classes(p, MEMBER)
    summed = class_probabilities(got, MEMBER)[0]
    assert summed[1] == pytest.approx(leukocyte / total)
    # product along the path: softmax over siblings at each level
    assert summed[0] == pytest.approx(leukocyte / total * lymphocyte / (lymphocyte + 0.05))
    assert got[0, 0] == pytest.approx(summed[0] * 0.4 / 0.5)
    assert got.sum() == pytest.approx(1)


def test_the_best_label_lies_on_the_path_of_the_best_classes() -> None:
    p = np.array([[0.2, 0.15, 0.15, 0.2, 0.3], [0.1, 0.1, 0.1, 0.2, 0.5], [np.nan] * 5, [0.1, 0.1, 0.5, 0.2, 0.1]])
    # the first row is rather a leukocyte than a tumour, although the tumour is its most probable label
    assert best_on_path(p, MEMBER).tolist() == [0, 4, -1, 2]
    assert p[0].argmax() == 4


def test_classes_that_overlap_are_left_out() -> None:
    crossing = np.c_[MEMBER, np.array([0, 0, 1, 1, 0], bool), np.ones(5, bool), np.eye(5, dtype=bool)[0]]
    assert nested(crossing) == [frozenset({0, 1}), frozenset({2, 3})]
    assert np.isclose(equal_classes(np.full((1, 5), 0.2), crossing).sum(), 1)


def test_without_classes_nothing_changes() -> None:
    p = np.array([[0.1, 0.6, 0.3]])
    none = np.zeros((3, 0), bool)
    assert np.allclose(equal_classes(p, none), p)
    assert best_on_path(p, none).tolist() == [1]
