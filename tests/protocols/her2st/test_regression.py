from __future__ import annotations

import numpy as np
import pandas as pd

from spatialwhisperer.protocols.her2st import regression


def test_the_weighted_correlation_is_that_of_repeated_spots() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.normal(size=(20, 3)), rng.normal(size=(20, 3))
    predicted[:, 2] = 1.0
    times = rng.integers(0, 3, 20)
    got = regression._mean_pearson(truth, predicted, np.stack([np.ones(20), times]))
    for value, rows in zip(got, (np.arange(20), np.repeat(np.arange(20), times)), strict=True):
        r = [np.corrcoef(truth[rows, g], predicted[rows, g])[0, 1] for g in range(2)]
        # the gene whose prediction is constant counts as 0
        assert np.isclose(value, sum(r) / 3)


def test_a_predictor_is_compared_with_its_counterpart_on_the_same_spots() -> None:
    rng = np.random.default_rng(0)
    measured = regression.Measured()
    for name in ("C2", "C3"):
        truth = rng.normal(size=(100, 5))
        measured.positions[name] = rng.uniform(size=(100, 2))
        for each in regression.LISTS:
            measured.truth[name, each] = truth
            measured.predicted[name, each, regression.NEW] = truth
            measured.predicted[name, each, regression.BEFORE] = truth + rng.normal(size=(100, 5))
    table = regression._summary(measured)
    assert isinstance(table, pd.DataFrame)
    new, before = (table[table["predictor"] == p].iloc[0] for p in (regression.NEW, regression.BEFORE))
    assert new["r"] == "1.000"
    assert before["difference"] == ""
    low, high = (float(x) for x in new["difference"].split("[")[1].rstrip("]").split(", "))
    assert 0.2 < low < 1 - float(before["r"]) < high < 0.4
