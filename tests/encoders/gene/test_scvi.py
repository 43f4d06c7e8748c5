"""The encoders of scVI, scANVI and DRVI, fitted by scvi-tools and kept without it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from spatialwhisperer.encoders.gene._networks import scvi_training as _scvi_training
from spatialwhisperer.encoders.gene._networks.scvi_training import minibatch_rows
from spatialwhisperer.encoders.gene.drvi import DRVIEncoder
from spatialwhisperer.encoders.gene.scanvi import SCANVIEncoder
from spatialwhisperer.encoders.gene.scvi import SCVIEncoder
from spatialwhisperer.encoders.resolve import load_gene_encoder

N, G = 150, 60
GENES = [f"G{i}" for i in range(G)]


def test_scvi_encoder_equals_scvi_tools(scvi_fit, counts):
    import torch

    encoder, model = scvi_fit
    x = counts()[0]
    ours = encoder.encode(x, device="cpu", batch_size=32)
    np.testing.assert_allclose(ours, model.get_latent_representation(), atol=1e-6)
    unseen = counts(7)[0]
    dense = torch.from_numpy(unseen.toarray().astype(np.float32))
    with torch.no_grad():
        theirs = model.module.inference(dense, torch.zeros(N, 1))["qz"].loc.numpy()
    np.testing.assert_allclose(encoder.encode(unseen, device="cpu"), theirs, atol=1e-6)


def test_scvi_module_trains_from_counts_and_leaves_the_encoder_alone(scvi_fit, counts):
    import torch

    encoder, _ = scvi_fit
    x = counts()[0]
    before = encoder.encode(x, device="cpu")
    module = encoder.module()
    assert module.training
    dense = torch.from_numpy(x.toarray().astype(np.float32))
    np.testing.assert_allclose(module.eval()(dense).detach().numpy(), before, atol=1e-6)
    optimizer = torch.optim.SGD(module.train().parameters(), lr=0.1)
    module(dense).square().mean().backward()
    assert all(p.grad is not None for p in module.parameters())
    optimizer.step()
    np.testing.assert_array_equal(encoder.encode(x, device="cpu"), before)
    assert np.abs(module.eval()(dense).detach().numpy() - before).max() > 1e-4


def test_scvi_fit_repeats_and_leaves_the_random_state(counts):
    import torch

    x = counts()[0]
    options: dict[str, Any] = {"n_latent": 3, "n_hidden": 8, "max_epochs": 1, "device": "cpu", "random_state": 3}
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    first = SCVIEncoder.fit(x, GENES, **options)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[:2]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    second = SCVIEncoder.fit(x, GENES, **options)
    for name, value in first.tensors().items():
        np.testing.assert_array_equal(value, second.tensors()[name])
    assert first.fitted["epochs"] == [1]


def test_scanvi_takes_missing_labels_and_labels_called_unknown(counts):
    x, kind = counts()
    labels = np.array(["-1", "Unknown"], dtype=object)[kind]
    labels[:40] = np.nan
    encoder = SCANVIEncoder.fit(x, GENES, labels=labels, n_latent=3, n_hidden=8, max_epochs=1, device="cpu")
    assert (encoder.fitted["labels"], encoder.fitted["epochs"]) == (2, [1, 2])
    assert encoder.name == "scanvi"
    assert encoder.encode(x, device="cpu").shape == (N, 3)
    with pytest.raises(ValueError, match="at least two labels"):
        SCANVIEncoder.fit(x, GENES, labels=["a"] * N)
    with pytest.raises(ValueError, match="3 labels for 150 rows"):
        SCANVIEncoder.fit(x, GENES, labels=["a", "b", "c"])
    # rows without counts are left out, and their labels with them
    some = np.arange(N) < 100
    with pytest.raises(ValueError, match="at least two labels; the 100 rows with counts have 1"):
        SCANVIEncoder.fit(x.multiply(some[:, None]).tocsr(), GENES, labels=["a"] * 100 + ["b"] * 50)


def test_drvi_encoder_equals_scvi_tools(counts, monkeypatch, tmp_path):
    """Its latent variables, of training rows and of others, with two layers; they differ from those of scVI."""
    external = pytest.importorskip("scvi.external")
    if not hasattr(external, "DRVI"):
        pytest.skip("this scvi-tools has no DRVI")
    import torch

    models, train = [], _scvi_training.train

    def kept(*args, **kwargs):
        models.append(train(*args, **kwargs))
        return models[-1]

    monkeypatch.setattr("spatialwhisperer.encoders.gene.scvi.train", kept)
    x = counts()[0]
    options: dict[str, Any] = {"n_latent": 3, "n_hidden": 8, "n_layers": 2, "max_epochs": 2, "device": "cpu"}
    encoder = DRVIEncoder.fit(x, GENES, n_top_genes=None, **options)
    model = models[0][0]
    assert encoder.name == "drvi"
    assert type(model).__name__ == "DRVI"
    ours = encoder.encode(x, device="cpu")
    np.testing.assert_allclose(ours, model.get_latent_representation(), atol=1e-5)
    unseen = torch.from_numpy(counts(7)[0].toarray().astype(np.float32))
    with torch.no_grad():
        theirs = model.module.inference(unseen, torch.zeros(N, 1))["qz"].loc.numpy()
    np.testing.assert_allclose(encoder.encode(counts(7)[0], device="cpu"), theirs, atol=1e-5)
    again = DRVIEncoder.fit(x, GENES, n_top_genes=None, **options)
    np.testing.assert_array_equal(again.encode(x, device="cpu"), ours)
    encoder.save(tmp_path / "drvi")
    np.testing.assert_array_equal(load_gene_encoder(tmp_path / "drvi").encode(x, device="cpu"), ours)
    assert np.abs(SCVIEncoder.fit(x, GENES, n_top_genes=None, **options).encode(x, device="cpu") - ours).max() > 0.01


def test_an_earlier_scvi_tools_has_no_drvi(counts, monkeypatch):
    external = pytest.importorskip("scvi.external")
    monkeypatch.delattr(external, "DRVI", raising=False)
    with pytest.raises(ImportError, match=r"'drvi' needs scvi-tools 1.5 or later; .* is installed. pip install"):
        DRVIEncoder.fit(counts()[0], GENES, max_epochs=1, device="cpu")


def test_no_minibatch_is_left_with_one_or_two_rows():
    for n in range(3, 1200):
        rest = n % minibatch_rows([n])
        assert rest == 0 or rest > 2
    assert minibatch_rows([50_000]) > 256


def test_the_likelihood_is_that_of_scvi_tools(counts, monkeypatch):
    from scvi.model import SCVI

    seen, original = [], SCVI.__init__

    def spy(self, *args, **options):
        seen.append(options["gene_likelihood"])
        original(self, *args, **options)

    monkeypatch.setattr(SCVI, "__init__", spy)
    likelihoods: tuple[Any, ...] = ({}, {"gene_likelihood": "zinb"})
    for likelihood in likelihoods:
        SCVIEncoder.fit(counts()[0], GENES, max_epochs=1, **likelihood)
    assert seen == ["nb", "zinb"]
    other: Any = "normal"
    with pytest.raises(ValueError, match="must be 'nb' or 'zinb', not 'normal'"):
        SCVIEncoder.fit(counts()[0], GENES, gene_likelihood=other)
    with pytest.raises(ValueError, match="DRVI has no likelihood 'zinb'"):
        DRVIEncoder.fit(counts()[0], GENES, gene_likelihood="zinb")
