"""Embeddings coloured by batch and by label, beside what the report says about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spatialwhisperer._access.columns import tables_of
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import listing
from spatialwhisperer._random import isolated_rng
from spatialwhisperer.pl._drawing import canvas
from spatialwhisperer.tl.evaluation.batches import batch_report, report_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

_BARS = {
    "mixing": "mixing of batches",
    "mixing_within_labels": "… within labels",
    "batch_accuracy": "batch predicted by a probe",
    "label_accuracy": "label predicted from other batches",
}
_CHANCE = {"batch_accuracy": "batch_chance", "label_accuracy": "label_chance"}

_ROW = 3.7
"""Height of a row of axes in inches."""


@shared
@checked
def batches(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    *,
    batch_key: str,
    embeddings: str | Sequence[str],
    labels_key: str | None = None,
    ignore: Sequence[str] = ("undetermined",),
    reduction: Literal["umap", "pca"] = "umap",
    report: pd.DataFrame | None = None,
    k: int = 30,
    max_rows: int = 5000,
    table_key: str | None = None,
    random_state: int = 0,
) -> list[Axes]:
    """Draw each embedding coloured by batch and by label, and the numbers of the batch report as bars.

    Batches and labels have the colours of ``.uns['<key>_colors']``, of several objects those of the first that has some.

    Parameters
    ----------
    data
        One object or several.
    batch_key
        Column of ``.obs`` with the batch.
    embeddings
        Key of ``.obsm`` with an embedding, or several.
    labels_key
        Column of ``.obs`` with known labels; unknown ones are grey.
    ignore
        Labels that count as unknown.
    reduction
        How to bring an embedding into the plane: UMAP of its neighbourhood graph, or its first two principal components.
    report
        What :func:`spatialwhisperer.tl.batch_report` returned for these embeddings; ``None`` computes it.
    k, max_rows
        As in :func:`spatialwhisperer.tl.batch_report`.
    %(table_key)s
    %(random_state)s

    Returns
    -------
    The axes, one row per embedding: batches, labels (with ``labels_key``), bars. A dashed line in a bar is what chance gives.

    Raises
    ------
    KeyError
        If a column or an embedding does not exist, or the report lacks one.
    ValueError
        If ``reduction`` is unknown, or as in :func:`spatialwhisperer.tl.batch_report`.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections = sw.datasets.simulate_sections(2, 80, n_genes=60, n_reference_cells=50, random_state=0).sections
    >>> encoder = sw.pp.fit_gene_encoder(list(sections.values()), "pca", n_latent=5)
    >>> for section in sections.values():
    ...     sw.pp.embed_genes(section, encoder)
    >>> axes = sw.pl.batches(list(sections.values()), batch_key="patient", embeddings="X_pca", reduction="pca", k=10)
    """
    if reduction not in ("umap", "pca"):
        raise ValueError(f"reduction must be 'umap' or 'pca', not {reduction!r}.")
    keys = [embeddings] if isinstance(embeddings, str) else list(dict.fromkeys(embeddings))
    common: dict[str, Any] = {"max_rows": max_rows, "table_key": table_key, "random_state": random_state}
    if report is None:
        report = batch_report(
            data, batch_key=batch_key, embedding=keys, labels_key=labels_key, ignore=ignore, k=k, **common
        )
    if not hasattr(report, "index"):
        raise TypeError(f"report must be what sw.tl.batch_report returns, not {report!r}.")
    missing = [k for k in keys if k not in report.index]
    if missing:
        raise KeyError(f"The report has no row for {listing(missing)} (found: {listing(report.index)}).")
    rows = report_rows(data, batch_key, keys, labels_key, ignore, **common)

    import matplotlib.pyplot as plt

    n_columns = 2 + (labels_key is not None)
    tables = tables_of(data, table_key)
    columns = [(batch_key, rows.batch)]
    if labels_key is not None and rows.label is not None:
        columns.append((labels_key, rows.label))
    colours = [canvas.label_colours(tables, name, _names(values)) for name, values in columns]
    room = sum(canvas.legend_inches([*names, "no label"], _ROW) for names in colours)
    widths = [1.0] * (n_columns - 1) + [0.75]
    figure, grid = plt.subplots(
        len(keys),
        n_columns,
        figsize=(5.1 + 3.6 * (n_columns - 1) + room, _ROW * len(keys)),
        squeeze=False,
        layout="constrained",
        width_ratios=widths,
    )
    order = np.random.default_rng(random_state).permutation(len(rows.batch))
    shown = [c for c in _BARS if c in report]
    for line, key in zip(grid, keys, strict=True):
        xy = _plane(rows.values[key], reduction, random_state)
        for ax, (name, values), chosen in zip(line, columns, colours, strict=False):
            _scatter(ax, xy, values, chosen, order, reduction)
            ax.set_title(f"{key} by {name}", fontsize=10)
        _bars(line[-1], report.T[key], shown, float(report[shown].max().max()))
    return list(grid.ravel())


def _names(values: np.ndarray) -> list[str]:
    return sorted({v for v in values if v is not None})


def _plane(x: np.ndarray, reduction: str, random_state: int) -> np.ndarray:
    if x.shape[1] == 1:
        return np.column_stack([x, np.zeros(len(x))])
    if reduction == "pca":
        from sklearn.decomposition import PCA

        return PCA(2, svd_solver="full").fit_transform(x)
    import anndata as ad
    import scanpy as sc

    adata = ad.AnnData(x.astype(np.float32))
    with isolated_rng(random_state):
        sc.pp.neighbors(adata, n_neighbors=min(15, len(x) - 1), use_rep="X", random_state=random_state)
        sc.tl.umap(adata, random_state=random_state)
    return np.asarray(adata.obsm["X_umap"])


def _scatter(
    ax: Axes, xy: np.ndarray, values: np.ndarray, colours: Mapping[str, str], order: np.ndarray, reduction: str
) -> None:
    # in random order, so that no batch lies on top of the others; unknown rows below
    unknown = np.array([v is None for v in values])
    order = np.concatenate([order[unknown[order]], order[~unknown[order]]])
    size = float(np.clip(16000 / len(xy), 2, 30))
    x, y = xy[order].T
    ax.scatter(x, y, s=size, c=[colours.get(values[i], canvas.GREY) for i in order], linewidths=0, alpha=0.8)
    ax.set_xlabel(f"{reduction.upper()} 1", fontsize=8)
    ax.set_ylabel(f"{reduction.upper()} 2", fontsize=8)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[["top", "right"]].set_visible(False)
    canvas.legend(ax, canvas.dots({**colours, **({"no label": canvas.GREY} if unknown.any() else {})}))


def _bars(ax: Axes, row: pd.Series, shown: Sequence[str], top: float) -> None:
    at = np.arange(len(shown))[::-1]
    values = row[list(shown)].to_numpy(dtype=float)
    ax.barh(
        at, np.nan_to_num(values), height=0.55, color=["#4c72b0" if "label_" not in c else "#55a868" for c in shown]
    )
    for y, value, name in zip(at, values, shown, strict=True):
        ax.text(max(np.nan_to_num(value), 0) + 0.02, y, f"{value:.2f}", va="center", fontsize=8)
        if name in _CHANCE:
            ax.plot([row[_CHANCE[name]]] * 2, [y - 0.36, y + 0.36], color="black", ls="--", lw=1)
    ax.set_yticks(at, [_BARS[c] for c in shown], fontsize=8)
    ax.set_xlim(0, 1.18 * max(1.0, top))
    ax.set_ylim(-0.6, len(shown) - 0.4)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
