from __future__ import annotations

import numpy as np
import pytest

from spatialwhisperer.protocols.default_model.unseen_patients import agreement


def test_scores_that_agree_with_the_expression_rank_perfectly() -> None:
    gene = np.eye(3)[np.arange(60) % 3]
    assert agreement(2 * gene, gene) == {"kappa": 1.0, "auroc": 1.0}


def test_unrelated_scores_agree_by_chance() -> None:
    rng = np.random.default_rng(0)
    found = agreement(rng.random((3000, 3)), rng.random((3000, 3)))
    assert found["kappa"] == pytest.approx(0, abs=0.05)
    assert found["auroc"] == pytest.approx(0.5, abs=0.05)


def test_rows_without_scores_and_labels_of_few_rows_do_not_count() -> None:
    gene = np.eye(3)[np.r_[np.arange(60) % 2, 2, 2]]
    image = gene.copy()
    image[-1] = np.nan
    image[-2] = [0.0, -1.0, -1.0]  # the only row of its label
    found = agreement(image, gene)
    assert found["auroc"] == 1.0
    assert found["kappa"] < 1
