"""Expression itself as gene features."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from spatialwhisperer.encoders.gene.expression import ExpressionEncoder
from spatialwhisperer.encoders.resolve import load_gene_encoder
from spatialwhisperer.statistics.expression.value_spaces import to_space

N, G = 120, 50
GENES = [f"G{i}" for i in range(G)]


def counts(seed: int = 0, n: int = N) -> tuple[sp.csr_matrix, np.ndarray]:
    """Two kinds of rows that differ in ten genes; the last gene is never seen."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 2, n)
    rate = (0.3 + np.random.default_rng(7).gamma(1.0, 1.0, G)) * np.where(np.arange(G) < 10, 1 + 5 * kind[:, None], 1)
    rate[:, -1] = 0
    return sp.csr_matrix(rng.poisson(rate * rng.lognormal(0, 0.3, (n, 1))).astype(np.float32)), kind


@pytest.mark.parametrize("space", ["per_spot_log1p", "per_spot_log10"])
def test_identity_is_the_value_space_of_its_genes(space, tmp_path):
    x = counts()[0]
    encoder = ExpressionEncoder.fit(x, GENES, value_space=space)
    assert encoder.genes == GENES[:-1]
    x = x[:, :-1]
    expected = to_space(x.toarray(), space)
    np.testing.assert_array_equal(encoder.encode(x), expected)
    np.testing.assert_array_equal(encoder.encode(x, batch_size=7), expected)
    encoder.save(tmp_path / "encoder")
    again = load_gene_encoder(tmp_path / "encoder")
    assert again.identity == encoder.identity
    np.testing.assert_array_equal(again.encode(x), expected)
    present = np.arange(G - 1) < 30
    np.testing.assert_array_equal(encoder.encode(x, present=present)[:, :30], to_space(x[:, :30].toarray(), space))


def test_identity_refuses_a_space_that_depends_on_the_section():
    with pytest.raises(ValueError, match="would depend on the others"):
        ExpressionEncoder.fit(counts()[0], GENES, value_space="per_gene_log10_peer")
    with pytest.raises(ValueError, match="Unknown value space"):
        ExpressionEncoder(GENES, value_space="raw")


def test_the_library_may_count_more_genes_than_the_encoder_reads():
    x = counts()[0].toarray()
    chosen, library = x[:, :20], x.sum(axis=1)
    expected = np.log1p(chosen / library[:, None] * 1e4)
    got = ExpressionEncoder(GENES[:20]).encode(chosen, library=library, batch_size=7)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    # a row without these genes is zero, and no row depends on the others
    chosen[3] = 0
    got = ExpressionEncoder(GENES[:20]).encode(chosen[::-1], library=library[::-1])[::-1]
    np.testing.assert_allclose(got[4:], expected[4:], rtol=1e-5)
    assert not got[3].any()
    # this space is over the genes of the model
    panel = ExpressionEncoder(GENES[:20], value_space="per_spot_log10")
    np.testing.assert_array_equal(panel.encode(chosen, library=library), panel.encode(chosen))


def test_a_library_that_is_smaller_than_its_row_is_refused():
    encoder, x = ExpressionEncoder(GENES), counts()[0]
    library = np.asarray(x.sum(axis=1)).ravel()
    encoder.encode(x, library=library)
    for bad in (library[2] - 1, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"library\[2\] is .* Pass the total over all genes of the table"):
            encoder.encode(x, library=np.where(np.arange(N) == 2, bad, library))
    with pytest.raises(ValueError, match="library"):
        encoder.encode(x, library=library[:5])
