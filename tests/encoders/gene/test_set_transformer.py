"""A set transformer over the expressed genes of a row."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from spatialwhisperer.encoders.gene.set_transformer import SetTransformerEncoder
from spatialwhisperer.encoders.resolve import load_gene_encoder

N, G = 120, 50
GENES = [f"G{i}" for i in range(G)]


def counts(seed: int = 0, n: int = N) -> tuple[sp.csr_matrix, np.ndarray]:
    """Two kinds of rows that differ in ten genes; the last gene is never seen."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 2, n)
    rate = (0.3 + np.random.default_rng(7).gamma(1.0, 1.0, G)) * np.where(np.arange(G) < 10, 1 + 5 * kind[:, None], 1)
    rate[:, -1] = 0
    return sp.csr_matrix(rng.poisson(rate * rng.lognormal(0, 0.3, (n, 1))).astype(np.float32)), kind


@pytest.fixture(scope="module")
def transformer() -> SetTransformerEncoder:
    options: dict[str, Any] = {"n_latent": 6, "n_hidden": 16, "max_genes": 20, "max_epochs": 30, "device": "cpu"}
    return SetTransformerEncoder.fit(counts(n=240)[0], GENES, **options)


def test_set_transformer_tells_kinds_apart_on_rows_it_never_saw(transformer):
    train, unseen = counts(n=240), counts(5)
    inside = transformer.encode(train[0][:, :-1], device="cpu")
    outside = transformer.encode(unseen[0][:, :-1], device="cpu")
    centres = np.stack([inside[train[1] == k].mean(axis=0) for k in (0, 1)])
    guess = np.linalg.norm(outside[:, None] - centres, axis=2).argmin(axis=1)
    assert (guess == unseen[1]).mean() > 0.9
    assert transformer.fitted["unexplained_variance"] < 1


def test_set_transformer_does_not_know_the_order_of_genes(transformer):
    order = np.random.default_rng(0).permutation(G - 1)
    weights = transformer.tensors()
    weights |= {name: weights[name][order] for name in ("gene.weight", "priority")}
    genes = [transformer.genes[i] for i in order]
    shuffled = SetTransformerEncoder(genes, weights=weights, n_latent=6, **transformer.sizes)
    x = counts(3)[0][:, :-1]
    # sets are cut to 20 genes, most of them with equal counts at the edge
    assert np.median((x.toarray() > 0).sum(axis=1)) > 20
    np.testing.assert_allclose(
        shuffled.encode(x[:, order], device="cpu"), transformer.encode(x, device="cpu"), atol=1e-5
    )


def test_set_transformer_repeats_and_leaves_the_random_state():
    import torch

    options: dict[str, Any] = {"n_latent": 3, "n_hidden": 8, "max_epochs": 1, "device": "cpu", "random_state": 4}
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    batch = np.arange(N) % 3
    first, second = (SetTransformerEncoder.fit(counts()[0], GENES, batch=batch, **options) for _ in range(2))
    first.module()
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[:2]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    for name, value in first.tensors().items():
        np.testing.assert_array_equal(value, second.tensors()[name])
    assert first.fitted["batches"] == 3


def test_set_transformer_saves_and_ignores_the_batch_size(transformer, tmp_path):
    x = counts(2)[0][:, :-1]
    whole = transformer.encode(x, device="cpu", batch_size=1000)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(transformer.encode(x, device="cpu", batch_size=7), whole, atol=1e-5)
    transformer.save(tmp_path / "encoder")
    again = load_gene_encoder(tmp_path / "encoder")
    assert again.identity == transformer.identity
    np.testing.assert_array_equal(again.encode(x, device="cpu", batch_size=1000), whole)
    empty = transformer.encode(np.zeros((2, G - 1)), device="cpu")
    assert np.isfinite(empty).all()


def test_set_transformer_module_trains_end_to_end(transformer):
    import torch

    x = counts()[0][:, :-1]
    before = transformer.encode(x, device="cpu")
    tower = transformer.module()
    out = tower(transformer.collate(x))
    np.testing.assert_allclose(out.detach().numpy(), before, atol=1e-5)
    optimizer = torch.optim.SGD(tower.parameters(), lr=0.1)
    out.square().mean().backward()
    assert all(p.grad is not None for p in tower.parameters())
    optimizer.step()
    np.testing.assert_array_equal(transformer.encode(x, device="cpu"), before)


def test_set_transformer_refuses_impossible_sizes():
    with pytest.raises(ValueError, match="n_hidden=10 is not a multiple of n_heads=4"):
        SetTransformerEncoder.fit(counts()[0], GENES, n_hidden=10)
    with pytest.raises(ValueError, match="max_genes must be"):
        SetTransformerEncoder.fit(counts()[0], GENES, max_genes=0)
    with pytest.raises(ValueError, match="max_epochs"):
        SetTransformerEncoder.fit(counts()[0], GENES, max_epochs=0)
