"""How many genes a spot is scaled over: values that were scaled over a panel and over all genes are on different scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._messages import listing
from spatialwhisperer._storage.schema import Stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import scipy.sparse as sp

FEWEST = 0.5
"""Fraction of the genes of other values from which on values are taken to be on their scale: between a panel and a transcriptome, and not
between two transcriptomes of which one was filtered."""


@dataclass(frozen=True)
class GeneNumbers(Stored):
    """Numbers of genes over which spots were scaled.

    Attributes
    ----------
    genes
        Genes of the table; of several tables, of the one that has the fewest.
    counted
        Genes of which some spot has a count; of several tables, of the one that has the most. A table may list many genes that it
        never counts, and a small section counts few of those that were measured.
    """

    genes: int
    counted: int

    def few_beside(self, other: GeneNumbers) -> bool:
        """Whether these are so few that values are on another scale than the others."""
        return self.genes < FEWEST * other.counted


def gene_numbers(counts: sp.csr_matrix) -> GeneNumbers:
    """Those of a table with these counts, shape (n, genes)."""
    counted = np.zeros(counts.shape[1], bool)
    counted[counts.indices[counts.data > 0]] = True
    return GeneNumbers(counts.shape[1], int(counted.sum()))


def different_scales(tables: Mapping[str, GeneNumbers]) -> str:
    """Say which of several tables have so few genes beside others that values are on different scales; empty where none has.

    Parameters
    ----------
    tables
        Numbers of each table, by what it is.
    """
    few: list[str] = []
    beside: dict[str, GeneNumbers] = {}
    for what, one in tables.items():
        others = {name: other for name, other in tables.items() if name != what and one.few_beside(other)}
        if others:
            few.append(f"{what} ({one.genes})")
            beside |= others
    if not few:
        return ""
    largest = max(beside, key=lambda name: beside[name].counted)
    return (
        f"Spots are scaled over all genes of their table, far fewer in {listing(few, 5)} than the {beside[largest].counted} that are counted "
        f"in {largest}."
    )


def joined_numbers(numbers: Iterable[GeneNumbers]) -> GeneNumbers | None:
    """Those of several tables together; ``None`` of none."""
    every = list(numbers)
    return GeneNumbers(min(one.genes for one in every), max(one.counted for one in every)) if every else None
