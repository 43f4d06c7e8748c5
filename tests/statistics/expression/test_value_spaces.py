from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from spatialwhisperer.statistics.expression.value_spaces import SPACES, to_space

COUNTS = np.array([[1, 3, 0], [0, 2, 2], [5, 0, 0], [0, 0, 0]])


def test_each_spot_is_scaled_by_its_library() -> None:
    library = np.array([8, 4, 10, 0])
    expected = np.log1p(1e4 * COUNTS / np.array([8, 4, 10, 1])[:, None])
    np.testing.assert_allclose(to_space(COUNTS, "per_spot_log1p", library=library), expected, rtol=1e-6)


def test_the_panel_is_the_library_of_the_log10_space() -> None:
    expected = np.log10(1 + 1e4 * COUNTS / np.array([4, 4, 5, 1])[:, None])
    np.testing.assert_allclose(to_space(COUNTS, "per_spot_log10", library=np.full(4, 99)), expected, rtol=1e-6)


def test_the_peer_space_scales_each_gene_within_its_section() -> None:
    got = to_space(COUNTS, "per_gene_log10_peer", sections=["a", "a", "b", "b"])
    np.testing.assert_allclose(got[0], np.log10([1 + 1e4, 1 + 1e4 * 3 / 5, 1]), rtol=1e-6)
    np.testing.assert_allclose(got[2], np.log10([1 + 1e4, 1, 1]), rtol=1e-6)


@pytest.mark.parametrize("space", SPACES)
def test_sparse_stays_sparse_and_equals_dense(space: str) -> None:
    sparse = to_space(sp.csr_matrix(COUNTS), space)
    assert sp.issparse(sparse)
    np.testing.assert_array_equal(sparse.toarray(), to_space(COUNTS, space))


@pytest.mark.parametrize("space", SPACES)
def test_zeros_that_are_stored_change_nothing(space: str) -> None:
    stored = sp.csr_matrix(COUNTS + 1)
    stored.data -= 1
    got = to_space(stored, space, sections=["a", "a", "b", "b"])
    np.testing.assert_array_equal(got.toarray(), to_space(COUNTS, space, sections=["a", "a", "b", "b"]))


def test_an_unknown_space_is_refused() -> None:
    with pytest.raises(ValueError, match="Unknown value space 'tpm'; choose one of per_spot_log1p"):
        to_space(COUNTS, "tpm")
