from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

from spatialwhisperer.datasets.folders.duplicates import LIMIT, difference_index, group_counts
from spatialwhisperer.protocols.benchmarks.folder.duplicates import find_duplicates
from spatialwhisperer.protocols.benchmarks.folder.sections import BenchmarkSection


def rates(seed: int, n: int = 120, genes: int = 500) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.exp(rng.normal(0, 1.2, genes) + rng.normal(0, 0.3, (n, genes)))


def section(name: str, counts: np.ndarray, genes: list[str] | None = None) -> BenchmarkSection:
    table = ad.AnnData(counts.astype(np.float32))
    table.var_names = genes or [f"G{i}" for i in range(counts.shape[1])]
    return BenchmarkSection(name, f"patient of {name}", table, None)


def test_planted_duplicates_are_found_and_serial_sections_are_not():
    rng = np.random.default_rng(0)
    expected = rates(0)
    one = rng.poisson(expected)
    # the same section processed again: other rows, other order, some genes gone, one molecule in twenty lost
    rows = rng.permutation(120)[:90]
    kept = np.flatnonzero(rng.random(500) > 0.1)
    again = rng.binomial(one[rows][:, kept], 0.95)
    sections = [
        section("first", one),
        section("again", again, [f"G{i}" for i in kept]),
        # a second measurement of the very same expression, the hardest case that is no duplicate
        section("replicate", rng.poisson(expected)),
        section("other", rng.poisson(rates(1))),
    ]
    found = find_duplicates(sections)
    assert [(d.one, d.other) for d in found] == [("first", "again")]
    assert found[0].index < 0.15


def test_the_index_is_zero_for_the_same_and_one_for_independent_counts_at_any_depth():
    for depth in (0.3, 3.0, 30.0):
        rng = np.random.default_rng(1)
        expected = depth * rates(2, n=200)
        one, other = (group_counts(section("x", rng.poisson(expected)).table) for _ in range(2))
        assert difference_index(one, one) == 0
        # each row against its own second measurement; the nearest row can only be nearer
        index = [difference_index(a[None], b[None]) for a, b in zip(one, other, strict=True)]
        assert np.mean(index) == pytest.approx(1.0, abs=0.03)
        assert LIMIT < difference_index(one, other) < 1.1


def test_groups_of_genes_depend_on_their_names_alone():
    counts = np.random.default_rng(3).poisson(2.0, (5, 40))
    order = np.random.default_rng(4).permutation(40)
    one = group_counts(section("a", counts).table)
    other = group_counts(section("b", counts[:, order], [f"G{i}" for i in order]).table)
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(one.sum(axis=1), counts.sum(axis=1))


def test_rows_with_few_counts_say_nothing():
    empty = np.zeros((4, 256), np.float32)
    assert difference_index(empty, empty) == np.inf


@pytest.mark.slow
def test_no_real_section_is_taken_for_a_duplicate(data_folder):
    import anndata

    names = ["C2", "C3", "C4", "C5", "A3", "A4"]
    sections = []
    for name in names:
        table = anndata.read_h5ad(data_folder / "her2st" / name / "counts.h5ad")
        sections.append(BenchmarkSection(name, name[0], table, None))
    assert find_duplicates(sections) == []
