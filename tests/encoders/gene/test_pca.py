"""Principal components of log-normalised counts."""

from __future__ import annotations

import numpy as np
import pytest

from spatialwhisperer.encoders.gene.pca import PCAEncoder

N, G = 150, 60
GENES = [f"G{i}" for i in range(G)]


def test_pca_equals_the_plain_formula(pca, counts):
    x = counts()[0].toarray().astype(float)
    y = np.log1p(1e4 * x / x.sum(axis=1, keepdims=True))
    y -= y.mean(axis=0)
    _, _, axes = np.linalg.svd(y, full_matrices=False)
    axes = axes[:5].T * np.sign(axes[:5].T[np.abs(axes[:5].T).argmax(axis=0), np.arange(5)])
    np.testing.assert_allclose(pca.encode(counts()[0]), y @ axes, atol=1e-3)


def test_pca_iterative_solver_agrees_with_the_exact_one(monkeypatch, counts):
    batch = np.arange(N) % 3
    exact = PCAEncoder.fit(counts()[0], GENES, batch=batch, n_latent=5)
    monkeypatch.setattr("spatialwhisperer.encoders.gene.pca._DENSE_UP_TO", 10)
    iterative = PCAEncoder.fit(counts()[0], GENES, batch=batch, n_latent=5)
    np.testing.assert_allclose(iterative.components, exact.components, atol=1e-4)
    assert iterative.fitted == exact.fitted


def test_pca_components_ignore_what_only_differs_between_batches(counts):
    x, _ = counts()
    batch = np.arange(N) % 2
    shifted = x.toarray()
    shifted[batch == 1, 20:30] += 40
    top = np.abs(PCAEncoder.fit(shifted, GENES, n_latent=1).components[20:30]).sum()
    within = np.abs(PCAEncoder.fit(shifted, GENES, batch=batch, n_latent=1).components[20:30]).sum()
    assert within < top / 2


def test_pca_takes_the_training_mean_for_genes_that_were_not_measured(pca, counts):
    x = counts(1)[0].toarray()
    present = np.ones(G, bool)
    present[40:] = False
    panel = x * present
    full, as_mean, as_zero = pca.encode(x), pca.encode(panel, present=present), pca.encode(panel)
    assert np.abs(as_mean - full).mean() < np.abs(as_zero - full).mean() / 2
    # what stands in the columns of missing genes does not matter
    np.testing.assert_array_equal(as_mean, pca.encode(x, present=present))


def test_pca_refuses_more_components_than_the_rows_carry(counts):
    with pytest.raises(ValueError, match="n_latent=32 components cannot be found in 10 rows"):
        PCAEncoder.fit(counts(n=10)[0], GENES)
