from __future__ import annotations

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer.protocols.her2st import regression


def test_the_influence_of_a_spot_is_what_repeating_it_changes() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.normal(size=(500, 3)), rng.normal(size=(500, 3))
    predicted[:, 0] += truth[:, 0]
    # the gene whose prediction is constant counts as 0
    predicted[:, 2] = 1.0
    r, influence = regression._mean_pearson(truth, predicted)
    by_hand = [np.corrcoef(truth[:, g], predicted[:, g])[0, 1] for g in range(2)]
    assert r == pytest.approx(sum(by_hand) / 3)
    for spot in (0, 250, 499):
        rows = np.r_[np.arange(500), spot]
        assert regression._mean_pearson(truth[rows], predicted[rows])[0] - r == pytest.approx(
            influence[spot] / 501, abs=1e-4
        )


def test_a_predictor_is_compared_with_its_counterpart_on_the_same_spots() -> None:
    rng = np.random.default_rng(0)
    measured = regression.Measured()
    grid = np.argwhere(np.ones((10, 10))).astype(float)
    for name in ("C2", "C3"):
        truth = rng.normal(size=(100, 5))
        measured.positions[name] = grid
        for each in regression.LISTS:
            measured.truth[name, each] = truth
            measured.predicted[name, each, regression.NEW] = truth
            measured.predicted[name, each, regression.BEFORE] = truth + rng.normal(size=(100, 5))
    table = regression._summary(measured)
    new, before = (table[table["predictor"] == p].iloc[0] for p in (regression.NEW, regression.BEFORE))
    assert new["r"] == "1.000"
    assert before["difference"] == ""
    low, high = (float(x) for x in new["difference"].split("[")[1].rstrip("]").split(", "))
    assert 0.2 < low < 1 - float(before["r"]) < high < 0.4


@pytest.mark.slow
def test_every_predictor_is_measured_on_a_section_that_is_left_out() -> None:
    made = sw.datasets.simulate_sections(4, 60, n_genes=80, n_reference_cells=50, random_state=0)
    *train, test = made.sections.values()
    others = [train.pop()["table"].copy()]
    measured = regression.Measured()
    regression._fold(train, others, test, "P4", measured, n_genes=20)
    predictors = {predictor for _, _, predictor in measured.predicted}
    assert predictors == {regression.NEW, regression.BEFORE, regression.RIDGE, regression.RIDGE_BEFORE}
    for (name, each, _), values in measured.predicted.items():
        assert values.shape == measured.truth[name, each].shape
        assert np.isfinite(values).all()
    assert set(test.tables) == {"table", "cells"}
