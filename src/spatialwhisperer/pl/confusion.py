"""Predicted against known classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.columns import columns, tables_of
from spatialwhisperer._access.table.groups import known_labels, names_in_order
from spatialwhisperer._access.tables import obs_of
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._docs import shared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData


@shared
@checked
def confusion(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    *,
    labels_key: str,
    key: str = _keys.CLASS,
    normalize: bool = True,
    ignore: Sequence[str] = (),
    cmap: str = "Blues",
    table_key: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how many rows of each known class were given each class.

    Parameters
    ----------
    data
        One object or several, classified by :func:`spatialwhisperer.tl.classify`, or by
        :func:`spatialwhisperer.tl.evaluate_classes` with ``key_added``.
    labels_key
        Column of ``.obs`` with the known classes; missing values are left out.
    key
        Column of ``.obs`` with the classes that were given; missing ones get a column of their own.
    normalize
        Colour the fraction of the known class instead of the number of rows. The numbers are written in either case.
    ignore
        Known classes that are left out.
    cmap
        Colour map.
    %(table_key)s
    ax
        Axes to draw into.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        If a column does not exist.
    ValueError
        If no row has a known class.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> section = sw.datasets.simulate_sections(1, 80, n_genes=60, n_reference_cells=50, random_state=0).sections["P1"]
    >>> sw.pp.embed_images(section, tile_um=80, tile_px=64)
    >>> sw.tl.classify(section, labels_key="cell_type", use="X_stain_texture")
    >>> ax = sw.pl.confusion(section, labels_key="cell_type")
    """
    tables = tables_of(data, table_key)
    truth = known_labels(columns(tables, labels_key, "labels_key"), ignore)
    guess = columns(tables, key, "key", "Run sw.tl.classify(data, labels_key=…) first.")
    known = truth != None  # noqa: E711
    if not known.any():
        raise ValueError(f"No row has a known class in labels_key={labels_key!r}.")
    rows = names_in_order(truth[known], [obs_of(t)[labels_key] for t in tables])
    guesses = names_in_order(guess, [obs_of(t)[key] for t in tables])
    columns_ = list(dict.fromkeys([*(r for r in rows if r in guesses), *guesses]))
    counts = pd.crosstab(truth[known], np.where(guess[known] == None, "no class", guess[known]))  # noqa: E711
    columns_ = [*columns_, *(["no class"] if "no class" in counts and "no class" not in columns_ else [])]
    counts = counts.reindex(index=rows, columns=columns_, fill_value=0)
    return _draw(counts, normalize, cmap, ax, labels_key, key)


def _draw(counts: pd.DataFrame, normalize: bool, cmap: str, ax: Any, labels_key: str, key: str) -> Axes:
    n_rows, n_columns = counts.shape
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(2.6 + 0.75 * n_columns, 1.6 + 0.55 * n_rows), layout="constrained")
    numbers = counts.to_numpy()
    fractions = numbers / numbers.sum(axis=1, keepdims=True)
    shown = fractions if normalize else numbers
    top = 1.0 if normalize else max(numbers.max(), 1)
    image = ax.imshow(shown, cmap=cmap, vmin=0, vmax=top, aspect="auto")
    for i in range(n_rows):
        for j in range(n_columns):
            text = f"{fractions[i, j]:.0%}\n{numbers[i, j]:,}" if normalize else f"{numbers[i, j]:,}"
            colour = "white" if shown[i, j] > 0.55 * top else "#555555" if numbers[i, j] == 0 else "black"
            ax.text(j, i, text, ha="center", va="center", fontsize=8, color=colour, linespacing=1.1)
    ax.set_xticks(range(n_columns), counts.columns, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(n_rows), [f"{name} ({n:,})" for name, n in zip(counts.index, numbers.sum(axis=1), strict=True)])
    ax.set_xlabel(key)
    ax.set_ylabel(labels_key)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.04, pad=0.02)
    bar.set_label("fraction of the known class" if normalize else "rows", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)
    return ax
