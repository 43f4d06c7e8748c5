from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from spatialwhisperer._compute import blocks as parallel
from spatialwhisperer.statistics.intervals.auroc import auroc, aurocs, placements


@pytest.mark.parametrize("decimals", [1, 8])
def test_auroc_is_that_of_sklearn_ties_included(decimals: int) -> None:
    rng = np.random.default_rng(0)
    scores, present = rng.normal(size=200).round(decimals), rng.random(200) < 0.3
    assert auroc(scores, present) == pytest.approx(roc_auc_score(present, scores))


def test_both_kinds_of_rows_are_placed_equally_well() -> None:
    rng = np.random.default_rng(1)
    scores, present = rng.normal(size=60).round(1), rng.random(60) < 0.4
    placed = placements(scores, present)
    assert placed[present].mean() == pytest.approx(placed[~present].mean())
    first = np.flatnonzero(present)[0]
    others = scores[~present]
    assert placed[first] == pytest.approx((others < scores[first]).mean() + (others == scores[first]).mean() / 2)


def test_auroc_needs_present_and_absent_rows() -> None:
    scores = np.arange(4.0)
    assert np.isnan(auroc(scores, np.zeros(4, bool)))
    assert np.isnan(auroc(scores, np.ones(4, bool)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("threads", [1, 3])
def test_aurocs_of_columns_are_those_by_pairs(
    seed: int, kind: type, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside counting all pairs: random shapes, ties, classes of no row and of all rows, columns with a NaN."""
    monkeypatch.setattr(parallel, "cores", lambda: threads)
    rng = np.random.default_rng(seed)
    n, c = int(rng.integers(1, 80)), int(rng.integers(1, 40))
    scores: np.ndarray = rng.integers(-3, 4, (n, c)).astype(kind)
    codes = rng.integers(0, max(1, c - 1), n)
    expected = np.full(c, np.nan)
    for k in range(c):
        if kind is not np.int64 and k % 5 == 4:
            scores[rng.integers(n), k] = np.nan
        own, other = scores[codes == k, k], scores[codes != k, k]
        if len(own) and len(other) and not np.isnan(scores[:, k]).any():
            expected[k] = ((own[:, None] > other).mean() + (own[:, None] >= other).mean()) / 2
    np.testing.assert_allclose(aurocs(scores, codes), expected, rtol=1e-12, atol=0)
