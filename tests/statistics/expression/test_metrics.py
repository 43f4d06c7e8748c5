from __future__ import annotations

from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats

from spatialwhisperer.statistics.expression import metrics as em


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """Sparse-looking truth and a noisy prediction; gene 3 is constant in the truth, gene 4 in the prediction."""
    rng = np.random.default_rng(0)
    truth = np.log1p(rng.poisson(0.7, (80, 30))).astype(np.float32)
    predicted = (0.4 * truth + rng.gamma(1.0, 0.3, truth.shape)).astype(np.float32)
    truth[:, 3], predicted[:, 4] = 0, 0.1
    return truth, predicted


def forms(truth: np.ndarray) -> list[Any]:
    return [truth, sp.csr_matrix(truth), sp.csc_matrix(truth)]


def test_pearson_is_numpys(pair: Any) -> None:
    truth, predicted = pair
    expected = [
        np.nan if g in (3, 4) else np.corrcoef(truth[:, g], predicted[:, g])[0, 1] for g in range(truth.shape[1])
    ]
    for form in forms(truth):
        np.testing.assert_allclose(em.pearson_per_gene(form, predicted), expected, rtol=1e-5, equal_nan=True)
    assert em.pearson_per_gene(truth, predicted).dtype == np.float64


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_fewer_than_four_spots_have_no_correlation(n: int) -> None:
    rng = np.random.default_rng(n)
    truth, predicted = rng.random((n, 5)), rng.random((n, 5))
    predicted[:, 0] = 1
    expected = np.full(5, np.nan)
    if n == 4:
        expected[1:] = [np.corrcoef(truth[:, g], predicted[:, g])[0, 1] for g in range(1, 5)]
    for form in forms(truth):
        np.testing.assert_allclose(em.pearson_per_gene(form, predicted), expected, rtol=1e-6)
        # a constant prediction is counted where there could be a correlation
        assert em.unpredicted(em.moments(form, predicted)).tolist() == [n == 4] + [False] * 4


def test_pearson_of_large_offsets_does_not_cancel() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 4))
    y = x + rng.normal(size=x.shape)
    np.testing.assert_allclose(em.pearson_per_gene(x + 1e7, y + 1e7), em.pearson_per_gene(x, y), rtol=1e-6)


def test_a_constant_that_float32_cannot_average_is_constant() -> None:
    truth = np.random.default_rng(0).random((1000, 1))
    assert np.isnan(em.pearson_per_gene(truth, np.full((1000, 1), 0.1, np.float32))).all()


def test_blocks_do_not_matter(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, predicted = pair
    whole = [em.pearson_per_gene(f, predicted) for f in forms(truth)]
    hits = em.hit_at_k(truth, predicted, 3)
    monkeypatch.setattr(em, "_BLOCK_BYTES", 8 * 30 * 7)
    for form, expected in zip(forms(truth), whole, strict=True):
        np.testing.assert_allclose(em.pearson_per_gene(form, predicted), expected, rtol=1e-12, equal_nan=True)
    assert em.hit_at_k(truth, predicted, 3) == pytest.approx(hits)


def test_rows_with_nan_are_left_out(pair: Any) -> None:
    truth, predicted = pair
    holed = predicted.copy()
    holed[[2, 5], 7] = np.nan
    keep = np.setdiff1d(np.arange(80), [2, 5])
    for form in forms(truth):
        np.testing.assert_allclose(
            em.pearson_per_gene(form, holed), em.pearson_per_gene(truth[keep], predicted[keep]), equal_nan=True
        )
        np.testing.assert_allclose(em.mae(form, holed), em.mae(truth[keep], predicted[keep]), rtol=1e-6)
    nothing = np.full_like(predicted, np.nan)
    assert np.isnan(em.pearson_per_gene(truth, nothing)).all()
    assert np.isnan(em.mae(truth, nothing)).all()
    assert np.isnan(em.hit_at_k(truth, nothing, 1))


def test_errors_are_numpys(pair: Any) -> None:
    truth, predicted = (x.astype(np.float64) for x in pair)
    for form in forms(truth):
        m = em.moments(form, predicted)
        np.testing.assert_allclose(em.mse(m), ((truth - predicted) ** 2).mean(axis=0), rtol=1e-9)
        np.testing.assert_allclose(em.mae(form, predicted), np.abs(truth - predicted).mean(axis=0), rtol=1e-9)


def ssim_loop(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x / x.max(), y / y.max()
    top = max(x.max(), y.max())
    c1, c2 = (0.01 * top) ** 2, (0.03 * top) ** 2
    c3 = c2 / 2
    s, t, c = x.std(), y.std(), ((x - x.mean()) * (y - y.mean())).mean()
    luminance = (2 * x.mean() * y.mean() + c1) / (x.mean() ** 2 + y.mean() ** 2 + c1)
    return luminance * (2 * s * t + c2) / (s**2 + t**2 + c2) * (c + c3) / (s * t + c3)


def test_ssim_is_the_formula(pair: Any) -> None:
    truth, predicted = (x.astype(np.float64) for x in pair)
    expected = [np.nan if g == 3 else ssim_loop(truth[:, g], predicted[:, g]) for g in range(30)]
    for form in forms(truth):
        np.testing.assert_allclose(em.ssim(em.moments(form, predicted)), expected, rtol=1e-8, equal_nan=True)
    perfect = em.ssim(em.moments(truth, truth))
    np.testing.assert_allclose(perfect[np.arange(30) != 3], 1)


def test_rmse_z_is_of_z_scores(pair: Any) -> None:
    truth, predicted = (np.delete(x, [3, 4], axis=1).astype(np.float64) for x in pair)
    difference = stats.zscore(truth) - stats.zscore(predicted)
    r = em.pearson_per_gene(truth, predicted)
    np.testing.assert_allclose(em.rmse_z(r), np.sqrt((difference**2).mean(axis=0)), rtol=1e-8)


def test_hits_need_a_number_of_genes(pair: Any) -> None:
    with pytest.raises(ValueError, match="k must be between 1 and the number of genes"):
        em.hit_at_k(pair[0], pair[1], 31)


def choices(values: np.ndarray, k: int) -> list[set[int]]:
    """All ways to take the k highest of some values."""
    last = np.sort(values)[-k]
    above, tied = np.flatnonzero(values > last), np.flatnonzero(values == last)
    return [{*above.tolist(), *some} for some in combinations(tied.tolist(), k - len(above))]


@pytest.mark.parametrize("k", [1, 2, 3, 5, 7])
def test_hits_are_expected_over_ties(k: int) -> None:
    rng = np.random.default_rng(k)
    truth, predicted = rng.integers(0, 4, (40, 7)).astype(np.float32), rng.integers(0, 5, (40, 7)).astype(np.float32)
    expected = [
        np.mean([bool(a & b) for a in choices(t, k) for b in choices(p, k)])
        for t, p in zip(truth, predicted, strict=True)
    ]
    order = rng.permutation(7)
    for form, same in zip(forms(truth), forms(truth[:, order]), strict=True):
        assert em.hit_at_k(form, predicted, k) == pytest.approx(np.mean(expected), abs=1e-12)
        assert em.hit_at_k(same, predicted[:, order], k) == pytest.approx(np.mean(expected), abs=1e-12)


def test_hits_of_many_tied_genes_have_a_limit() -> None:
    """Of constant values any k of g genes are the highest: 1 - C(g - k, k) / C(g, k)."""
    flat = np.zeros((3, 20000), np.float32)
    assert em.hit_at_k(flat, flat, 1) == pytest.approx(1 / 20000, rel=1e-6)
    assert em.hit_at_k(flat, flat, 500) == pytest.approx(1, abs=1e-5)
    assert em.hit_at_k(flat, flat, 5) == pytest.approx(1 - comb(19995, 5) / comb(20000, 5), rel=1e-6)


def test_p_values_are_scipys() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 12))
    y = np.linspace(-1.5, 1.5, 12) * x + rng.normal(size=x.shape)
    expected = [-np.log10(stats.pearsonr(a, b).pvalue) for a, b in zip(x.T, y.T, strict=True)]
    np.testing.assert_allclose(em.neg_log10_p(em.pearson_per_gene(x, y), 60), expected, rtol=1e-8)


def test_p_values_do_not_underflow() -> None:
    r = np.array([0.9, -0.9, 0.999, 1.0, 0.0, np.nan])
    value = em.neg_log10_p(r, 5000)
    # -log10 of the incomplete beta function at 2499, 1/2, by 60-digit arithmetic
    assert value[0] == pytest.approx(1804.296493888, rel=1e-10)
    assert value[0] == value[1]
    assert value[2] > value[0]
    assert np.isposinf(value[3])
    assert value[4] == 0
    assert np.isnan(value[5])
    assert np.isnan(em.neg_log10_p(np.array([0.5]), 2)).all()


def test_both_ways_to_a_p_value_meet() -> None:
    a, r = np.array([200.0, 900.0, 5e4]), np.array([0.93, 0.6, 0.09])
    direct = np.log(em.betainc(a, 0.5, 1 - r**2))
    np.testing.assert_allclose(em._log_betainc_half(a, 1 - r**2), direct, rtol=1e-10)


def test_sections_that_agree_are_pooled_and_sections_that_differ_are_not() -> None:
    """With agreement the score is that of the weighted mean of Fisher's z; written out for two sections that differ."""
    n = np.array([103, 203])
    agree, df, between = em.random_effects(np.array([[0.3], [0.3]]), n)
    assert agree[0] == pytest.approx(np.arctanh(0.3) * np.sqrt(300))
    assert df[0] == 1
    assert between[0] == 0
    z = np.arctanh([0.5, -0.1])
    fixed = (100 * z[0] + 200 * z[1]) / 300
    tau2 = (100 * (z[0] - fixed) ** 2 + 200 * (z[1] - fixed) ** 2 - 1) / (300 - (100**2 + 200**2) / 300)
    weight = 1 / (1 / np.array([100, 200]) + tau2)
    mean = weight @ z / weight.sum()
    around = max(1.0, weight @ (z - mean) ** 2)
    score, _, between = em.random_effects(np.array([[0.5], [-0.1]]), n)
    assert between[0] == pytest.approx(np.sqrt(tau2))
    assert score[0] == pytest.approx(mean * np.sqrt(weight.sum() / around))


@pytest.mark.parametrize("k", [2, 3, 4, 8])
@pytest.mark.parametrize("between", [0.0, 0.3])
def test_genes_that_are_not_predicted_on_average_are_found_as_often_as_stated(k: int, between: float) -> None:
    """Fisher's z of sections differs around 0 with this standard deviation; p below 5 % in at most 6 % of 4000 genes."""
    rng = np.random.default_rng(k)
    n = np.linspace(100, 400, k).round()
    z = rng.normal(0, np.sqrt(between**2 + 1 / (n[:, None] - 3)), (k, 4000))
    score, df, _ = em.random_effects(np.tanh(z), n)
    assert (em.neg_log10_p_of_t(score, df) > -np.log10(0.05)).mean() < 0.06


def test_undefined_correlations_and_tiny_sections_are_left_out() -> None:
    r = np.array([[0.4, np.nan, np.nan], [np.nan, np.nan, 0.9]])
    score, df, _ = em.random_effects(r, np.array([50, 3]))
    assert score[0] == pytest.approx(np.arctanh(0.4) * np.sqrt(47))
    assert np.isposinf(df[0])
    assert np.isnan(score[1:]).all()
    assert np.isnan(df[1:]).all()


def test_p_values_of_student_t_are_those_of_scipy() -> None:
    t, df = np.array([2.0, -3.5, 0.0, 40.0, np.nan, 1.0]), np.array([1.0, 4.0, 2.0, 3.0, 2.0, np.nan])
    value = em.neg_log10_p_of_t(t, df)
    assert value[:4] == pytest.approx(-np.log10(2 * stats.t.sf(np.abs(t[:4]), df[:4])), abs=1e-12)
    assert np.isnan(value[4])
    # 400 degrees of freedom, where p is below the smallest number: the logarithm of the integral of the density
    far = em.neg_log10_p_of_t(np.array([200.0]), np.array([400.0]))[0]
    tail = stats.t.logpdf(200.0, 400) + np.log(200.0 / 400 * (1 + 400 / 200.0**2))
    assert far == pytest.approx(-(tail + np.log(2)) / np.log(10), rel=1e-3)


def test_p_values_of_z_scores_do_not_underflow() -> None:
    z = np.array([1.96, -1.96, 0.0, 60.0, np.nan])
    value = em.neg_log10_p_of_t(z, np.full(5, np.inf))
    assert value[:3] == pytest.approx(-np.log10(2 * stats.norm.sf(np.abs(z[:3]))), abs=1e-12)
    assert value[3] == pytest.approx(783.6, abs=0.5)
    assert np.isnan(value[4])


def test_adjustment_is_scipys() -> None:
    p = np.random.default_rng(0).random(40) ** 3
    adjusted = em.benjamini_hochberg(-np.log10(p))
    np.testing.assert_allclose(10**-adjusted, stats.false_discovery_control(p), rtol=1e-9)
    holed = em.benjamini_hochberg(np.array([2.0, np.nan, 1.0]))
    np.testing.assert_allclose(10 ** -holed[[0, 2]], [0.02, 0.1])
    assert np.isnan(holed[1])
    assert em.benjamini_hochberg(np.full(3, np.nan)).shape == (3,)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"found \(3, 2\) and \(3, 4\)"):
        em.pearson_per_gene(np.zeros((3, 2)), np.zeros((3, 4)))
