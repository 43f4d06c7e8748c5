from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from spatialwhisperer.statistics.grouped_ridge import Moments, grouped_ridge, ridge_of_moments
from spatialwhisperer.statistics.left_out import left_out_units
from spatialwhisperer.statistics.reduced_rank import _within_sections, reduced_rank_ridge


def planted(n: int = 400, g: int = 40, rank: int = 3, noise: float = 0.5, seed: int = 0) -> tuple[Any, ...]:
    """Features, values and the map of low rank between them; the noise of a gene is its own."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 10))
    weight = rng.normal(size=(g, rank)) @ rng.normal(size=(rank, 10)) / np.sqrt(rank)
    y = x @ weight.T + noise * rng.normal(size=(n, g)) + rng.normal(size=g)
    return x, y, weight, np.repeat([0, 1], n // 2)


def error(fitted: dict[str, np.ndarray], weight: np.ndarray) -> float:
    return float(np.square(fitted["weight"] - weight).mean() / np.square(weight).mean())


def test_a_planted_map_is_recovered() -> None:
    x, y, weight, sections = planted()
    fitted = reduced_rank_ridge(x, sp.csr_matrix(y), sections, rank=3)
    assert fitted["weight"].shape == (40, 10)
    assert fitted["weight"].dtype == fitted["intercept"].dtype == np.float32
    assert error(fitted, weight) < 0.02
    predicted = x @ fitted["weight"].T + fitted["intercept"]
    assert np.allclose(predicted.mean(axis=0), y.mean(axis=0), atol=1e-4)


def test_it_is_the_mean_of_ridge_and_of_its_projection_on_principal_components() -> None:
    x, y, _, _ = planted(n=200, noise=2.0)
    fitted = reduced_rank_ridge(x, sp.csr_matrix(y), np.zeros(200), rank=4)
    alpha = grouped_ridge(x, y - y.mean(axis=0), left_out_units(np.zeros(200), None, None)).alpha
    ridge = Ridge(alpha=alpha).fit(x, y).coef_
    components = PCA(4).fit(y).components_
    assert np.allclose(fitted["weight"], 0.5 * ridge + 0.5 * components.T @ components @ ridge, atol=1e-4)


def test_full_rank_is_ridge() -> None:
    """With all components the projection is the identity, and what is left is scikit-learn's ridge."""
    x, y, _, _ = planted(noise=2.0)
    fitted = reduced_rank_ridge(x, sp.csr_matrix(y), np.zeros(400), rank=100)
    # a rotation of the targets leaves the sum of squared errors, so the penalty is that of the genes themselves
    alpha = grouped_ridge(x, y - y.mean(axis=0), left_out_units(np.zeros(400), None, None)).alpha
    ridge = Ridge(alpha=alpha).fit(x, y)
    assert np.allclose(fitted["weight"], ridge.coef_, atol=1e-4)
    assert np.allclose(fitted["intercept"], ridge.intercept_, atol=1e-4)


def test_low_rank_beats_full_rank_where_rows_are_few() -> None:
    x, y, weight, sections = planted(n=60, noise=3.0)
    low, full = (error(reduced_rank_ridge(x, sp.csr_matrix(y), sections, rank=r), weight) for r in (3, 40))
    assert low < 0.9 * full


def test_unpaired_sections_help_to_find_the_components() -> None:
    x, y, weight, sections = planted(n=60, noise=3.0)
    other = planted(n=2000, noise=3.0)
    more = sp.csr_matrix(other[1] + 5)  # a shift of the section does not matter
    assert np.array_equal(planted(n=60)[2], weight)
    assert not np.array_equal(other[2], weight)
    # the same map, other tissue
    rng = np.random.default_rng(1)
    same = rng.normal(size=(2000, 10)) @ weight.T + 3 * rng.normal(size=(2000, 40)) + 5
    without = error(reduced_rank_ridge(x, sp.csr_matrix(y), sections, rank=3), weight)
    with_it = error(reduced_rank_ridge(x, sp.csr_matrix(y), sections, rank=3, unpaired=[sp.csr_matrix(same)]), weight)
    misled = error(reduced_rank_ridge(x, sp.csr_matrix(y), sections, rank=3, unpaired=[more]), weight)
    assert with_it < without < misled


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_shifts_of_sections_do_not_matter(offset: float) -> None:
    """Nor where the features of the sections differ too, which would explain the shift."""
    x, y, _, sections = planted()
    x += offset * sections[:, None]
    plain = reduced_rank_ridge(x, sp.csr_matrix(y), sections, rank=3)
    shift = np.random.default_rng(2).normal(scale=20, size=(2, 40))[sections]
    moved = reduced_rank_ridge(x, sp.csr_matrix(y + shift), sections, rank=3)
    assert np.allclose(plain["weight"], moved["weight"], atol=1e-4)
    assert np.allclose(moved["intercept"], plain["intercept"] + shift.mean(axis=0), atol=1e-4)


def test_noise_is_shrunk_to_the_mean() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 20)), rng.normal(size=(300, 15)) + 3
    fitted = reduced_rank_ridge(x, sp.csr_matrix(y), np.zeros(300), rank=5)
    assert (x @ fitted["weight"].T).std() < 0.1
    assert np.allclose(fitted["intercept"], 3, atol=0.3)


def test_the_penalty_is_chosen_by_units_that_are_left_out() -> None:
    """It is that of a dense regression on expression less the mean of its section, for the units that are given."""
    x, y, _, sections = planted(n=200, noise=3.0)
    units = np.random.default_rng(1).integers(0, 5, 200)
    counts = np.where(y > 0, y, 0)
    centred = counts - np.stack([counts[sections == s].mean(axis=0) for s in (0, 1)])[sections]
    fit = grouped_ridge(x, centred, units)
    found = reduced_rank_ridge(x, sp.csr_matrix(counts), sections, rank=100, units=units)
    assert np.allclose(found["weight"].T, fit.weight, atol=1e-5)
    asked = []

    def part(rows: np.ndarray) -> Moments:
        asked.append(_within_sections(x - x.mean(axis=0), sp.csr_matrix(counts), sections, means, rows))
        return asked[-1]

    means = np.stack([counts[sections == s].mean(axis=0) for s in (0, 1)])
    assert ridge_of_moments(part, units).errors == pytest.approx(fit.errors, rel=1e-8)


def test_copies_of_spots_in_a_section_do_not_lead_to_the_smallest_penalty() -> None:
    rng = np.random.default_rng(0)
    x, y = (np.repeat(rng.normal(size=(60, d)), 4, axis=0) for d in (80, 15))
    fitted = reduced_rank_ridge(x, sp.csr_matrix(y), np.arange(240) // 60, rank=15)
    assert (x @ fitted["weight"].T).std() < 0.3 * y.std()
