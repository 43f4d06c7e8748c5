from __future__ import annotations

import numpy as np
import pytest

from spatialwhisperer.statistics.standardize import MIN_ROWS, standardize, statistics

X = np.random.default_rng(0).normal(3, 2, (60, 4)).astype(np.float32)
MEAN, STD = statistics(X)


def test_statistics_leave_out_incomplete_rows_and_constants() -> None:
    x = X.copy()
    x[0, 1] = np.nan
    x[:, 3] = 7
    mean, std = statistics(x)
    assert np.allclose(mean, x[1:].mean(0), atol=1e-5)
    assert np.allclose(std[:3], x[1:, :3].std(0), atol=1e-5)
    assert std[3] == 1
    assert mean.dtype == std.dtype == np.float32
    with pytest.raises(ValueError, match="hold NaN"):
        statistics(np.full((3, 2), np.nan))


def test_none_and_global() -> None:
    assert np.array_equal(standardize(X, how="none", mean=MEAN, std=STD), X)
    z = standardize(X, how="global", mean=MEAN, std=STD)
    assert np.allclose(z, (X - MEAN) / STD, atol=1e-6)
    assert standardize(X * 1e3, how="global", mean=MEAN, std=STD).max() == 6


def test_each_section_has_its_own_scale() -> None:
    sections = np.repeat(["b", "a"], 30)
    x = X.copy()
    x[30:] = x[30:] * 5 + 100
    z = standardize(x, how="section", mean=MEAN, std=STD, sections=sections)
    for name in "ab":
        assert np.allclose(z[sections == name].mean(0), 0, atol=1e-4)
        assert np.allclose(z[sections == name].std(0), 1, atol=1e-4)
    whole = standardize(X, how="section", mean=0 * MEAN, std=STD)
    assert np.allclose(whole.mean(0), 0, atol=1e-4)


def test_a_section_of_few_rows_takes_the_training_scale() -> None:
    few = X[: MIN_ROWS - 1]
    assert np.array_equal(
        standardize(few, how="section", mean=MEAN, std=STD), standardize(few, how="global", mean=MEAN, std=STD)
    )


def test_rows_with_nan_stay_nan_and_do_not_touch_others() -> None:
    x = X.copy()
    x[5] = np.nan
    z = standardize(x, how="section", mean=MEAN, std=STD)
    assert np.isnan(z[5]).all()
    assert np.isfinite(np.delete(z, 5, 0)).all()
    assert np.allclose(np.delete(z, 5, 0).mean(0), 0, atol=1e-4)


def test_unknown_way() -> None:
    with pytest.raises(ValueError, match="'section', 'global' or 'none', not 'batch'"):
        standardize(X, how="batch", mean=MEAN, std=STD)
