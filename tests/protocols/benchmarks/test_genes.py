from __future__ import annotations

import json

import anndata as ad
import numpy as np
import pytest

from spatialwhisperer.protocols.benchmarks.genes import choose_genes, frequent_genes, read_genes, values_of


def table(counts: np.ndarray, names: list[str] | None = None) -> ad.AnnData:
    out = ad.AnnData(np.asarray(counts, np.float32))
    out.var_names = names or [f"G{i}" for i in range(out.n_vars)]
    return out


def test_values_are_normalised_by_all_genes_of_the_table():
    counts = np.array([[1, 2, 7], [0, 5, 5]])
    np.testing.assert_allclose(values_of(table(counts), ["G2", "G0"]), np.log1p([[7000, 1000], [5000, 0]]), rtol=1e-6)


def test_a_gene_must_be_frequent_in_every_training_section():
    one, other = np.ones((20, 4)), np.ones((20, 4))
    one[2:, 1] = 0  # two of twenty rows: just enough
    other[1:, 2] = 0  # one of twenty
    names = ["G0", "G1", "G2", "BLANK_0001"]
    assert frequent_genes([table(one, names), table(other, names)]) == ["G0", "G1"]


@pytest.mark.parametrize("rank", [pytest.param("dispersion", marks=pytest.mark.slow), "variance"])
def test_the_most_variable_genes_come_first(rank):
    rng = np.random.default_rng(0)
    rate = np.exp(rng.normal(1.0, 1.0, 300))
    counts = rng.poisson(np.tile(rate, (200, 1)))
    planted = [5, 17, 60]
    counts[:, planted] = rng.poisson(np.where(rng.random((200, 3)) < 0.15, 20.0, 0.3))
    found = choose_genes([table(counts[:100]), table(counts[100:])], rank=rank)
    assert len(found.benchmark) == 50
    assert {f"G{i}" for i in planted} == set(found.benchmark[:3])
    assert found.all == found.benchmark


def test_genes_of_sets_come_behind_those_of_the_benchmark():
    counts = np.random.default_rng(1).poisson(3.0, (50, 6))
    counts[:, 4] = 0
    sets = {"one": ["G3", "G4", "G0"], "other": ["G5", "G3", "absent"]}
    found = choose_genes([table(counts)], given=["G2", "G0"], sets=sets)
    assert found.benchmark == ["G2", "G0"]
    assert found.all == ["G2", "G0", "G3", "G5"]
    with pytest.raises(ValueError, match="0 genes occur in 10% of the rows"):
        choose_genes([table(0 * counts)])


def test_genes_are_read_from_json(tmp_path):
    path = tmp_path / "var_50genes.json"
    assert read_genes(None) == []
    for content in ({"genes": ["A", "B", "A"]}, ["A", "B"]):
        path.write_text(json.dumps(content))
        assert read_genes(path) == ["A", "B"]
    for bad in ('{"genes": {}}', "[]", "[1]", '"A"'):
        path.write_text(bad)
        with pytest.raises(ValueError, match="must hold a list of genes"):
            read_genes(path)
    path.write_text("A, B")
    with pytest.raises(ValueError, match="is no JSON"):
        read_genes(path)
    with pytest.raises(FileNotFoundError):
        read_genes(tmp_path / "absent.json")
