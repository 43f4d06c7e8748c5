from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge, RidgeCV

from spatialwhisperer.statistics import reduced_rank
from spatialwhisperer.statistics.reduced_rank import ALPHAS, reduced_rank_ridge


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
    alpha = RidgeCV(alphas=ALPHAS).fit(x - x.mean(axis=0), y - y.mean(axis=0)).alpha_
    ridge = Ridge(alpha=alpha).fit(x, y).coef_
    components = PCA(4).fit(y).components_
    assert np.allclose(fitted["weight"], 0.5 * ridge + 0.5 * components.T @ components @ ridge, atol=1e-4)


def test_full_rank_is_ridge() -> None:
    """With all components the projection is the identity, and what is left is scikit-learn's ridge."""
    x, y, _, _ = planted(noise=2.0)
    fitted = reduced_rank_ridge(x, sp.csr_matrix(y), np.zeros(400), rank=100)
    # a rotation of the targets leaves the sum of squared errors, so the penalty is that of the genes themselves
    alpha = RidgeCV(alphas=ALPHAS).fit(x - x.mean(axis=0), y - y.mean(axis=0)).alpha_
    assert min(ALPHAS) <= alpha <= max(ALPHAS)
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


def test_a_sample_chooses_the_penalty_of_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, weight, sections = planted(n=1000)
    whole = reduced_rank_ridge(x, sp.csr_matrix(y), sections, rank=3)
    monkeypatch.setattr(reduced_rank, "ROWS_FOR_PENALTY", 200)
    sampled = reduced_rank_ridge(x, sp.csr_matrix(y), sections, rank=3)
    assert error(sampled, weight) < 0.02
    assert np.corrcoef(whole["weight"].ravel(), sampled["weight"].ravel())[0, 1] > 0.999
