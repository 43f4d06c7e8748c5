from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut

from spatialwhisperer.statistics.grouped_ridge import MOST_FOLDS, PENALTIES, grouped_ridge, moments


def planted(
    n: int = 240, groups: int = 6, noise: float = 3.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features and targets that are neither centred nor of one size, and groups of unequal sizes."""
    rng = np.random.default_rng(seed)
    units = rng.choice(groups, n, p=np.arange(1, groups + 1) / np.arange(1, groups + 1).sum())
    x = rng.normal(size=(n, 12)) * np.geomspace(0.1, 10, 12) + rng.normal(size=(groups, 12))[units] + 2
    y = x @ rng.normal(size=(12, 7)) + noise * rng.normal(size=(n, 7)) + rng.normal(size=(groups, 7))[units]
    return x, y, units


def naive(x: np.ndarray, y: np.ndarray, units: np.ndarray, folds: object) -> np.ndarray:
    errors = np.zeros(len(PENALTIES))
    for stay, out in folds.split(x, groups=units):  # type: ignore[attr-defined]
        unit = np.square(x[stay] - x[stay].mean(axis=0)).sum() / x.shape[1]
        for i, penalty in enumerate(PENALTIES):
            fit = Ridge(alpha=penalty * unit, solver="cholesky").fit(x[stay], y[stay])
            errors[i] += np.square(fit.predict(x[out]) - y[out]).sum()
    return errors


@pytest.mark.parametrize("n", [240, 16])
def test_the_choice_is_that_of_a_loop_over_the_groups(n: int) -> None:
    """Also where there are fewer rows than features."""
    x, y, units = planted(n)
    fit = grouped_ridge(x, y, units)
    expected = naive(x, y, units, LeaveOneGroupOut())
    assert fit.errors == pytest.approx(expected, rel=1e-8)
    assert fit.penalty == PENALTIES[int(np.argmin(expected))]
    assert fit.alpha == pytest.approx(fit.penalty * np.square(x - x.mean(axis=0)).sum() / 12)
    assert np.allclose(fit.weight.T, Ridge(alpha=fit.alpha).fit(x, y).coef_, rtol=1e-8, atol=1e-8)


def test_many_groups_are_left_out_several_at_a_time() -> None:
    x, y, units = planted(400, groups=25)
    assert grouped_ridge(x, y, units).errors == pytest.approx(naive(x, y, units, GroupKFold(MOST_FOLDS)), rel=1e-8)


def test_near_copies_inside_groups_do_not_lead_to_the_smallest_penalty() -> None:
    """Each spot has near copies, as overlapping tiles are; leaving single spots out shows nothing but how well they are copied."""
    rng = np.random.default_rng(0)
    n, d = 60, 80
    x, y = rng.normal(size=(n, d)), rng.normal(size=(n, 5))
    x, y = (np.repeat(a, 4, axis=0) + 1e-3 * rng.normal(size=(4 * n, a.shape[1])) for a in (x, y))
    units = np.arange(4 * n) // 40
    alphas = [p * np.square(x - x.mean(axis=0)).sum() / d for p in PENALTIES]
    assert RidgeCV(alphas=alphas).fit(x, y).alpha_ == min(alphas)
    assert grouped_ridge(x, y, units).penalty >= 1e3 * PENALTIES[0]


@pytest.mark.parametrize("scale", [1, 100])
def test_neither_more_of_the_same_rows_nor_other_units_change_the_choice(scale: float) -> None:
    x, y, units = planted()
    one = grouped_ridge(x, y, units)
    many = grouped_ridge(scale * np.tile(x, (5, 1)), np.tile(y, (5, 1)), np.tile(units, 5))
    assert min(PENALTIES) < one.penalty < max(PENALTIES)
    assert many.penalty == one.penalty
    assert many.alpha == pytest.approx(5 * scale**2 * one.alpha)
    assert np.allclose(scale * many.weight, one.weight)


def test_one_unit_gets_the_largest_penalty() -> None:
    x, y, units = planted()
    assert grouped_ridge(x, y, np.zeros_like(units)).penalty == PENALTIES[-1]


def test_constant_features_predict_nothing() -> None:
    _, y, units = planted()
    assert not grouped_ridge(np.ones((240, 3)), y, units).weight.any()


def test_moments_without_some_rows_are_those_of_the_others() -> None:
    x, y, units = planted()
    rest = moments(x, y).without(moments(x[units == 2], y[units == 2]))
    expected = moments(x[units != 2], y[units != 2])
    for name in ("n", "x", "y", "xx", "xy", "yy"):
        assert np.allclose(getattr(rest, name), getattr(expected, name))
    centred = rest.centred(rest)
    assert np.allclose(centred.x, 0)
    assert np.allclose(centred.yy, np.square(y[units != 2] - y[units != 2].mean(axis=0)).sum())
