"""Expression of simulated cells: gene programmes of the types, effects of patients, negative binomial counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from spatialwhisperer.datasets._simulation.tissue import CLASSES

RNA_CONTENT = np.array([1.5, 0.8, 1.0, 1.1, 1.0])


@dataclass(frozen=True)
class Programme:
    """Expression of each class: ``mean`` (n_classes, n_genes), rows add up to 1."""

    mean: np.ndarray
    marker_of: np.ndarray
    dispersion: float
    batch_sd: float

    def batch(self, rng: np.random.Generator) -> np.ndarray:
        """Mean expression in a new patient."""
        factor = np.exp(rng.normal(0, self.batch_sd, self.mean.shape[1]))
        mean = self.mean * factor
        return mean / mean.sum(axis=1, keepdims=True)

    def draw(self, rng: np.random.Generator, mean: np.ndarray, kind: np.ndarray, counts_per_cell: float) -> np.ndarray:
        """Negative binomial counts (n_cells, n_genes) with log-normal library sizes."""
        library = counts_per_cell * RNA_CONTENT[kind] * np.exp(rng.normal(0, 0.35, len(kind)))
        rate = mean[kind] * library[:, None]
        return rng.poisson(rng.gamma(1 / self.dispersion, rate * self.dispersion)).astype(np.int32)


def make_programme(rng: np.random.Generator, n_genes: int, batch_sd: float) -> Programme:
    """Shared expression with small differences between types, and markers for one gene in twenty per type."""
    n_markers = max(1, n_genes // 20)
    base = np.exp(rng.normal(0, 1.0, n_genes))
    mean = base * np.exp(rng.normal(0, 0.15, (len(CLASSES), n_genes)))
    marker_of = np.full(n_genes, -1)
    rows = rng.permutation(n_genes)[: n_markers * len(CLASSES)].reshape(len(CLASSES), n_markers)
    for k, genes in enumerate(rows):
        marker_of[genes] = k
        mean[:, genes] *= 0.3
        mean[k, genes] *= np.exp(rng.normal(2.6, 0.4, n_markers))
    return Programme(mean / mean.sum(axis=1, keepdims=True), marker_of, dispersion=0.5, batch_sd=batch_sd)


def gene_table(programme: Programme) -> pd.DataFrame:
    """Invented names and identifiers, and the type that each gene marks."""
    number = np.arange(1, len(programme.marker_of) + 1)
    names = np.array([*CLASSES, ""], dtype=object)  # -1, no marker, takes the last
    return pd.DataFrame(
        {"gene_ids": [f"ENSG9{i:010d}" for i in number], "marker_of": names[programme.marker_of]},
        index=[f"GENE{i:04d}" for i in number],
    )
