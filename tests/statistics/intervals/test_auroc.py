from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from spatialwhisperer.statistics.intervals.auroc import auroc, placements


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
