"""Choosing genes to predict or to train on: highly variable or highly expressed ones, section by section."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp

from spatialwhisperer._access.columns import as_list
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.table.counts import counts_matrix, matched_genes
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import listing
from spatialwhisperer.pp.genes import batch_codes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

_METHODS = ("hvg", "mean", "all")


class _Section(NamedTuple):
    """Counts of a section, and the number of the gene of each column."""

    counts: sp.csr_matrix
    genes: pd.Index


@shared
@checked
def select_genes(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    *,
    method: str = "hvg",
    n_top: int = 1000,
    min_spots: int = 0,
    per_section: bool = True,
    section_key: str | None = None,
    layer: str | None = None,
    table_key: str | None = None,
) -> list[str]:
    """Choose genes in each section and take their union, as HECLIP and BLEEP do.

    Each section is normalised to its median total count and log-transformed. From each, the highly variable genes are taken (scanpy's
    ``seurat``: Satija et al., Nat Biotechnol 2015) or the genes with the highest mean. The union is restricted to genes that are in
    every table and detected in at least ``min_spots`` spots, so it can be shorter or longer than ``n_top``. Genes are matched by name or
    Ensembl id.

    The choice depends on every section that is passed. Where some sections are held out, pass the training sections only.

    Parameters
    ----------
    data
        One object or several.
    method
        ``"hvg"`` for highly variable genes; ``"mean"`` for the highest mean among genes that are detected in every section;
        ``"all"`` for every gene that passes the restriction.
    n_top
        Genes to take from each section.
    min_spots
        Smallest number of spots, over all sections, with a count of the gene.
    per_section
        Choose in each section, or once on all rows together.
    section_key
        Column of ``.obs`` with the section; ``None`` takes each object, and each region or library within it, as a section.
    %(layer)s
    %(table_key)s

    Returns
    -------
    Names of the genes in ``.var_names`` of the first table, in its order.

    Raises
    ------
    KeyError
        If a layer, table or column does not exist.
    ValueError
        If values are not raw counts, gene names repeat, no gene is in every table, none is left, or an argument is out of range.

    Examples
    --------
    >>> import anndata as ad
    >>> import numpy as np
    >>> import spatialwhisperer as sw
    >>> rng = np.random.default_rng(0)
    >>> adata = ad.AnnData(rng.poisson(np.arange(1, 31), (60, 30)).astype("float32"))
    >>> sw.pp.select_genes(adata, method="mean", n_top=3)
    ['27', '28', '29']
    """
    _check(method, n_top, min_spots)
    slides = [Slide.open(d, table_key=table_key) for d in as_list(data)]
    tables = [slide.table for slide in slides]
    counts = [counts_matrix(table, layer) for table in tables]
    keys, common = _keys(tables)
    sections = _sections(slides, counts, keys, section_key)
    enough = {g for g, n in zip(common, _spots_with(sections, common), strict=True) if n >= min_spots}
    if method == "all":
        chosen = set(common)
    else:
        groups = sections if per_section else _together(sections, common)
        among = _expressed_everywhere(sections, common) if method == "mean" else set()
        pick = [_variable(s, n_top) if method == "hvg" else _highest(s, n_top, among) for s in groups]
        chosen = set().union(*pick)
    out = [str(tables[0].var_names[g]) for g in common if g in chosen and g in enough]
    if not out:
        raise ValueError(
            f"No gene is left: {len(common)} are in all {len(tables)} tables, {len(chosen)} were chosen by method={method!r}, and "
            f"{len(enough)} have counts in at least {min_spots} spots."
        )
    return out


def _check(method: str, n_top: int, min_spots: int) -> None:
    if method not in _METHODS:
        raise ValueError(f"method={method!r} is not one of {listing(_METHODS)}.")
    if n_top < 1:
        raise ValueError(f"n_top must be a positive integer, not {n_top!r}.")
    if min_spots < 0:
        raise ValueError(f"min_spots must not be negative, and is {min_spots!r}.")


def _keys(tables: Sequence[AnnData]) -> tuple[list[pd.Index], list[int]]:
    """Number of each gene of each table, the same for a gene that several have; and those of every table, in the order of the first."""
    for i, table in enumerate(tables):
        if not table.var_names.is_unique:
            repeated = table.var_names[table.var_names.duplicated()].unique()
            raise ValueError(
                f"Names of genes repeat in object {i}: {listing(repeated, 5)}. Run adata.var_names_make_unique() first."
            )
    columns, *_ = matched_genes(tables)
    shared = np.flatnonzero((columns >= 0).all(axis=0))
    if not len(shared):
        names = "; ".join(listing(table.var_names, 4) for table in tables)
        raise ValueError(f"No gene is in all {len(tables)} tables ({names}).")
    numbers = [np.flatnonzero(column >= 0) for column in columns]
    keys = [pd.Index(n[np.argsort(column[n])]) for n, column in zip(numbers, columns, strict=True)]
    return keys, shared.tolist()


def _sections(
    slides: Sequence[Slide], counts: Sequence[sp.csr_matrix], keys: Sequence[pd.Index], key: str | None
) -> list[_Section]:
    """Counts and genes of each section; a section of several tables keeps the genes that they share."""
    codes = batch_codes(slides, key, argument="section_key")
    out = []
    for code in dict.fromkeys(np.concatenate(codes).tolist()):
        parts = [_Section(m[c == code], g) for g, m, c in zip(keys, counts, codes, strict=True) if (c == code).any()]
        out.append(_stack(parts))
    return out


def _stack(parts: list[_Section]) -> _Section:
    if len(parts) == 1:
        return parts[0]
    genes = parts[0].genes
    for part in parts[1:]:
        genes = genes[genes.isin(part.genes)]
    return _Section(sp.vstack([m[:, g.get_indexer(genes)] for m, g in parts], format="csr"), genes)


def _spots_with(sections: list[_Section], genes: list[int]) -> np.ndarray:
    """Number of spots with a count of each gene, over all sections."""
    wanted = pd.Index(genes)
    seen = [np.bincount(c.indices[c.data > 0], minlength=c.shape[1])[g.get_indexer(wanted)] for c, g in sections]
    return np.sum(seen, axis=0)


def _together(sections: list[_Section], genes: list[int]) -> list[_Section]:
    wanted = pd.Index(genes)
    return [_Section(sp.vstack([c[:, g.get_indexer(wanted)] for c, g in sections], format="csr"), wanted)]


def _expressed_everywhere(sections: list[_Section], genes: list[int]) -> set[int]:
    return set.intersection(*({g for g, n in zip(genes, _spots_with([s], genes), strict=True) if n} for s in sections))


def _highest(section: _Section, n_top: int, among: set[int]) -> set[int]:
    mean = np.asarray(_logged(section.counts).mean(axis=0)).ravel()
    candidates = np.flatnonzero(section.genes.isin(among))
    order = np.argsort(-mean[candidates], kind="stable")[:n_top]
    return set(section.genes[candidates[order]])


def _variable(section: _Section, n_top: int) -> set[int]:
    """Highly variable genes by scanpy, among those with counts in the section."""
    import anndata as ad
    import scanpy as sc

    seen = np.flatnonzero(np.bincount(section.counts.indices[section.counts.data > 0], minlength=len(section.genes)))
    if len(seen) <= n_top:
        return set(section.genes[seen])
    adata = ad.AnnData(_logged(section.counts)[:, seen])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = sc.pp.highly_variable_genes(adata, flavor="seurat", n_top_genes=n_top, inplace=False)
    return set(section.genes[seen[table["highly_variable"].to_numpy()]])


def _logged(counts: sp.csr_matrix) -> sp.csr_matrix:
    """log1p of counts normalised to the median total count; rows without counts stay empty and are left out of the median."""
    total = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    target = np.median(total[total > 0]) if (total > 0).any() else 1.0
    out = sp.csr_matrix(sp.diags_array(target / np.where(total > 0, total, 1)) @ counts.astype(np.float64))
    out.data = np.log1p(out.data)
    return out
