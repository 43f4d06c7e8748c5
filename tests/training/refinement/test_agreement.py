from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from spatialwhisperer.training.refinement.agreement import caption_agreement, units_agreement


def test_by_hand() -> None:
    """Two of eight rows are in the top quartile; the image ranks one of them first and one fourth: 10 of 12 pairs are in order."""
    fixed = np.array([[8.0], [7], [6], [5], [4], [3], [2], [1]])
    image = np.array([[9.0], [5], [8], [7], [4], [3], [2], [1]])
    assert caption_agreement(image, fixed, np.repeat("a", 8)) == pytest.approx(10 / 12)


def test_ties_count_half() -> None:
    fixed = np.arange(8.0)[:, None]
    assert caption_agreement(np.zeros((8, 1)), fixed, np.repeat("a", 8)) == pytest.approx(0.5)


def test_mean_over_captions_then_over_sections_as_sklearn_computes_it() -> None:
    rng = np.random.default_rng(0)
    image, fixed = rng.normal(size=(50, 4)), rng.normal(size=(50, 4))
    sections = np.repeat(["a", "b"], [20, 30])
    expected = []
    for name in "ab":
        at = sections == name
        present = fixed[at] > np.quantile(fixed[at], 0.75, axis=0)
        expected.append(np.mean([roc_auc_score(present[:, c], image[at][:, c]) for c in range(4)]))
    assert caption_agreement(image, fixed, sections) == pytest.approx(np.mean(expected))
    own = units_agreement(image, fixed, sections, sections, ["b", "a"])
    assert own == pytest.approx(expected[::-1])


def test_what_cannot_be_ranked_is_left_out() -> None:
    """A caption that scores all rows alike, a section of seven rows."""
    fixed = np.column_stack([np.arange(8.0), np.ones(8)])
    image = np.column_stack([np.arange(8.0), np.arange(8.0)])
    assert caption_agreement(image, fixed, np.repeat("a", 8)) == 1.0
    assert np.isnan(caption_agreement(image[:7], fixed[:7], np.repeat("a", 7)))
    assert np.isnan(caption_agreement(image[:, 1:], fixed[:, 1:], np.repeat("a", 8)))
    both = np.concatenate([image, image[:7]]), np.concatenate([fixed, -fixed[:7]])
    assert caption_agreement(*both, np.repeat(["a", "b"], [8, 7])) == 1.0
