"""Embedding gene expression: fit an encoder, apply it, store the result."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from spatialwhisperer import _keys
from spatialwhisperer._access.columns import as_list
from spatialwhisperer._access.result import Result
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.table.counts import align_counts, counts_matrix, matched_genes
from spatialwhisperer._access.table.groups import group_names
from spatialwhisperer._access.tables import obs_of
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.values import check_batch_size, check_key_added
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import inform, listing, warn
from spatialwhisperer.encoders.catalogue import encoder_class, encoder_names
from spatialwhisperer.encoders.gene.base import GeneEncoder
from spatialwhisperer.encoders.gene.kept_fits import fit_or_kept
from spatialwhisperer.encoders.outputs import encoded
from spatialwhisperer.encoders.resolve import named_gene_encoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData


@shared
@checked
def fit_gene_encoder(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    encoder: str = "scvi",
    *,
    table_key: str | None = None,
    layer: str | None = None,
    batch_key: str | None = None,
    labels_key: str | None = None,
    n_latent: int = 32,
    n_top_genes: int | None = 2000,
    max_epochs: int | None = None,
    gene_ids_key: str | None = None,
    device: str | None = None,
    random_state: int = 0,
    options: Mapping[str, Any] | None = None,
) -> GeneEncoder:
    """Fit a gene encoder on raw counts.

    Genes are chosen and parameters are learnt on the given data alone. Where some sections are held out, pass the training sections
    only, and apply the encoder to the others with :func:`embed_genes`. Nothing is written to ``data``. The last four fits of scVI, scANVI,
    DRVI and the set transformer are kept in the process: another call on the same counts with the same arguments returns the same encoder
    at once.

    Parameters
    ----------
    data
        One object or several with raw counts. Of several, the genes that all of them have are used, matched by name or Ensembl id.
    encoder
        ``"pca"``: principal components of log1p(CP10k). ``"scvi"``: scVI (Lopez et al., Nat Methods 2018). ``"scanvi"``: scANVI (Xu
        et al., Mol Syst Biol 2021). ``"drvi"``: DRVI (Moinfar & Theis, bioRxiv 2024; scvi-tools 1.5 or later). ``"identity"``: the log
        expression itself. ``"set_transformer"``: attention over the expressed genes. ``"gene_sentence"``: a text encoder applied to the
        names of the most expressed genes.
    %(table_key)s
    %(layer)s
    batch_key
        Column of ``.obs`` with the batch. Equal values in several objects are one batch. ``None`` takes each object, and each section
        within it, as a batch. Batches are used to choose genes and to fit; the fitted encoder does not need them.
    labels_key
        Column of ``.obs`` with labels for ``"scanvi"``, compared by their names. Missing values, and objects without the column, count as
        unlabelled.
    n_latent
        Columns of the embedding. ``"identity"`` and ``"gene_sentence"`` have their own number.
    n_top_genes
        Highly variable genes to keep (scanpy's ``seurat_v3``, batch by batch); ``None`` keeps every gene that has counts.
    max_epochs
        Passes over the data for scVI, scANVI and the set transformer; ``None`` takes their own rule.
    gene_ids_key
        Column of ``.var`` with gene ids; ``None`` looks for the usual names (``gene_ids``, ``ensembl_id``, …).
    %(device)s
    %(random_state)s
    options
        More keyword arguments of the encoder's ``fit``: ``{"value_space": "per_spot_log10"}`` for ``"identity"``,
        ``{"max_genes": 64}`` for ``"set_transformer"``, ``{"drop": "peer"}`` for ``"gene_sentence"``.

    Returns
    -------
    The encoder, to pass to :func:`embed_genes`, or to save with its method ``save(folder)``.

    Raises
    ------
    KeyError
        If a layer, table or column does not exist.
    ValueError
        If values are not raw counts, gene names repeat, no gene is shared, or an argument does not apply to the encoder.

    Examples
    --------
    >>> import anndata as ad
    >>> import numpy as np
    >>> import spatialwhisperer as sw
    >>> rng = np.random.default_rng(0)
    >>> adata = ad.AnnData(rng.poisson(1.0, (60, 30)).astype("float32"))
    >>> sw.pp.fit_gene_encoder(adata, "pca", n_latent=4)
    PCAEncoder(30 genes -> 4)
    """
    _check_name(encoder)
    if (labels_key is not None) != (encoder == "scanvi"):
        raise ValueError(
            "encoder='scanvi' needs labels_key=…."
            if encoder == "scanvi"
            else f"labels_key applies to encoder='scanvi', not to {encoder!r}."
        )
    kind: Any = encoder_class(encoder, "gene")
    allowed = inspect.signature(kind.fit).parameters
    if max_epochs is not None and "max_epochs" not in allowed:
        raise ValueError(f"max_epochs does not apply to {encoder!r}, which has no epochs.")
    if n_latent != _defaults()["n_latent"] and "n_latent" not in allowed:
        raise ValueError(f"n_latent does not apply to {encoder!r}: its number of columns follows from the rest.")
    _check_options(encoder, options, allowed)
    slides = [Slide.open(d, table_key=table_key) for d in as_list(data)]
    tables = [slide.table for slide in slides]
    batch = np.concatenate(batch_codes(slides, batch_key))
    labels = None if labels_key is None else _labels(tables, labels_key)
    counts, genes, ids = _shared_counts(tables, layer, gene_ids_key)

    values: dict[str, Any] = {
        "batch": batch if len(np.unique(batch)) > 1 else None,
        "n_latent": n_latent,
        "n_top_genes": n_top_genes,
        "max_epochs": max_epochs,
        "device": device,
        "random_state": random_state,
        "labels": labels,
        **(options or {}),
    }
    values = {name: value for name, value in values.items() if name in allowed}
    fitted, kept = fit_or_kept(kind, counts, genes, ids, values)
    if kept:
        inform(f"{encoder}: an earlier call fitted it on the same counts with the same arguments; its result is used.")
    left_out = counts.shape[0] - int(fitted.fitted.get("rows", counts.shape[0]))
    if left_out:
        warn(f"{left_out} rows without counts in the chosen genes were left out of the fit.")
    return fitted


@shared
@checked
def embed_genes(
    data: AnnData | SpatialData,
    encoder: str | Path | GeneEncoder = "scvi",
    *,
    table_key: str | None = None,
    layer: str | None = None,
    batch_key: str | None = None,
    labels_key: str | None = None,
    n_latent: int = 32,
    n_top_genes: int | None = 2000,
    max_epochs: int | None = None,
    gene_ids_key: str | None = None,
    key_added: str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    random_state: int = 0,
    options: Mapping[str, Any] | None = None,
    inplace: bool = True,
) -> np.ndarray | None:
    """Embed raw counts with a gene encoder.

    Given a name, it fits an encoder on this object, applies it and discards it. To keep the encoder, and whenever some data are held
    out, call :func:`fit_gene_encoder` first and pass what it returns.

    Genes are matched by Ensembl id where both the encoder and the table state one, else by name; their order in the table does not
    matter. For genes that the table lacks, the PCA assumes the mean of its training data, the other encoders zero.

    Parameters
    ----------
    data
        Object with raw counts.
    encoder
        A fitted encoder, the folder of a saved one, the name of one to fit, as for :func:`fit_gene_encoder`, or ``"geneformer"``,
        which is not fitted.
    %(table_key)s
    %(layer)s
    batch_key, labels_key, n_latent, n_top_genes, max_epochs, random_state, options
        Passed to :func:`fit_gene_encoder`; an error with an encoder that is fitted already.
    gene_ids_key
        Column of ``.var`` by which genes are matched first.
    key_added
        Key in ``.obsm``; ``None`` takes ``X_`` and the name of the encoder.
    %(batch_size)s
    %(device)s
    %(inplace)s

    Returns
    -------
    ``None``, or with ``inplace=False`` the embedding. In place it writes:

    ``.obsm[key_added]`` : :class:`numpy.ndarray` (dtype ``float32``)
        Embedding, shape (n, dim); NaN in rows without counts in the encoder's genes, for ``"identity"`` in rows without any count.
    ``.uns["spatialwhisperer"][key_added]`` : :class:`dict`
        Encoder, number of genes found, and how the encoder was fitted.

    Raises
    ------
    KeyError
        If a layer, table or column does not exist.
    FileNotFoundError
        If a folder holds no gene encoder.
    TypeError
        If ``encoder`` is neither a name, nor a folder, nor a gene encoder.
    ValueError
        If values are not raw counts, gene names repeat, or too few of the encoder's genes are found: fewer than half, and fewer than ten for
        ``"geneformer"``.

    Examples
    --------
    >>> import anndata as ad
    >>> import numpy as np
    >>> import spatialwhisperer as sw
    >>> rng = np.random.default_rng(0)
    >>> adata = ad.AnnData(rng.poisson(1.0, (60, 30)).astype("float32"))
    >>> encoder = sw.pp.fit_gene_encoder(adata[:40], "pca", n_latent=4)
    >>> sw.pp.embed_genes(adata, encoder)
    >>> adata.obsm["X_pca"].shape
    (60, 4)
    """
    check_key_added(key_added)
    check_batch_size(batch_size)
    slide = Slide.open(data, table_key=table_key)
    table = slide.table
    fit = {
        "batch_key": batch_key,
        "labels_key": labels_key,
        "n_latent": n_latent,
        "n_top_genes": n_top_genes,
        "max_epochs": max_epochs,
        "random_state": random_state,
        "options": options,
    }
    fitted = _fitted_encoder(encoder, fit)
    on_this = fitted is None
    if fitted is None:
        common = {"table_key": table_key, "layer": layer, "gene_ids_key": gene_ids_key, "device": device}
        fitted = fit_gene_encoder(data, str(encoder), **common, **fit)  # type: ignore[arg-type]
    out, present = gene_features(
        table, fitted, layer=layer, gene_ids_key=gene_ids_key, batch_size=batch_size, device=device
    )
    if not inplace:
        return out
    key = _keys.features(fitted.name) if key_added is None else key_added
    parameters = {
        "encoder": fitted.name,
        "digest": fitted.identity.digest,
        "dim": fitted.dim,
        "genes": len(fitted.genes),
        "genes_found": int(present.sum()),
        "layer": layer,
        "fitted_on_this_data": on_this,
        "fitted": fitted.fitted,
    }
    slide.put(Result(key, parameters, obsm={key: out}))
    return None


def gene_features(
    table: AnnData,
    encoder: GeneEncoder,
    *,
    layer: str | None = None,
    gene_ids_key: str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Embed the raw counts of a table.

    Returns
    -------
    The embedding, float32, shape (n, dim), NaN in rows without counts in the encoder's genes (for "identity": in any gene); and a
    Boolean array, shape (genes,), of which genes the table has.
    """
    counts, present, library = align_counts(
        encoder.genes, encoder.gene_ids, table, layer, gene_ids_key=gene_ids_key, fewest=encoder.fewest_genes
    )[:3]
    options = {"library": library} if encoder.reads_library else {}
    out = encoded(encoder, counts, absent_rows=True, present=present, batch_size=batch_size, device=device, **options)
    total = library if encoder.encodes_zeros else np.asarray(counts.sum(axis=1)).ravel()
    # an encoder may leave out genes, which are then the only ones that a row has counts of
    empty = (total == 0) | ~np.isfinite(out).all(axis=1)
    if empty.any():
        out[empty] = np.nan
        where = "" if encoder.encodes_zeros else " in the encoder's genes"
        warn(
            f"{int(empty.sum())} rows have no counts{where} and get NaN; "
            "sc.pp.filter_cells(adata, min_counts=1) drops rows that are empty altogether."
        )
    return out, present


def _defaults() -> Mapping[str, Any]:
    """Defaults of the arguments of `fit_gene_encoder`."""
    return {
        name: p.default
        for name, p in inspect.signature(fit_gene_encoder).parameters.items()
        if p.kind is p.KEYWORD_ONLY
    }


def _check_options(encoder: str, options: Mapping[str, Any] | None, allowed: Mapping[str, Any]) -> None:
    if options is not None and not isinstance(options, Mapping):
        raise TypeError(f"options must be a mapping from argument to value, not {options!r}.")
    own = {"counts", "genes", "gene_ids", "batch", "labels", *_defaults()}
    free = [name for name in allowed if name not in own]
    wrong = [name for name in options or {} if name not in free]
    if wrong:
        raise ValueError(f"options of {encoder!r} has {listing(wrong)}; it takes {listing(free)}.")


def _check_name(encoder: str) -> None:
    names = encoder_names("gene", fits=True)
    if encoder not in names:
        raise ValueError(f"encoder={encoder!r} is not a gene encoder that is fitted (found: {listing(names)}).")


def _fitted_encoder(encoder: str | Path | GeneEncoder, fit: Mapping[str, Any]) -> GeneEncoder | None:
    """Return the encoder where one was given or saved; ``None`` where a name asks for a fit."""
    if isinstance(encoder, str) and encoder in encoder_names("gene", fits=True):
        return None
    if isinstance(encoder, str | Path):
        encoder = named_gene_encoder(encoder)
    if not isinstance(encoder, GeneEncoder):
        raise TypeError(f"encoder must be a name, a folder or a GeneEncoder, not {type(encoder).__name__}.")
    defaults = _defaults()
    changed = [name for name, value in fit.items() if value != defaults[name]]
    if changed:
        raise ValueError(f"{listing(changed)} would change a fit, and this encoder is fitted already: leave them out.")
    return encoder


def batch_codes(slides: Sequence[Slide], batch_key: str | None, *, argument: str = "batch_key") -> list[np.ndarray]:
    """Batch of each row of each object, as text: the values of a column, else one batch per object and section."""
    if batch_key is None:
        return [np.array([f"{i}/{code}" for code in slide.sections]) for i, slide in enumerate(slides)]
    tables = [slide.table for slide in slides]
    for i, table in enumerate(tables):
        if batch_key not in table.obs:
            raise KeyError(
                f"{argument}={batch_key!r} is not in .obs of object {i} (found: {listing(table.obs.columns)})."
            )
        if table.obs[batch_key].isna().any():
            what = argument.removesuffix("_key")
            raise ValueError(f".obs[{batch_key!r}] of object {i} has missing values; every row needs a {what}.")
    return [group_names(obs_of(table)[batch_key]).astype(str) for table in tables]


def _labels(tables: list[AnnData], labels_key: str) -> np.ndarray:
    """Name of the label of each row, so that 1 in one table and "1" in another are one label; ``None`` where it is missing."""
    if not any(labels_key in table.obs for table in tables):
        columns = dict.fromkeys(c for table in tables for c in table.obs.columns)
        raise KeyError(f"labels_key={labels_key!r} is not in .obs (found: {listing(columns)}).")
    parts = []
    for table in tables:
        named = labels_key in table.obs
        parts.append(group_names(obs_of(table)[labels_key]) if named else np.full(table.n_obs, None, object))
    return np.concatenate(parts)


def _shared_counts(
    tables: list[AnnData], layer: str | None, gene_ids_key: str | None
) -> tuple[sp.csr_matrix, list[str], list[str]]:
    """Stack the counts of the genes that all tables have."""
    matrices = [counts_matrix(table, layer) for table in tables]
    columns, genes, ids = matched_genes(tables, gene_ids_key)
    shared = (columns >= 0).all(axis=0)
    smallest = min(table.n_vars for table in tables)
    if not shared.any():
        names = "; ".join(listing(table.var_names, 4) for table in tables)
        raise ValueError(
            f"No gene is in all {len(tables)} objects ({names}). gene_ids_key=… names a column to match by."
        )
    if shared.sum() < smallest / 2:
        warn(f"Only {int(shared.sum())} genes are in all {len(tables)} objects; the smallest has {smallest}.")
    counts = sp.vstack([m[:, c[shared]] for m, c in zip(matrices, columns, strict=True)], format="csr")
    keep = np.flatnonzero(shared)
    return counts, [genes[i] for i in keep], [ids[i] for i in keep]
