from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from spatialwhisperer.statistics.bootstrap import Bootstrap, auroc, interval, spatial_blocks


def repeated(weights: np.ndarray) -> np.ndarray:
    """Rows of one resampling, each as often as it was drawn: what the weights stand for."""
    return np.repeat(np.arange(len(weights)), weights.astype(int))


# ------------------------------------------------------------------------------------------------- resampling


def test_weights_are_draws_of_whole_blocks() -> None:
    blocks = np.array([7, 7, 7, 2, 2, 9])
    boot = Bootstrap(blocks, 50, 0)
    assert boot.n_blocks == 3
    assert boot.weights.shape == (50, 6)
    assert np.array_equal(boot.weights, boot.weights[:, [0, 0, 0, 3, 3, 5]])
    assert (boot.weights[:, [0, 3, 5]].sum(axis=1) == 3).all()


def test_weighted_means_are_those_of_repeated_rows() -> None:
    rng = np.random.default_rng(0)
    values, blocks = rng.normal(size=40), rng.integers(0, 9, 40)
    boot = Bootstrap(blocks, 30, 1)
    assert boot.means(values) == pytest.approx([values[repeated(w)].mean() for w in boot.weights])
    assert boot.mean(values) == pytest.approx(np.quantile(boot.means(values), [0.025, 0.975]))


def test_rows_with_nan_do_not_enter_a_mean() -> None:
    values = np.array([1.0, np.nan, 3.0, 5.0])
    boot = Bootstrap(np.arange(4), 40, 0)
    by_hand = [np.nanmean(x) if np.isfinite(x := values[repeated(w)]).any() else np.nan for w in boot.weights]
    assert boot.means(values) == pytest.approx(np.array(by_hand), nan_ok=True)
    assert np.isnan(boot.means(np.full(4, np.nan))).all()


def test_the_seed_decides() -> None:
    first, again, other = (Bootstrap(np.arange(20), 10, seed).weights for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_no_rows_have_no_mean() -> None:
    boot = Bootstrap(np.empty(0), 5, 0)
    assert boot.n_blocks == 0
    assert boot.weights.shape == (5, 0)
    assert boot.mean(np.empty(0)) == pytest.approx((np.nan, np.nan), nan_ok=True)


def test_intervals_cover_the_true_mean_about_as_often_as_they_should() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for i in range(100):
        low, high = Bootstrap(np.arange(80), 100, i).mean(rng.normal(size=80))
        hits += low < 0 < high
    assert 85 <= hits <= 100


def test_blocks_of_neighbours_widen_the_interval() -> None:
    blocks = np.repeat(np.arange(20), 10)
    values = np.repeat(np.random.default_rng(0).normal(size=20), 10)
    by_row, by_block = Bootstrap(np.arange(200), 300, 0).mean(values), Bootstrap(blocks, 300, 0).mean(values)
    assert np.diff(by_block) > 2 * np.diff(by_row)


def test_an_interval_needs_half_of_the_resamplings() -> None:
    assert interval(np.array([1.0, np.nan, np.nan])) == pytest.approx((np.nan, np.nan), nan_ok=True)
    assert interval(np.array([1.0])) == pytest.approx((np.nan, np.nan), nan_ok=True)
    assert interval(np.array([1.0, 3.0, np.nan, np.nan])) == pytest.approx((1.05, 2.95))


# ------------------------------------------------------------------------------------------------- blocks


def test_blocks_are_neighbours_within_sections() -> None:
    rng = np.random.default_rng(0)
    xy, sections = rng.uniform(size=(300, 2)), np.repeat(["a", "b"], 150)
    blocks = spatial_blocks(xy, sections)
    sizes = np.bincount(blocks)
    assert 8 <= sizes[sizes > 0].min() <= sizes.max() <= 18
    assert not set(blocks[:150]) & set(blocks[150:])
    extent = np.mean([xy[blocks == b].std(axis=0).mean() for b in np.unique(blocks)])
    assert extent < 0.5 * xy.std(axis=0).mean()


def test_rows_without_positions_are_blocks_of_their_own() -> None:
    sections = np.repeat(["a", "b"], 3)
    assert np.array_equal(spatial_blocks(None, sections), np.arange(6))
    assert np.array_equal(spatial_blocks(np.full((6, 2), np.nan), sections), np.arange(6))


def test_a_small_section_is_one_block() -> None:
    assert len(set(spatial_blocks(np.random.default_rng(0).uniform(size=(5, 2)), np.zeros(5)))) == 1


# ------------------------------------------------------------------------------------------------- area under the curve


@pytest.mark.parametrize("decimals", [1, 8])
def test_auroc_is_that_of_sklearn_ties_included(decimals: int) -> None:
    rng = np.random.default_rng(0)
    scores, present = rng.normal(size=200).round(decimals), rng.random(200) < 0.3
    assert auroc(scores, present) == pytest.approx(roc_auc_score(present, scores))


def test_weighted_auroc_is_that_of_repeated_rows() -> None:
    rng = np.random.default_rng(1)
    scores, present = rng.normal(size=60).round(1), rng.random(60) < 0.4
    weights = Bootstrap(rng.integers(0, 12, 60), 20, 0).weights
    expected = [roc_auc_score(present[rows], scores[rows]) for rows in map(repeated, weights)]
    assert auroc(scores, present, weights) == pytest.approx(expected)


def test_auroc_needs_present_and_absent_rows() -> None:
    scores = np.arange(4.0)
    assert np.isnan(auroc(scores, np.zeros(4, bool)))
    assert np.isnan(auroc(scores, np.ones(4, bool)))
    # a resampling that drew no present row
    weights = np.array([[0, 0, 2, 2], [1, 1, 1, 1]])
    got = auroc(scores, np.array([True, True, False, False]), weights)
    assert got == pytest.approx(np.array([np.nan, 0]), nan_ok=True)
