"""Standard errors of estimates from neighbouring spots, against formulas and simulations whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from spatialwhisperer.protocols.coverage import measure
from spatialwhisperer.statistics.intervals.auroc import auroc, influence
from spatialwhisperer.statistics.intervals.spatial import SAMPLE, SpatialErrors, without

GRID = np.argwhere(np.ones((18, 18)))
ONE = np.zeros(len(GRID))


def smooth(rng: np.random.Generator, sigma: float, edge: int = 18) -> np.ndarray:
    """Standard normal values whose correlation at distance d is exp(-d² / 4 sigma²)."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(rng.normal(size=(edge + 24, edge + 24)), sigma)[12:-12, 12:-12]
    return noise.ravel() * 2 * np.sqrt(np.pi) * sigma


@pytest.fixture(scope="module")
def errors() -> SpatialErrors:
    return SpatialErrors(GRID, ONE)


def test_rows_without_positions_have_the_usual_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=50)
    found = SpatialErrors(None, np.zeros(50)).mean(values)
    assert found.variance == pytest.approx(values.var(ddof=1) / 50)
    assert found.parts == 50


def test_the_standard_error_of_smooth_values_is_that_of_their_covariance(errors: SpatialErrors) -> None:
    """Over many fields, the mean of the estimated variances is the variance of the mean, which is known."""
    rng = np.random.default_rng(0)
    found = np.mean([errors.mean(smooth(rng, 1.5)).variance for _ in range(60)])
    distance = np.sqrt(((GRID[:, None] - GRID) ** 2).sum(axis=2))
    true = np.exp(-(distance**2) / (4 * 1.5**2)).sum() / len(GRID) ** 2
    assert found == pytest.approx(true, rel=0.3)
    # as if spots were independent: less than a tenth
    assert true > 10 / len(GRID)


def test_units_of_positions_do_not_matter(errors: SpatialErrors) -> None:
    values = smooth(np.random.default_rng(1), 1)
    assert SpatialErrors(GRID * 100.0, ONE).mean(values).variance == pytest.approx(errors.mean(values).variance)


def test_sections_are_independent() -> None:
    values = smooth(np.random.default_rng(1), 2)
    one = SpatialErrors(GRID, ONE).mean(values)
    both = SpatialErrors(np.vstack([GRID, GRID]), np.repeat([0, 1], 324)).mean(np.r_[values, values])
    assert both.variance < 0.8 * one.variance


def test_an_auroc_of_independent_rows_has_the_error_of_delong() -> None:
    rng = np.random.default_rng(0)
    present = rng.random(400) < 0.3
    scores = rng.normal(size=400) + present
    moved = influence(scores, present)
    assert moved.mean() == pytest.approx(0, abs=1e-12)
    delong = (moved**2).mean() / 400
    assert SpatialErrors(None, np.zeros(400)).auroc(scores, present).variance == pytest.approx(delong, rel=0.05)
    without_first = auroc(scores[1:], present[1:])
    assert auroc(scores, present) - without_first == pytest.approx(moved[0] / 400, rel=0.02)


def test_the_difference_of_equal_scores_has_no_error(errors: SpatialErrors) -> None:
    rng = np.random.default_rng(0)
    scores, present = rng.normal(size=324), rng.random(324) < 0.3
    assert errors.auroc(scores, present, scores).variance == pytest.approx(0, abs=1e-15)
    near = errors.auroc(scores, present, scores + 0.01 * rng.normal(size=324))
    assert near.variance < 0.01 * errors.auroc(scores, present).variance


def test_a_kind_in_one_place_is_one_patch(errors: SpatialErrors) -> None:
    inside = (GRID < 6).all(axis=1)
    found = errors.fraction(inside)
    assert found.parts < 3
    assert np.isnan(found.interval(inside.mean(), bounded=True)).all()


def test_values_that_are_alike_have_no_interval(errors: SpatialErrors) -> None:
    assert np.isnan(errors.mean(np.ones(324)).interval(1.0)).all()
    assert np.isnan(errors.fraction(np.ones(324, bool)).interval(1.0, bounded=True)).all()


def test_rows_without_a_value_are_left_out(errors: SpatialErrors) -> None:
    values = smooth(np.random.default_rng(2), 1)
    holes = values.copy()
    holes[::3] = np.nan
    kept = np.isfinite(holes)
    expected = SpatialErrors(GRID[kept], ONE[kept]).mean(holes[kept])
    assert errors.mean(holes).half_width == pytest.approx(expected.half_width, rel=0.25)


def test_many_rows_are_fitted_on_a_sample() -> None:
    grid = np.argwhere(np.ones((40, 40)))
    large = SpatialErrors(grid, np.zeros(1600))
    assert len(large.sample) == SAMPLE
    values = smooth(np.random.default_rng(3), 2, edge=40)
    assert large.mean(values).parts == pytest.approx(1600 / (4 * np.pi * 4), rel=0.6)


def test_taking_out_a_basis_leaves_nothing_of_it() -> None:
    matrix = np.cov(np.random.default_rng(0).normal(size=(6, 40)))
    basis = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 2)))[0]
    assert np.allclose(without(matrix, basis) @ basis, 0)


# ------------------------------------------------------------------------------------------------- coverage


def test_the_mean_of_smooth_values_is_covered() -> None:
    """Blocks of twelve spots gave 55 % here."""
    (row,) = measure(120, ("mean",), (2.0,)).to_dict("records")
    assert row["coverage"] > 0.9
    assert row["given"] > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.0, 2.0])
def test_intervals_cover_the_truth(sigma: float) -> None:
    """Nominal 95 %; the standard error of a coverage of .95 over 150 sections is .018."""
    table = measure(150, (), (sigma,)).set_index("what")["coverage"]
    assert (table.drop("test beyond darkness") > 0.895).all(), table
    assert 1 - table["test beyond darkness"] < 0.1
