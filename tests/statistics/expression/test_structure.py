from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from spatialwhisperer.statistics.expression.structure import (
    correlation,
    gene_gene_agreement,
    morans_i,
    neighbour_weights,
    set_scores,
)


def square(n: int, pitch: float = 1.0) -> np.ndarray:
    return pitch * np.stack(np.meshgrid(np.arange(n), np.arange(n)), axis=-1).reshape(-1, 2).astype(float)


def hexagonal(n: int) -> np.ndarray:
    row, column = np.divmod(np.arange(n * n), n)
    return np.stack([column + 0.5 * (row % 2), row * np.sqrt(3) / 2], axis=1)


@pytest.mark.parametrize(
    ("positions", "inside"), [(square(7, 200.0), 8), (hexagonal(7), 6)], ids=["square", "hexagonal"]
)
def test_neighbours_are_those_around_a_row_of_an_array(positions, inside):
    weights = neighbour_weights(positions)
    middle = 3 * 7 + 3
    assert weights[middle].nnz == inside
    assert weights[0].nnz in (2, 3)
    np.testing.assert_allclose(np.asarray(weights.sum(axis=1)).ravel(), 1.0)
    assert weights.diagonal().sum() == 0
    assert ((weights > 0) != (weights > 0).T).nnz == 0


def test_a_row_far_away_has_its_nearest_row_as_neighbour():
    weights = neighbour_weights(np.vstack([square(3), [[50.0, 2.0]]]))
    assert weights[9].indices.tolist() == [8]
    # nobody else has it
    assert weights[:, 9].nnz == 0


def test_rows_at_one_position_are_neighbours():
    weights = neighbour_weights(np.zeros((3, 2)))
    np.testing.assert_allclose(weights.toarray(), (1 - np.eye(3)) / 2)


def test_morans_i_is_the_sum_over_pairs():
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 1, (40, 2))
    values = rng.normal(size=(40, 3)) + 3 * xy[:, :1]
    weights = neighbour_weights(xy)
    w = weights.toarray()
    for gene, found in enumerate(morans_i(values, weights)):
        z = values[:, gene] - values[:, gene].mean()
        pairs = sum(w[i, j] * z[i] * z[j] for i in range(40) for j in range(40))
        assert found == pytest.approx(40 / w.sum() * pairs / sum(z**2), rel=1e-12)
    unequal = sp.csr_matrix(rng.uniform(0, 1, (40, 40)))
    z = values[:, 0] - values[:, 0].mean()
    expected = 40 / unequal.sum() * (z @ unequal.toarray() @ z) / (z @ z)
    assert morans_i(values, unequal)[0] == pytest.approx(expected, rel=1e-12)


def test_morans_i_of_a_gradient_is_high_of_a_chessboard_low_and_of_a_constant_unknown():
    xy = square(10)
    gradient, noise = xy[:, 0], np.random.default_rng(1).normal(size=100)
    constant = np.full(100, 0.1)
    ring = neighbour_weights(np.stack([np.arange(100.0), np.zeros(100)], axis=1))
    found = morans_i(np.stack([gradient, noise, constant], axis=1), neighbour_weights(xy))
    assert found[0] > 0.8
    assert abs(found[1]) < 0.15
    assert np.isnan(found[2])
    assert morans_i(np.resize([1.0, -1.0], (100, 1)), ring)[0] == pytest.approx(-1.0)


@pytest.mark.slow
def test_morans_i_is_that_of_squidpy():
    import anndata as ad
    import squidpy as sq

    rng = np.random.default_rng(2)
    xy = hexagonal(12)
    table: Any = ad.AnnData((rng.normal(size=(144, 6)) + np.sin(xy[:, :1] / 2)).astype(np.float32))
    weights = neighbour_weights(xy)
    table.obsp["spatial_connectivities"] = weights
    sq.gr.spatial_autocorr(table, mode="moran", n_perms=None, show_progress_bar=False)
    expected = table.uns["moranI"]["I"].loc[table.var_names].to_numpy()
    np.testing.assert_allclose(morans_i(table.X, weights), expected, atol=1e-5)


def test_correlation_leaves_out_what_is_unknown():
    one, other = np.array([1.0, 2.0, np.nan, 4.0, 6.0]), np.array([1.0, 3.0, 5.0, 4.0, np.nan])
    assert correlation(one, other) == pytest.approx(np.corrcoef([1, 2, 4], [1, 3, 4])[0, 1])
    assert np.isnan(correlation(one[:3], other[:3]))
    assert np.isnan(correlation(np.ones(5), np.arange(5.0)))


def test_gene_gene_agreement_compares_pairs_of_genes_once():
    rng = np.random.default_rng(3)
    truth, predicted = rng.normal(size=(50, 5)), rng.normal(size=(50, 5))
    truth[:, 4] += 2 * truth[:, 0]
    predicted[:, 4] += predicted[:, 0]
    pairs = [(i, j) for i in range(5) for j in range(i + 1, 5)]
    a, b = ([np.corrcoef(x[:, i], x[:, j])[0, 1] for i, j in pairs] for x in (truth, predicted))
    assert gene_gene_agreement(truth, predicted) == pytest.approx(np.corrcoef(a, b)[0, 1], rel=1e-12)
    assert gene_gene_agreement(truth, 5 * truth - 2) == pytest.approx(1.0)
    # a constant gene has no correlation with others
    predicted[:, 1] = 0.3
    kept = [(i, j) for i, j in pairs if 1 not in (i, j)]
    a, b = ([np.corrcoef(x[:, i], x[:, j])[0, 1] for i, j in kept] for x in (truth, predicted))
    assert gene_gene_agreement(truth, predicted) == pytest.approx(np.corrcoef(a, b)[0, 1], rel=1e-12)
    assert np.isnan(gene_gene_agreement(truth[:, :2], predicted[:, :2]))


def test_a_set_scores_the_mean_of_the_z_scores_of_its_genes():
    rng = np.random.default_rng(4)
    values = rng.gamma(2, 3, (30, 4))
    values[:, 2] = 7.0
    genes = ["a", "b", "c", "d"]
    sets = {"pair": ["a", "b"], "with constant": ["d", "c", "d", "absent"], "small": ["a", "absent"]}
    found = set_scores(values, genes, sets, 2)
    z = (values - values.mean(axis=0)) / np.where(values.std(axis=0) > 0, values.std(axis=0), 1)
    np.testing.assert_allclose(found[:, 0], (z[:, 0] + z[:, 1]) / 2)
    np.testing.assert_allclose(found[:, 1], z[:, 3] / 2)
    assert np.isnan(found[:, 2]).all()
