"""Raw counts of a table in the gene order of an encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import pandas as pd
import scipy.sparse as sp

from spatialwhisperer._access.table.identifiers import free_names, mostly_ensembl, other_species, plain, species_part
from spatialwhisperer._messages import listing, warn
from spatialwhisperer.statistics.counts import not_counts, stored_once

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anndata import AnnData

_ID_COLUMNS = ("gene_ids", "gene_id", "ensembl_id", "ensembl_ids", "ensembl", "feature_id")
_NAME_COLUMNS = ("gene_symbols", "gene_symbol", "symbol", "symbols", "feature_name", "gene_name", "gene_names")
_ENOUGH, _FEW = 0.5, 0.9


class AlignedCounts(NamedTuple):
    """Counts in an encoder's gene order, which of its genes the table has, and of all genes of the table totals of each row and counts."""

    counts: sp.csr_matrix
    present: np.ndarray
    library: np.ndarray
    of_table: sp.csr_matrix


def align_counts(
    encoder_genes: Sequence[str],
    gene_ids: Sequence[str],
    adata: AnnData,
    layer: str | None = None,
    *,
    gene_ids_key: str | None = None,
    fewest: int | None = None,
) -> AlignedCounts:
    """Bring a table's raw counts into an encoder's gene order.

    Parameters
    ----------
    encoder_genes
        Names of the encoder's genes.
    gene_ids
        Ensembl id of each, or ``""``.
    adata
        Table with raw counts.
    layer
        Layer with the counts; ``None`` takes ``.X``.
    gene_ids_key
        Column of ``.var`` to match by first.
    fewest
        How many of the encoder's genes must be found; ``None`` asks for half of them.

    Returns
    -------
    Counts, CSR of float32, shape (n, len(encoder_genes)), zero in the columns of genes that the table lacks; a Boolean array,
    shape (len(encoder_genes),), of which genes the table has; the total counts of each row over all genes of the table, float64,
    shape (n,); and the counts of all genes of the table.

    Raises
    ------
    KeyError
        If the layer or the column does not exist.
    ValueError
        If values are not counts, names repeat, or too few of the encoder's genes are found.
    """
    matrix = counts_matrix(adata, layer)
    columns = match_genes(encoder_genes, gene_ids, adata, gene_ids_key)
    present = columns >= 0
    _check_overlap(encoder_genes, gene_ids, adata, present, fewest)
    part = matrix[:, columns[present]]
    shape = (matrix.shape[0], len(encoder_genes))
    counts = sp.csr_matrix((part.data, np.flatnonzero(present)[part.indices], part.indptr), shape=shape)
    counts.sort_indices()
    library = np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()
    return AlignedCounts(counts.astype(np.float32, copy=False), present, library, matrix)


def counts_for(
    encoder_genes: Sequence[str],
    gene_ids: Sequence[str],
    adata: AnnData,
    layer: str | None = None,
    *,
    fewest: int | None = None,
) -> sp.csr_matrix:
    """Raw counts of a table in an encoder's gene order, CSR of float32; zero where the table lacks a gene. See `align_counts`."""
    return align_counts(encoder_genes, gene_ids, adata, layer, fewest=fewest).counts


def counts_matrix(adata: AnnData, layer: str | None = None) -> sp.csr_matrix:
    """Return the table's raw counts as CSR after checking that they are counts."""
    if layer is not None and layer not in adata.layers:
        raise KeyError(f"layer={layer!r} is not in .layers (found: {listing(_layers(adata))}).")
    if 0 in adata.shape:
        raise ValueError(f"The table is empty ({adata.n_obs} rows, {adata.n_vars} genes).")
    stored = adata.X if layer is None else adata.layers[layer]
    place = ".X" if layer is None else f".layers[{layer!r}]"
    if stored is None:
        raise ValueError(f"{place} is empty. {_where_counts_are(adata, layer)}")
    matrix = _in_memory(stored, place)
    if problem := not_counts(matrix.data):
        raise ValueError(
            f"Gene encoders take raw counts, and {place} holds {problem}. {_where_counts_are(adata, layer)}"
        )
    return matrix


def match_genes(
    genes: Sequence[str], gene_ids: Sequence[str], adata: AnnData, gene_ids_key: str | None = None
) -> np.ndarray:
    """Find the column of the table for each gene, shape (len(genes),); -1 where there is none.

    Identifiers in ``gene_ids_key`` come first. Then a gene with an Ensembl id takes the column that states this id, because a symbol
    may belong to another gene in another annotation. Only what is left is matched by name: the identifiers of the table (its gene
    names, then known columns of ids and symbols) are compared with the names of the genes and then with their ids. A column that
    states the Ensembl id of another gene is never this gene's, whatever its name. Where the gene's id is not in the table and the column's
    not among the genes, the name decides: ids are renewed between releases of Ensembl.

    Versions of Ensembl ids are ignored, of repeated identifiers the first one is taken, and no column is used for two genes.
    """
    lists = _identifiers(adata, gene_ids_key)
    names, ids = [plain(g) for g in genes], [plain(g) for g in gene_ids]
    columns = np.full(len(genes), -1)
    used: set[int] = set()

    def take(values: Sequence[str], keys: Sequence[str], agree: Callable[[int, int], bool] | None = None) -> None:
        where = dict(zip(values[::-1], range(len(values))[::-1], strict=True))
        for i in np.flatnonzero(columns < 0).tolist():
            j = where.get(keys[i], -1) if keys[i] else -1
            if j >= 0 and j not in used and (agree is None or agree(i, j)):
                columns[i] = j
                used.add(j)

    if gene_ids_key is not None:
        take(lists[gene_ids_key], names)
        take(lists[gene_ids_key], ids)
    stated = _stated_ids(lists, gene_ids_key)
    known = [next((k for k in both if species_part(k)), "") for both in zip(ids, names, strict=True)]
    # of columns with the same id, the one that has the gene's name too
    take(lists["var_names"], names, lambda i, j: bool(known[i]) and known[i] == stated[j])
    for key in ("var_names", *_ID_COLUMNS):
        take(lists.get(key, []), known)

    in_encoder, in_table = set(known), set(stated)

    def not_another(i: int, j: int) -> bool:
        # ids that only one of the two has may be the gene's old one and its new one
        known_apart = stated[j] in in_encoder or known[i] in in_table
        # a name that is an Ensembl id is no symbol
        return (
            known[i] in ("", stated[j])
            or not known_apart
            or species_part(known[i]) != species_part(stated[j])
            or species_part(names[i]) != ""
        )

    for values in lists.values():
        take(values, names, not_another)
        take(values, ids)
    return columns


def names_and_ids(adata: AnnData, gene_ids_key: str | None = None) -> tuple[list[str], list[str]]:
    """Names and Ensembl ids of all genes of a table; ``""`` where an id is not known.

    Where the gene names of the table are Ensembl ids and a column has symbols, the symbols are the names, except where they are
    missing or repeated. An encoder that is fitted on the table then matches tables of either naming.
    """
    lists = _identifiers(adata, gene_ids_key)
    names = _names(adata)
    ids = _stated_ids(lists, gene_ids_key)
    symbol_key = next((k for k in _NAME_COLUMNS if k in lists and k != gene_ids_key), None)
    if mostly_ensembl(lists["var_names"]) and symbol_key is not None:
        taken = set(names)
        for i, symbol in enumerate(lists[symbol_key]):
            if symbol and symbol not in taken:
                names[i] = symbol
                taken.add(symbol)
    return names, ids


def matched_genes(
    tables: Sequence[AnnData], gene_ids_key: str | None = None
) -> tuple[np.ndarray, list[str], list[str]]:
    """Find the genes of several tables in each of them, matched by name or Ensembl id as in `match_genes`.

    Returns
    -------
    Column of each gene in each table, shape (number of tables, genes), -1 where the table lacks it; and names and Ensembl ids of the
    genes. Those of the first table come first, in its order, and are named as `names_and_ids` names them. A gene whose name an earlier
    table gives to another gene is named by its Ensembl id.
    """
    names, ids = names_and_ids(tables[0], gene_ids_key)
    found = [np.arange(len(names))]
    for table in tables[1:]:
        column = match_genes(names, ids, table, gene_ids_key)
        own_names, own_ids = names_and_ids(table, gene_ids_key)
        ids = [known or (own_ids[j] if j >= 0 else "") for known, j in zip(ids, column, strict=True)]
        others = np.setdiff1d(np.arange(table.n_vars), column)
        names += free_names([own_names[j] for j in others], [own_ids[j] for j in others], names)
        ids += [own_ids[j] for j in others]
        found.append(np.concatenate([column, others]))
    columns = np.full((len(tables), len(names)), -1)
    for row, column in zip(columns, found, strict=True):
        row[: len(column)] = column
    return columns, names, ids


def find_genes(asked: Sequence[str], names: Sequence[str], ids: Sequence[str]) -> np.ndarray:
    """Position of each gene that is asked for by name or Ensembl id, shape (len(asked),); -1 where there is none."""
    where: dict[str, int] = {}
    for known in (names, ids):
        for i, identifier in enumerate(known):
            where.setdefault(plain(identifier), i)
    return np.array([where.get(plain(gene), -1) if gene else -1 for gene in asked], dtype=np.int64)


def other_species_of(genes: Sequence[str], gene_ids: Sequence[str], adata: AnnData) -> str:
    """Describe how the genes of a table look like those of another species than these; ``""`` where they do not."""
    identifiers = [name for names in _identifiers(adata, None).values() for name in names]
    return other_species([*genes, *(i for i in gene_ids if i)], identifiers)


def _identifiers(adata: AnnData, gene_ids_key: str | None) -> dict[str, list[str]]:
    """All lists of identifiers of a table, in the order in which they are compared."""
    if not adata.var_names.is_unique:
        repeated = adata.var_names[adata.var_names.duplicated()].unique()
        raise ValueError(
            f"Names of genes repeat: {listing(repeated, 5)}. Run adata.var_names_make_unique() first, or sum the columns."
        )
    if gene_ids_key is not None and gene_ids_key not in adata.var:
        raise KeyError(f"gene_ids_key={gene_ids_key!r} is not in .var (found: {listing(adata.var.columns)}).")
    var = cast("pd.DataFrame", adata.var)
    lists = {} if gene_ids_key is None else {gene_ids_key: _column(var[gene_ids_key])}
    lists["var_names"] = [plain(n) for n in _names(adata)]
    return lists | {k: _column(var[k]) for k in (*_ID_COLUMNS, *_NAME_COLUMNS) if k in var and k != gene_ids_key}


def _stated_ids(lists: Mapping[str, Sequence[str]], gene_ids_key: str | None) -> list[str]:
    """Id that the table states for each column: that of ``gene_ids_key``, else an Ensembl id, else any; ``""`` where there is none."""
    ids = [""] * len(lists["var_names"]) if gene_ids_key is None else list(lists[gene_ids_key])
    others = [lists[k] for k in _ID_COLUMNS if k in lists]
    if mostly_ensembl(lists["var_names"]):
        others.append(lists["var_names"])
    for accepted in (species_part, str):
        for values in others:
            ids = [known or (value if accepted(value) else "") for known, value in zip(ids, values, strict=True)]
    return ids


def _names(adata: AnnData) -> list[str]:
    # all at once, because reading single strings of an Arrow array is slow
    return [str(n) for n in adata.var_names.to_numpy(dtype=object)]


def _column(values: pd.Series) -> list[str]:
    missing = pd.isna(values).to_numpy()
    return ["" if m else plain(v) for v, m in zip(values.to_numpy(dtype=object), missing, strict=True)]


def _check_overlap(
    genes: Sequence[str], gene_ids: Sequence[str], adata: AnnData, present: np.ndarray, fewest: int | None
) -> None:
    fraction = present.mean()
    if fraction >= _FEW or (fewest is not None and present.sum() >= fewest):
        return
    lacking = [gene for gene, found in zip(genes, present, strict=True) if not found]
    text = f"{int(present.sum())} of the encoder's {len(genes)} genes are in this table of {adata.n_vars} genes"
    too_few = "fewer than half" if fewest is None else f"fewer than {fewest}"
    if fewest is None and fraction >= _ENOUGH:
        warn(
            f"{text}; missing are {listing(lacking, 5)}. The embedding is computed from fewer genes than the encoder was fitted on."
        )
        return
    ids = [i for i in gene_ids if i]
    if species := other_species_of(genes, gene_ids, adata):
        raise ValueError(f"Only {text}, {too_few}. {species}")
    if contradiction := _contradicted(genes, gene_ids, adata, lacking):
        raise ValueError(f"Only {text}, {too_few}. {contradiction}")
    raise ValueError(
        f"Only {text}, {too_few}. The encoder knows {listing(lacking, 5)}"
        f"{f' and ids such as {ids[0]}' if ids else ''}; the table has {listing(adata.var_names, 5)} and columns "
        f"{listing(adata.var.columns)}. If a column holds the matching names, use them: adata.var_names = adata.var[column]. "
        "Otherwise the table is of another species or panel: fit an encoder on it with sw.pp.fit_gene_encoder."
    )


def _contradicted(genes: Sequence[str], gene_ids: Sequence[str], adata: AnnData, lacking: Sequence[str]) -> str:
    """Describe how most genes that were not found have their name in the table beside another Ensembl id; ``""`` where they do not."""
    stated = dict(zip(*names_and_ids(adata), strict=True))
    known = dict(zip(genes, gene_ids, strict=True))
    others = [gene for gene in lacking if known[gene] and stated.get(gene)]
    if len(others) <= len(lacking) / 2:
        return ""
    examples = listing((f"{gene} ({stated[gene]} here, {known[gene]} there)" for gene in others), 2)
    return (
        f"{len(others)} others have the same name and another Ensembl id in the table than in the encoder, such as {examples}, and the id "
        "decides. If the table's ids are wrong, drop their column: del adata.var[column]."
    )


def _layers(adata: AnnData) -> list[str]:
    # anndata 0.13 lists .X as the layer None
    return [str(k) for k in adata.layers.keys() if k is not None]


def _where_counts_are(adata: AnnData, layer: str | None) -> str:
    places = [f"layer={k!r}" for k in _layers(adata) if k != layer and _are_counts(adata.layers[k])]
    if layer is not None and adata.X is not None and _are_counts(adata.X):
        places.insert(0, "layer=None (.X)")
    if adata.raw is not None and _are_counts(adata.raw.X):
        places.append("adata.raw.to_adata() as data")
    have = f"layers found: {listing(_layers(adata))}; .raw {'exists' if adata.raw is not None else 'does not exist'}"
    if places:
        return f"Counts are elsewhere: pass {' or '.join(places)} ({have})."
    return f"No layer holds counts ({have}): read the counts from the source again."


def _are_counts(stored: Any) -> bool:
    return not_counts(_in_memory(stored).data) is None


def _in_memory(stored: Any, place: str = "A matrix of counts") -> sp.csr_matrix:
    try:
        return _loaded(stored)
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(
            f"{place} could not be read as a matrix of numbers: {type(error).__name__}: {error}. Read the counts from the source again."
        ) from error


def _loaded(stored: Any) -> sp.csr_matrix:
    if not sp.issparse(stored):
        if hasattr(stored, "to_memory"):
            stored = stored.to_memory()
        elif hasattr(stored, "compute"):
            stored = stored.compute()
        elif not isinstance(stored, np.ndarray):
            stored = stored[()] if hasattr(stored, "shape") else np.asarray(stored)
        # scipy has no sparse matrices of half precision, whose numbers single precision holds exactly
        stored = stored.astype(np.float32) if getattr(stored, "dtype", None) == np.float16 else stored
    return stored_once(sp.csr_matrix(stored))
