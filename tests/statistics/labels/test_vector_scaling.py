"""Scales and offsets of labels."""

from __future__ import annotations

import numpy as np
import pytest

from spatialwhisperer.statistics.calibration import fit_temperature, probabilities
from spatialwhisperer.statistics.labels.vector_scaling import (
    Scaling,
    choose_scaling,
    fit_scaling,
    row_weights,
    scaling_units,
)


def drawn(scores: np.ndarray, scaling: Scaling, seed: int) -> np.ndarray:
    """Correct labels that are drawn from the probabilities of a scaling."""
    rng = np.random.default_rng(seed)
    return np.eye(scores.shape[1], dtype=bool)[[rng.choice(len(p), p=p) for p in scaling.probabilities(scores)]]


def test_scales_and_offsets_are_found_again() -> None:
    scores = np.random.default_rng(0).normal(size=(20_000, 3))
    scale = np.array([2.0, 1.0, 0.5])
    true = Scaling(0.5, scale, np.array([1.0, -0.5, -0.5]))
    found = fit_scaling(scores, drawn(scores, true, 1), np.full(20_000, 1 / 20_000), 1e-6)
    assert found.temperature == pytest.approx(0.5, rel=0.05)
    assert np.allclose(found.scale, scale, rtol=0.1)
    assert np.allclose(found.offset - found.offset.mean(), true.offset, atol=0.08)
    assert np.prod(found.scale) == pytest.approx(1)


def test_a_large_penalty_leaves_one_scale_and_no_offset() -> None:
    scores = np.random.default_rng(0).normal(size=(2000, 3))
    correct = drawn(scores, Scaling(0.5, np.array([2.0, 1.0, 0.5]), np.array([1.0, 0, 0])), 1)
    found = fit_scaling(scores, correct, np.full(2000, 1 / 2000), 1e4)
    assert np.allclose(found.scale, 1, atol=1e-3)
    assert np.allclose(found.offset, 0, atol=1e-3)
    assert found.temperature == pytest.approx(fit_temperature(scores, correct), rel=0.01)


def test_several_labels_may_be_correct() -> None:
    """The truth does not tell the last two labels apart: what counts is their summed probability."""
    scores = np.random.default_rng(0).normal(size=(5000, 3))
    true = Scaling(1.0, np.ones(3), np.array([1.5, -0.75, -0.75]))
    correct = drawn(scores, true, 1)
    coarse = np.c_[correct[:, 0], correct[:, 1:].any(axis=1), correct[:, 1:].any(axis=1)]
    found = fit_scaling(scores, coarse, np.full(5000, 1 / 5000), 1e-5)
    assert found.probabilities(scores)[:, 0].mean() == pytest.approx(coarse[:, 0].mean(), abs=0.01)


def test_a_label_that_no_row_has_is_neither_raised_nor_lowered() -> None:
    rng = np.random.default_rng(0)
    truth, new = rng.integers(0, 3, 4000), rng.integers(0, 4, 4000)
    scores, unseen = (np.eye(4)[y] + rng.normal(0, 0.4, (4000, 4)) + [0.3, 0, 0, 0] for y in (truth, new))
    found = fit_scaling(scores, np.eye(4, dtype=bool)[truth], np.full(4000, 1 / 4000), 1e-3)
    # the first label is too high and gets a lower offset; the last is like the others on average
    assert found.offset[0] < found.offset[1:3].min() - 0.5
    assert found.offset[3] == pytest.approx(found.offset[:3].mean())
    assert found.scale[3] == pytest.approx(1)
    assert np.prod(found.scale) == pytest.approx(1)
    recall = [(found.probabilities(unseen)[new == c].argmax(axis=1) == c).mean() for c in range(4)]
    assert min(recall) > 0.85
    # the fit is a minimum of the loss in what is free
    eye, weights = np.eye(4, dtype=bool)[truth], np.full(4000, 1 / 4000)

    def loss(shift: np.ndarray) -> float:
        offset = found.offset[:3] + shift
        logits = Scaling(found.temperature, found.scale, np.r_[offset, offset.mean()]).probabilities(scores)
        return float(-(weights * np.log(logits[eye])).sum() + 1e-3 * offset @ offset)

    assert all(loss(np.zeros(3)) < loss(step * np.eye(3)[k]) for k in range(3) for step in (-0.05, 0.05))


def test_a_section_full_of_one_class_does_not_set_the_offset() -> None:
    correct = np.eye(2, dtype=bool)[np.r_[np.zeros(900, int), np.ones(100, int), [0, 1]]]
    sections = np.r_[np.full(1000, "full"), np.full(2, "even")]
    weights = row_weights(correct, sections)
    of_first = [weights[(sections == s) & correct[:, 0]].sum() for s in ("full", "even")]
    # square roots: 30 against 10, and half of each section
    assert of_first == pytest.approx([0.5 * 0.75, 0.5 * 0.5])
    assert weights.sum() == pytest.approx(1)


def test_what_predicts_left_out_units_best_is_taken() -> None:
    scores = np.random.default_rng(0).normal(size=(600, 3))
    units = np.arange(600) // 200
    offsets = Scaling(0.5, np.ones(3), np.array([2.0, -1.0, -1.0]))
    correct = drawn(scores, offsets, 1)
    found = choose_scaling(scores, correct, sections=units, units=units)
    assert found.penalty is not None
    assert found.loss < found.loss_temperature
    # the loss of a unit is that of the scaling of the others
    weights, by_hand = row_weights(correct, units), 0.0
    for unit in range(3):
        rest, own = units != unit, units == unit
        other = fit_scaling(scores[rest], correct[rest], weights[rest] / weights[rest].sum(), found.penalty)
        by_hand -= float(weights[own] @ np.log(other.probabilities(scores[own])[correct[own]]))
    assert found.loss == pytest.approx(by_hand)
    # offsets that are different in each unit do not help the others
    shifted = [drawn(scores[units == u], Scaling(0.5, np.ones(3), 2.0 * np.eye(3)[u]), u) for u in range(3)]
    plain = choose_scaling(scores, np.concatenate(shifted), sections=units, units=units)
    assert plain.penalty is None
    assert plain.scaling.offset.tolist() == [0, 0, 0]
    assert np.allclose(plain.scaling.probabilities(scores), probabilities(scores, plain.scaling.temperature))


def test_the_method_may_be_asked_for() -> None:
    scores = np.random.default_rng(0).normal(size=(300, 3))
    correct = drawn(scores, Scaling(0.5, np.ones(3), np.zeros(3)), 1)
    units = np.arange(300) // 100
    assert choose_scaling(scores, correct, sections=units, units=units, method="temperature").penalty is None
    assert choose_scaling(scores, correct, sections=units, units=units, method="vector").penalty is not None


def test_patients_are_left_out_where_there_are_two() -> None:
    sections = np.array(["a1", "a2", "b1", "b1"])
    assert scaling_units(np.array(["a", "a", "b", "b"]), sections, None).tolist() == [0, 0, 1, 1]
    assert scaling_units(np.array(["a"] * 4), sections, None).tolist() == [0, 1, 2, 2]
    assert len(set(scaling_units(np.array(["a"] * 40), np.array(["s"] * 40), None))) == 8


def test_rows_without_scores_stay_without() -> None:
    scores = np.array([[np.nan, np.nan], [0.0, 1.0]])
    got = Scaling(1.0, np.ones(2), np.array([np.log(2.0), 0.0])).probabilities(scores)
    assert np.isnan(got[0]).all()
    assert got[1].tolist() == pytest.approx([2 / (2 + np.e), np.e / (2 + np.e)])
