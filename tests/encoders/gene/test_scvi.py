from __future__ import annotations

import json
import random

import numpy as np
import pytest
import scipy.sparse as sp

from spatialwhisperer.encoders.gene.all import (
    PCAEncoder,
    SCANVIEncoder,
    SCVIEncoder,
    gene_encoder_from,
    load_gene_encoder,
)
from spatialwhisperer.encoders.gene._scvi_training import minibatch_rows, train

N, G = 150, 60
GENES = [f"G{i}" for i in range(G)]
IDS = [f"ENSG{i:011d}" if i % 3 else "" for i in range(G)]


def counts(seed: int = 0, n: int = N, g: int = G) -> tuple[sp.csr_matrix, np.ndarray]:
    """Two kinds of rows that differ in ten genes."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 2, n)
    rate = (0.3 + rng.gamma(1.0, 1.0, g)) * np.where(np.arange(g) < 10, 1 + 4 * kind[:, None], 1)
    return sp.csr_matrix(rng.poisson(rate * rng.lognormal(0, 0.3, (n, 1)))), kind


@pytest.fixture(scope="module")
def pca() -> PCAEncoder:
    return PCAEncoder.fit(counts()[0], GENES, IDS, n_latent=5, n_top_genes=None)


@pytest.fixture(scope="module")
def scvi_fit() -> tuple[SCVIEncoder, object]:
    """The encoder and the scvi-tools model that it was taken from."""
    x = counts()[0]
    batch = np.repeat(["a", "b"], N // 2)
    options = {"n_latent": 4, "n_hidden": 16, "n_layers": 2, "dropout_rate": 0.1}
    model, _ = train(x.astype(np.float32), batch, None, options, 2, "cpu", 0)
    return SCVIEncoder._of(model, GENES, IDS, np.arange(G), {"rows": N}), model


# ------------------------------------------------------------------------------------------------- PCA


def test_pca_equals_the_plain_formula(pca):
    x = counts()[0].toarray().astype(float)
    y = np.log1p(1e4 * x / x.sum(axis=1, keepdims=True))
    y -= y.mean(axis=0)
    _, _, axes = np.linalg.svd(y, full_matrices=False)
    axes = axes[:5].T * np.sign(axes[:5].T[np.abs(axes[:5].T).argmax(axis=0), np.arange(5)])
    np.testing.assert_allclose(pca.encode(counts()[0]), y @ axes, atol=1e-3)


def test_pca_iterative_solver_agrees_with_the_exact_one(monkeypatch):
    batch = np.arange(N) % 3
    exact = PCAEncoder.fit(counts()[0], GENES, batch=batch, n_latent=5)
    monkeypatch.setattr("spatialwhisperer.encoders.gene.pca._DENSE_UP_TO", 10)
    iterative = PCAEncoder.fit(counts()[0], GENES, batch=batch, n_latent=5)
    np.testing.assert_allclose(iterative.components, exact.components, atol=1e-4)
    assert iterative.fitted == exact.fitted


def test_pca_components_ignore_what_only_differs_between_batches():
    x, _ = counts()
    batch = np.arange(N) % 2
    shifted = x.toarray()
    shifted[batch == 1, 20:30] += 40
    top = np.abs(PCAEncoder.fit(shifted, GENES, n_latent=1).components[20:30]).sum()
    within = np.abs(PCAEncoder.fit(shifted, GENES, batch=batch, n_latent=1).components[20:30]).sum()
    assert within < top / 2


def test_pca_takes_the_training_mean_for_genes_that_were_not_measured(pca):
    x = counts(1)[0].toarray()
    present = np.ones(G, bool)
    present[40:] = False
    panel = x * present
    full, as_mean, as_zero = pca.encode(x), pca.encode(panel, present=present), pca.encode(panel)
    assert np.abs(as_mean - full).mean() < np.abs(as_zero - full).mean() / 2
    # what stands in the columns of missing genes does not matter
    np.testing.assert_array_equal(as_mean, pca.encode(x, present=present))


def test_pca_refuses_more_components_than_the_rows_carry():
    with pytest.raises(ValueError, match="n_latent=32 components cannot be found in 10 rows"):
        PCAEncoder.fit(counts(n=10)[0], GENES)


def test_highly_variable_genes_are_found_per_batch():
    x, _ = counts(n=300, g=200)
    x = x.tolil()
    x[:, 199] = 0
    # genes 10 to 19 differ between batches alone, which batch-aware selection does not count as variation
    batch = np.arange(300) % 2
    x = x.toarray()
    x[:, 10:20] = np.where(batch[:, None] == 1, 30, 0)
    names = [f"G{i}" for i in range(200)]
    chosen = PCAEncoder.fit(x, names, batch=batch, n_latent=3, n_top_genes=40).genes
    assert len(chosen) == 40
    assert not {f"G{i}" for i in range(10, 20)} & set(chosen)
    everything = PCAEncoder.fit(x, names, n_latent=3, n_top_genes=None).genes
    assert len(everything) == 199
    assert "G199" not in everything


# ------------------------------------------------------------------------------------------------- scVI, scANVI


def test_scvi_encoder_equals_scvi_tools(scvi_fit):
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


def test_scvi_module_trains_from_counts_and_leaves_the_encoder_alone(scvi_fit):
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


def test_scvi_fit_repeats_and_leaves_the_random_state():
    import torch

    x = counts()[0]
    options = {"n_latent": 3, "n_hidden": 8, "max_epochs": 1, "device": "cpu", "random_state": 3}
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    first = SCVIEncoder.fit(x, GENES, **options)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[:2]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    second = SCVIEncoder.fit(x, GENES, **options)
    for name, value in first.tensors().items():
        np.testing.assert_array_equal(value, second.tensors()[name])
    assert first.fitted["epochs"] == [1]


def test_scanvi_takes_missing_labels_and_labels_called_unknown():
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


def test_rows_without_counts_are_left_out_of_the_fit():
    x, kind = counts()
    filled = sp.vstack([sp.csr_matrix((2, G)), x], format="csr")
    batch = np.r_[["alone"] * 2, np.repeat(["a", "b"], N // 2)]
    for cls, extra in (
        (PCAEncoder, {}),
        (SCVIEncoder, {"max_epochs": 1, "device": "cpu"}),
        (SCANVIEncoder, {"max_epochs": 1, "device": "cpu", "labels": ["none", "none", *kind]}),
    ):
        fitted = cls.fit(filled, GENES, batch=batch, n_latent=3, **extra)
        assert (fitted.fitted["rows"], fitted.fitted["batches"]) == (N, 2)


def test_no_minibatch_is_left_with_one_or_two_rows():
    for n in range(3, 1200):
        rest = n % minibatch_rows([n])
        assert rest == 0 or rest > 2
    assert minibatch_rows([50_000]) > 256


# ------------------------------------------------------------------------------------------------- common


@pytest.mark.parametrize("kind", ["pca", "scvi"])
def test_encoding_does_not_depend_on_the_batch_size(kind, pca, scvi_fit):
    encoder = pca if kind == "pca" else scvi_fit[0]
    x = counts(2)[0]
    whole = encoder.encode(x, device="cpu", batch_size=1000)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(encoder.encode(x, device="cpu", batch_size=7), whole, atol=1e-6)
    np.testing.assert_allclose(encoder.encode(x.toarray()[::-1], device="cpu")[::-1], whole, atol=1e-6)


@pytest.mark.parametrize("kind", ["pca", "scvi"])
def test_saving_keeps_every_bit(kind, pca, scvi_fit, tmp_path):
    encoder = pca if kind == "pca" else scvi_fit[0]
    encoder.save(tmp_path / "deep" / "encoder")
    assert sorted(p.name for p in (tmp_path / "deep" / "encoder").iterdir()) == ["config.json", "model.safetensors"]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["encoder"]
    again = load_gene_encoder(tmp_path / "deep" / "encoder")
    assert type(again) is type(encoder)
    assert again.config() == encoder.config()
    x = counts(3)[0]
    np.testing.assert_array_equal(again.encode(x, device="cpu"), encoder.encode(x, device="cpu"))
    copy = gene_encoder_from(json.loads(json.dumps(encoder.config())), encoder.tensors())
    np.testing.assert_array_equal(copy.encode(x, device="cpu"), encoder.encode(x, device="cpu"))


def test_saving_replaces_only_when_asked_and_only_an_encoder(pca, tmp_path):
    folder = tmp_path / "encoder"
    pca.save(folder)
    with pytest.raises(ValueError, match="overwrite=True"):
        pca.save(folder)
    pca.save(folder, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["encoder"]
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.jpg").write_text("meow")
    with pytest.raises(ValueError, match="not a saved gene encoder"):
        pca.save(other, overwrite=True)
    assert (other / "cat.jpg").read_text() == "meow"


def test_loading_says_what_is_wrong(pca, tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        load_gene_encoder(tmp_path / "nowhere")
    folder = tmp_path / "encoder"
    pca.save(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"class": "os.system"}))
    with pytest.raises(ValueError, match="it knows PCAEncoder, SCVIEncoder, SCANVIEncoder"):
        load_gene_encoder(folder)
    (folder / "config.json").write_text(json.dumps(config | {"dim": 7}))
    with pytest.raises(ValueError, match=r"components: \(60, 5\), expected \(60, 7\)"):
        load_gene_encoder(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"\x80\x04not tensors")
    with pytest.raises(ValueError, match="not a valid safetensors file"):
        load_gene_encoder(folder)
    with pytest.raises(ValueError, match="lacks gene_ids"):
        gene_encoder_from({"class": "PCAEncoder", "genes": [], "dim": 2}, {})
    with pytest.raises(ValueError, match="extra: not expected"):
        gene_encoder_from(config, pca.tensors() | {"extra": np.zeros(2)})
    with pytest.raises(ValueError, match="not finite: mean"):
        gene_encoder_from(config, pca.tensors() | {"mean": np.full(G, np.nan)})


def test_encoding_refuses_what_is_not_counts(pca):
    x = counts()[0].toarray().astype(float)
    with pytest.raises(ValueError, match="59 columns and the encoder takes 60"):
        pca.encode(x[:, 1:])
    for value, words in ((0.5, "non-integer values such as 0.5"), (-2, "negative values such as -2"), (np.nan, "NaN")):
        bad = x.copy()
        bad[3, 3] = value
        with pytest.raises(ValueError, match=words):
            pca.encode(bad)
    with pytest.raises(ValueError, match="present has shape"):
        pca.encode(x, present=np.ones(3, bool))
    with pytest.raises(ValueError, match="batch_size"):
        pca.encode(x, batch_size=0)
    with pytest.raises(ValueError, match="2 rows with counts are too few"):
        PCAEncoder.fit(x[:2], GENES, n_latent=1)


def test_names_must_be_unique():
    arrays = {"mean": np.zeros(2), "components": np.zeros((2, 1)), "share": np.ones(2)}
    with pytest.raises(ValueError, match="unique"):
        PCAEncoder(["A", "A"], **arrays)
    with pytest.raises(ValueError, match="gene_ids has 1"):
        PCAEncoder(["A", "B"], ["x"], **arrays)
