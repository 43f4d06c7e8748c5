"""Agreement of probability vectors, and doubt that tells wrong answers from correct ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from spatialwhisperer.statistics.intervals.spatial import SpatialErrors
from spatialwhisperer.statistics.labels.agreement import agreement, error_detection


def test_agreement_is_one_minus_the_divergence_of_scipy() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.dirichlet(np.ones(4), 30), rng.dirichlet(np.ones(4), 30)
    assert agreement(one, other) == pytest.approx(1 - jensenshannon(one, other, base=2, axis=1) ** 2)
    assert np.array_equal(agreement(one, other), agreement(other, one))


def test_agreement_by_hand() -> None:
    half, sure = np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]])
    # middle (3/4, 1/4): (log2(4/3) + 1/2 log2(2/3) + 1/2 log2 2) / 2
    divergence = (np.log2(4 / 3) + 0.5 * np.log2(2 / 3) + 0.5) / 2
    assert agreement(half, sure)[0] == pytest.approx(1 - divergence)
    assert agreement(half, half)[0] == 1
    assert agreement(sure, sure[:, ::-1])[0] == 0


def test_rows_without_probabilities_have_no_agreement() -> None:
    found = agreement(np.array([[np.nan, np.nan], [0.5, 0.5]]), np.full((2, 2), 0.5))
    assert np.isnan(found[0])
    assert found[1] == 1


@pytest.fixture
def errors() -> SpatialErrors:
    return SpatialErrors(np.argwhere(np.ones((12, 12))), np.zeros(144))


def test_doubt_is_judged_by_the_rows_that_have_it(errors: SpatialErrors) -> None:
    rng = np.random.default_rng(0)
    wrong = rng.random(144) < 0.3
    good, noise = wrong + rng.normal(0, 0.7, 144), rng.normal(size=144)
    part = np.where(np.arange(144) < 100, wrong + 0.0, np.nan)
    found = error_detection({"noise": noise, "good": good, "part": part}, wrong, errors)
    assert found["auroc"]["part"] == 1
    assert [found[c]["part"] for c in ("n", "n_wrong")] == [100, wrong[:100].sum()]
    assert found["difference"]["good"] == pytest.approx(found["auroc"]["good"] - found["auroc"]["noise"])
    assert found["low"]["good"] < found["auroc"]["good"] < found["high"]["good"]
    assert found["difference_low"]["good"] > 0
    assert found["low"]["noise"] < 0.5 < found["high"]["noise"]
    assert all(np.isnan(found[c]["noise"]) for c in ("difference", "difference_low", "difference_high"))


def test_an_interval_of_a_difference_ends_where_a_difference_does() -> None:
    """One of four wrong rows is in the least doubt by the good measure, and the other way round by its opposite."""
    wrong = np.arange(16) % 4 == 0
    good = wrong + 0.0
    good[0] = -1
    found = error_detection({"opposite": -good, "good": good}, wrong, SpatialErrors(None, np.zeros(16)))
    assert found["difference"]["good"] == 0.5
    assert found["difference_low"]["good"] < 0
    assert found["difference_high"]["good"] == 1


def test_without_an_error_there_is_nothing_to_detect(errors: SpatialErrors) -> None:
    found = error_detection({"doubt": np.arange(144.0)}, np.zeros(144, bool), errors)
    assert all(np.isnan(found[c]["doubt"]) for c in ("auroc", "low", "high"))
    assert [found[c]["doubt"] for c in ("n", "n_wrong")] == [144, 0]
