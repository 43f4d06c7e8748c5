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
    found = jackknife(np.array([np.delete(values, i).mean() for i in range(9)]), np.ones(9))
    assert np.sqrt(found.variance) == pytest.approx(stats.sem(values))
    assert found.df == 8


def cr2(values: np.ndarray, units: np.ndarray) -> tuple[float, float]:
    """Variance of a mean and its degrees of freedom, by the matrices of Bell and McCaffrey for a regression on a constant."""
    n = len(values)
    x = np.ones((n, 1))
    hat = x @ x.T / n
    rest, variance, columns = np.eye(n) - hat, 0.0, []
    for unit in np.unique(units):
        own = np.flatnonzero(units == unit)
        size, vectors = np.linalg.eigh(rest[np.ix_(own, own)])
        adjusted = vectors @ np.diag(size**-0.5) @ vectors.T
        variance += float((adjusted.sum(axis=0) @ (rest @ values)[own] / n) ** 2)
        columns.append(rest[:, own] @ adjusted.sum(axis=0) / n)
    found = np.linalg.eigvalsh(np.array(columns) @ np.array(columns).T)
    return variance, float(found.sum() ** 2 / (found**2).sum())


def test_units_with_unequal_numbers_of_rows_are_those_of_cr2() -> None:
    units = np.repeat(np.arange(4), [9, 3, 2, 1])
    values = np.random.default_rng(0).normal(size=15) + units
    variance, df = cr2(values, units)
    found = over_units(values, units)
    assert found.variance == pytest.approx(variance)
    assert found.df == pytest.approx(df)
    without = np.array([values[units != unit].mean() for unit in range(4)])
    again = jackknife(without, np.bincount(units))
    assert (again.variance, again.df) == (pytest.approx(variance), pytest.approx(df))


@pytest.mark.parametrize("sizes", [(60, 60, 60), (732, 346, 90), (400, 60, 60, 60, 60), (100, 10, 10, 10)])
def test_intervals_over_unequal_patients_hold_as_often_as_stated(sizes: tuple[int, ...]) -> None:
    """Patients differ, with one variance; the standard error of a coverage of .95 over 1000 samples is .007."""
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(len(sizes)), sizes)
    inside = []
    for _ in range(1000):
        values = rng.normal(size=len(sizes))[units] + rng.normal(size=len(units))
        low, high = over_units(values, units).interval(values.mean())
        inside.append(low <= 0 <= high)
    assert 0.93 < np.mean(inside) < 0.975


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
