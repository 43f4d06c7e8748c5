from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from spatialwhisperer.statistics.intervals.uncertainty import Uncertainty, jackknife, over_units


def test_units_of_one_row_give_the_interval_of_student() -> None:
    values = np.random.default_rng(0).normal(size=12)
    expected = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert over_units(values, np.arange(12)).interval(values.mean()) == pytest.approx(expected)


def test_an_interval_ends_where_its_quantity_does() -> None:
    few = over_units(np.array([0.0, 0.0, 0.0, 1.0]), np.arange(4))
    low, high = few.interval(0.25)
    assert low < 0
    assert high > 1
    assert few.interval(0.25, within=(0, np.inf)) == (0, high)
    assert few.interval(0.25, within=(-1, 1)) == (low, 1)


def test_rows_of_a_unit_count_once() -> None:
    values = np.random.default_rng(0).normal(size=6)
    once = over_units(values, np.arange(6))
    again = over_units(np.repeat(values, 50), np.repeat(np.arange(6), 50))
    assert again.variance == pytest.approx(once.variance)
    assert again.df == 5


def test_two_patients_are_too_few() -> None:
    assert np.isnan(over_units(np.array([0.1, 0.2]), np.arange(2)).interval(0.15)).all()
    assert np.isnan(over_units(np.array([0.1, 0.2]), np.zeros(2)).interval(0.15)).all()


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=9)
    found = jackknife(np.array([np.delete(values, i).mean() for i in range(9)]))
    assert np.sqrt(found.variance) == pytest.approx(stats.sem(values))
    assert found.df == 8


def test_bounded_intervals_stay_inside() -> None:
    low, high = Uncertainty(0.01, 20, 20).interval(0.95, bounded=True)
    assert 0 < low < 0.95 < high < 1
    assert Uncertainty(0.01, 20, 20).interval(0.95)[1] > 1


def test_sums_have_the_degrees_of_freedom_of_welch() -> None:
    a, b = np.random.default_rng(0).normal(size=8), np.random.default_rng(1).normal(0, 3, 15)
    both = over_units(a, np.arange(8)) + over_units(b, np.arange(15))
    expected = stats.ttest_ind(a, b, equal_var=False)
    assert both.df == pytest.approx(expected.df)
    assert (a.mean() - b.mean()) / np.sqrt(both.variance) == pytest.approx(expected.statistic)
