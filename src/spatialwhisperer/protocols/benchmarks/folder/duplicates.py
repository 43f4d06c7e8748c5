"""Sections of a benchmark that are there twice, under two names or two patients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialwhisperer.datasets.folders.duplicates import Duplicate, group_counts, near_identical
from spatialwhisperer.protocols.benchmarks.folder.sections import common_genes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialwhisperer.protocols.benchmarks.folder.sections import BenchmarkSection


def find_duplicates(sections: Sequence[BenchmarkSection]) -> list[Duplicate]:
    """Pairs of near-identical sections, by their counts of the genes that all sections have."""
    if len(sections) < 2:
        return []
    genes = common_genes(sections)
    return near_identical({s.name: group_counts(s.table, genes) for s in sections})
