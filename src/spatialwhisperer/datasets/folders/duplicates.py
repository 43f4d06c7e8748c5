"""Sections that are there twice, under two names or two patients."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
import scipy.sparse as sp

from spatialwhisperer._access.table.counts import counts_matrix

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from anndata import AnnData

LIMIT = 0.25
"""Pairs of sections whose difference index is below are near-identical."""

CONVENTION = (
    "Rows of two sections are compared by D = Σ_b (x_b − y_b)² / (x_b + y_b), divided by the number of terms, over 256 groups of genes b with a "
    "count in either. Two independent Poisson counts of one expectation give D = 1 in the mean, whatever the depth, and other tissue gives "
    f"more; the same counts give 0. Sections are near-identical where the median over rows of the D to the nearest row is below {LIMIT:g}. "
    "Counts of one section that were thinned by half are not found."
)

_GROUPS = 256
_ROWS = 200
_LEAST_COUNT = 50


@dataclass(frozen=True)
class Duplicate:
    """Two sections with near-identical counts, and their difference index."""

    one: str
    other: str
    index: float


def near_identical(grouped: Mapping[str, np.ndarray]) -> list[Duplicate]:
    """Pairs of near-identical sections.

    Parameters
    ----------
    grouped
        Name of a section to what `group_counts` returned, of the same genes.
    """
    out = []
    for one, other in combinations(grouped, 2):
        small, large = sorted((grouped[one], grouped[other]), key=len)
        found = difference_index(small, large)
        if found < LIMIT:
            out.append(Duplicate(one, other, found))
    return out


def joined_units(unit: Mapping[str, str], duplicates: Sequence[Duplicate]) -> dict[str, str]:
    """Unit of each section, such as its patient, where units of duplicates are one."""
    out = dict(unit)
    for pair in duplicates:
        one, other = out[pair.one], out[pair.other]
        joined = " + ".join(sorted({*one.split(" + "), *other.split(" + ")}))
        out = {name: joined if u in (one, other) else u for name, u in out.items()}
    return out


def group_counts(table: AnnData, genes: Iterable[str] | None = None) -> np.ndarray:
    """Counts of each row summed over groups of some genes, float32 (n, 256); the group follows from the name of the gene alone."""
    if genes is not None:
        table = table[:, list(genes)]
    counts = counts_matrix(table)
    group = np.array([crc32(str(g).encode()) % _GROUPS for g in table.var_names])
    into = sp.csr_matrix((np.ones(len(group), np.float32), (np.arange(len(group)), group)), (len(group), _GROUPS))
    return np.asarray((counts.astype(np.float32) @ into).toarray())


def difference_index(small: np.ndarray, large: np.ndarray) -> float:
    """Median over rows of the difference D to the nearest row of the other section; see `CONVENTION`.

    Parameters
    ----------
    small, large
        Grouped counts, shape (n, b) and (m, b). At most 200 rows of the first, at even distances, are compared; rows with fewer than
        50 counts are left out.

    Returns
    -------
    The index; infinite where no row has enough counts.
    """
    rows = np.flatnonzero(small.sum(axis=1) >= _LEAST_COUNT)
    if not len(rows) or not len(large):
        return np.inf
    queries = small[rows[np.unique(np.linspace(0, len(rows) - 1, _ROWS).astype(int))]]
    # roots have nearly the same variance at any depth, so that the nearest row is that of the smallest D or close to it
    a, b = np.sqrt(queries), np.sqrt(large)
    nearest = np.argmin(np.square(b).sum(axis=1) - 2 * a @ b.T, axis=1)
    return float(np.median([_difference(q, large[j]) for q, j in zip(queries, nearest, strict=True)]))


def _difference(x: np.ndarray, y: np.ndarray) -> float:
    total = np.asarray(x, np.float64) + y
    seen = total > 0
    return float((np.square(x[seen] - y[seen]) / total[seen]).mean())
