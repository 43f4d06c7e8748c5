"""Genes that a fold predicts, chosen on its training sections alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from spatialwhisperer._access.table.counts import counts_matrix
from spatialwhisperer._messages import listing
from spatialwhisperer.statistics.expression.value_spaces import to_space

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData

SPACE = "per_spot_log1p"
N_GENES = 50

MIN_FRACTION = 0.1
"""Fraction of the rows of every training section that a gene must occur in."""

Rank = Literal["dispersion", "variance"]

_CONTROLS = ("BLANK", "Control")
"""Names of probes that measure no gene hold one of these."""


@dataclass(frozen=True)
class Genes:
    """Genes of a fold.

    Attributes
    ----------
    benchmark
        Those whose correlation is reported.
    all
        These, and those of the gene sets.
    sets
        Genes of each set.
    """

    benchmark: list[str]
    all: list[str]
    sets: Mapping[str, Sequence[str]] = field(default_factory=dict)


def choose_genes(
    train: Sequence[AnnData],
    *,
    rank: Rank = "dispersion",
    given: Sequence[str] = (),
    sets: Mapping[str, Sequence[str]] | None = None,
) -> Genes:
    """Genes that are given, or the 50 most variable of the training rows; and the genes of sets that are frequent enough there.

    Parameters
    ----------
    train
        Training tables with the same genes in the same order.
    rank
        "dispersion": scanpy's ``seurat`` on ln(1 + counts) of all rows, the rule of the HEST benchmark, which applies it to the
        sections that are measured too. "variance": the largest variance of ln(1 + counts per 10,000).
    given
        Genes to take instead.
    sets
        Gene sets.

    Raises
    ------
    ValueError
        If fewer than two genes are frequent enough.
    """
    frequent = frequent_genes(train)
    if len(frequent) < 2:
        raise ValueError(
            f"{len(frequent)} genes occur in {MIN_FRACTION:.0%} of the rows of every training section; at least two are needed. Leave out "
            "sections with few counts."
        )
    chosen = list(given) or (_dispersed if rank == "dispersion" else _varying)(train, frequent)
    among = set(frequent)
    others = (g for members in (sets or {}).values() for g in members if g in among)
    return Genes(chosen, list(dict.fromkeys([*chosen, *others])), sets or {})


def frequent_genes(train: Sequence[AnnData]) -> list[str]:
    """Genes that occur in a tenth of the rows of every section, control probes left out."""
    enough = [counts_matrix(t).getnnz(axis=0) >= np.ceil(MIN_FRACTION * t.n_obs) for t in train]
    names = train[0].var_names[np.all(enough, axis=0)]
    return [str(g) for g in names if not any(part in str(g) for part in _CONTROLS)]


def _dispersed(train: Sequence[AnnData], among: list[str]) -> list[str]:
    import anndata as ad
    import scanpy as sc
    import scipy.sparse as sp

    counts = sp.vstack([counts_matrix(t[:, among]) for t in train], format="csr").astype(np.float32)
    stacked = ad.AnnData(counts, var=pd.DataFrame(index=among))
    sc.pp.log1p(stacked)
    found = sc.pp.highly_variable_genes(stacked, n_top_genes=min(N_GENES, len(among)), inplace=False)
    order = found["dispersions_norm"].to_numpy(float)
    return [among[i] for i in np.argsort(-np.nan_to_num(order, nan=-np.inf), kind="stable")[:N_GENES]]


def _varying(train: Sequence[AnnData], among: list[str]) -> list[str]:
    variance = np.concatenate([values_of(t, among) for t in train]).var(axis=0)
    return [among[i] for i in np.argsort(-variance, kind="stable")[:N_GENES]]


def values_of(table: AnnData, genes: Sequence[str]) -> np.ndarray:
    """ln(1 + counts per 10,000) of some genes, float64 (n, g); the total is that of all genes of the table."""
    counts = counts_matrix(table)
    library = np.asarray(counts.sum(axis=1)).ravel()
    part = counts[:, table.var_names.get_indexer(pd.Index(genes))]
    return np.asarray(to_space(part, SPACE, library=library).toarray(), np.float64)


def read_genes(path: Path | None) -> list[str]:
    """Genes in a JSON file: a list, or the list ``genes`` of an object, as the HEST benchmark has it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds something else.
    """
    if path is None:
        return []
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path} to read genes from.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}). It must hold a list of genes.") from error
    found = found.get("genes") if isinstance(found, dict) else found
    if not isinstance(found, list) or not found or not all(isinstance(g, str) for g in found):
        raise ValueError(
            f'{path} must hold a list of genes, ["A", "B"] or {{"genes": ["A", "B"]}}; found {listing([type(found).__name__])}.'
        )
    return list(dict.fromkeys(found))
