from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.special import softmax

from spatialwhisperer.retrieval.weights import METRICS, NEAREST, WEIGHTS, weigh

RNG = np.random.default_rng(0)
QUERY, KEYS = RNG.normal(size=(4, 5)), RNG.normal(size=(9, 5))
COSINE = 1 - cdist(QUERY, KEYS, "cosine")


def weighted(weights: str, temperature: float = 0.1) -> np.ndarray:
    """Weights that sum to one."""
    distance = cdist(QUERY, KEYS, METRICS[weights]) if weights in METRICS else None
    factor, log = weigh(weights, COSINE, distance, QUERY, temperature)
    assert factor.shape == log.shape == COSINE.shape
    product = factor * np.exp(log)
    return product / product.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_weights_sum_to_one_and_leave_the_cosines_alone(weights: str) -> None:
    before = COSINE.copy()
    assert weighted(weights).sum(axis=1) == pytest.approx(np.ones(4))
    assert np.array_equal(COSINE, before)


def test_softmax_is_that_of_scipy() -> None:
    assert weighted("softmax", 0.3) == pytest.approx(softmax(COSINE / 0.3, axis=1))


def test_rules_are_their_formulas() -> None:
    l1, l2 = cdist(QUERY, KEYS, "cityblock"), cdist(QUERY, KEYS)
    formulas = {
        "uniform": np.ones_like(COSINE),
        "inv_sq_l1": 1 / l1**2,
        "inv_sq_l2": 1 / l2**2,
        "exp_gap": np.exp(-(l2**2)),
        "raw_cosine": COSINE,
        "clipped_cosine": np.maximum(COSINE, 1e-9),
    }
    assert {*formulas, "softmax"} == set(WEIGHTS)
    for weights, formula in formulas.items():
        assert weighted(weights) == pytest.approx(formula / formula.sum(axis=1, keepdims=True)), weights


@pytest.mark.parametrize(("weights", "order"), [("inv_sq_l1", 1), ("inv_sq_l2", 2)])
def test_the_weight_of_an_exact_copy_is_that_of_the_smallest_distance(weights: str, order: int) -> None:
    factor, _ = weigh(weights, np.ones((4, 1)), np.zeros((4, 1)), QUERY, 1.0)
    smallest = NEAREST * np.linalg.norm(QUERY, order, axis=1, keepdims=True)
    assert factor == pytest.approx(1 / smallest**2)
