"""Measures of the predictor of expression that training stores, on arrays."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from spatialwhisperer.tl._training.expression import by_section, gene_lists


def test_accuracy_is_within_sections() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(60, 3)).astype(np.float32)
    sections = np.repeat(["a", "b"], 30)
    predicted = truth.copy()
    predicted[30:, 0] *= -1
    predicted[:, 1] += np.where(sections == "a", 100, 0)  # between sections
    truth[:30, 2] = 5  # constant, so undefined there
    r = by_section(sp.csr_matrix(truth), predicted, sections)
    assert np.allclose(r, [0, 1, 1], atol=1e-4)
    truth[:, 2] = 5
    assert np.isnan(by_section(sp.csr_matrix(truth), predicted, sections)[2])


def test_lists_of_genes() -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 1, size=(40, 60))
    values[:, 7] += 5
    values[::2, 9] += 3
    values[20:, 3] += 8  # differs between sections, and not within them
    lists = gene_lists(sp.csr_matrix(values), [f"g{i}" for i in range(60)], np.repeat([0, 1], 20))
    assert lists["HEG50"][0] == "g7"
    assert lists["HVG50"][0] == "g9"
    assert "g3" not in lists["HVG50"][:1]
    assert {len(v) for v in lists.values()} == {50}
