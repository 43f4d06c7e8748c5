"""Measures of the predictor of expression that training stores, on arrays."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from spatialwhisperer.tl._training.expression.held_out import _weighed, by_section
from spatialwhisperer.tl._training.expression.predictor import gene_lists
from spatialwhisperer.tl._training.expression.values import Values


def test_accuracy_is_within_sections() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(60, 3)).astype(np.float32)
    sections = np.repeat(["a", "b"], 30)
    predicted = truth.copy()
    predicted[30:, 0] *= -1
    predicted[:, 1] += np.where(sections == "a", 100, 0)  # between sections
    truth[:30, 2] = 5  # constant, so undefined there
    r = by_section(sp.csr_matrix(truth), predicted, sections)
    assert np.allclose(r, [0, 1, 1], atol=1e-4)
    truth[:, 2] = 5
    assert np.isnan(by_section(sp.csr_matrix(truth), predicted, sections)[2])


def test_a_constant_prediction_has_no_correlation() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(60, 1)).astype(np.float32)
    predicted = truth.copy()
    predicted[30:] = 3
    assert by_section(sp.csr_matrix(truth), predicted, np.repeat(["a", "b"], 30))[0] == 0.5


def test_sections_of_a_few_spots_do_not_count() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(64, 4)).astype(np.float32)
    predicted = truth + rng.normal(size=truth.shape).astype(np.float32)
    sections = np.array(["a"] * 30 + ["b"] * 30 + ["c"] * 3 + ["d"])
    predicted[60:, 3] = 0
    r = by_section(sp.csr_matrix(truth), predicted, sections)
    np.testing.assert_array_equal(r, by_section(sp.csr_matrix(truth[:60]), predicted[:60], sections[:60]))
    assert np.isnan(by_section(sp.csr_matrix(truth[60:]), predicted[60:], sections[60:])).all()


def test_where_nothing_is_measured_no_weight_is_chosen() -> None:
    rng = np.random.default_rng(0)
    truth, one, other = (rng.normal(size=(6, 2)).astype(np.float32) for _ in range(3))
    each = {"retrieval": one, "regression": other}
    accuracy, weight = _weighed(each, sp.csr_matrix(truth), np.repeat(["a", "b"], 3))
    assert weight is None
    assert list(accuracy) == ["retrieval", "regression", "both"]
    assert all(np.isnan(r).all() for r in accuracy.values())


def test_a_patient_is_left_out_with_its_sections_without_an_image() -> None:
    matrix = sp.csr_matrix(np.ones((4, 2), np.float32))
    unpaired = {"B1": matrix, "B2": matrix, "D1": matrix}
    groups = {"B1": {"B"}, "B2": {"B"}, "D1": {"D"}}
    values = Values(["g", "h"], ["", ""], matrix, np.arange(4), "per_spot_log1p", unpaired, groups)
    assert set(values.without("group", "B").unpaired) == {"D1"}
    assert set(values.without("group", "C").unpaired) == set(unpaired)
    # with one patient, sections are left out one by one, and the others are of that patient
    assert set(values.without("section", "B1").unpaired) == set(unpaired)


def test_lists_of_genes() -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 1, size=(40, 60))
    values[:, 7] += 5
    values[::2, 9] += 3
    values[20:, 3] += 8  # differs between sections, and not within them
    lists = gene_lists(sp.csr_matrix(values), [f"g{i}" for i in range(60)], np.repeat([0, 1], 20))
    assert lists["HEG50"][0] == "g7"
    assert lists["HVG50"][0] == "g9"
    assert "g3" not in lists["HVG50"][:1]
    assert {len(v) for v in lists.values()} == {50}
