"""Expression of the training rows, which a predictor is fitted to and measured by."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import scipy.sparse as sp

    from spatialwhisperer.statistics.expression.gene_numbers import GeneNumbers


@dataclass
class Values:
    """Expression of the rows with image and counts.

    Attributes
    ----------
    genes, gene_ids
        Names and Ensembl ids.
    matrix
        Values, CSR, shape (m, g).
    rows
        Row of `Inputs.observations` of each row of the matrix, shape (m,).
    space
        Value space, or "as given".
    unpaired
        Section code to values of the same genes, CSR, for training sections without an image.
    unpaired_groups
        Patients of each of these sections.
    measured
        Genes of the tables, where values were scaled over all genes of a table; ``None`` where they were not.
    """

    genes: list[str]
    gene_ids: list[str]
    matrix: sp.csr_matrix
    rows: np.ndarray
    space: str
    unpaired: dict[str, sp.csr_matrix] = field(default_factory=dict)
    unpaired_groups: dict[str, set[str]] = field(default_factory=dict)
    measured: GeneNumbers | None = None

    def without(self, key: str, name: str) -> Values:
        """The same without the sections without an image of a patient (key "group"); a section alone has none to leave out."""
        if key != "group":
            return self
        kept = {s: m for s, m in self.unpaired.items() if name not in self.unpaired_groups[s]}
        return replace(self, unpaired=kept)
