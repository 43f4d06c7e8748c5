"""Reading slots of one or several objects, with errors that name the call which fills them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer import _keys
from spatialwhisperer._access import get_table
from spatialwhisperer._messages import found

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from anndata import AnnData


def as_list(data: Any, name: str = "data") -> list[Any]:
    """One object or several, as a list.

    Raises
    ------
    ValueError
        If the list is empty.
    """
    objects = list(data) if isinstance(data, Sequence) else [data]
    if not objects:
        raise ValueError(f"{name} is an empty list; pass at least one AnnData or SpatialData.")
    return objects


@contextmanager
def all_or_nothing(tables: Sequence[AnnData], slot: str | None) -> Iterator[None]:
    """After an error take back the features that were stored in this slot of ``.obsm`` inside the block."""
    before = [(table, slot in table.obsm, table.uns.get(_keys.UNS)) for table in tables]
    try:
        yield
    except BaseException:
        for table, there, provenance in before:
            if there or slot not in table.obsm:
                continue
            del table.obsm[slot]
            del table.uns[_keys.UNS]
            if provenance is not None:
                table.uns[_keys.UNS] = provenance
        raise


@contextmanager
def untouched_after_error(table: AnnData) -> Iterator[None]:
    """After an error give ``.obsm`` and the provenance back as they were, also where the block replaced a slot."""
    obsm, provenance = dict(table.obsm), table.uns.get(_keys.UNS)
    try:
        yield
    except BaseException:
        for slot in list(table.obsm):
            if slot not in obsm:
                del table.obsm[slot]
        for slot, values in obsm.items():
            table.obsm[slot] = values
        table.uns.pop(_keys.UNS, None)
        if provenance is not None:
            table.uns[_keys.UNS] = provenance
        raise


def tables_of(data: Any, table_key: str | None, name: str = "data") -> list[AnnData]:
    """Return the table of each object."""
    return [get_table(d, table_key) for d in as_list(data, name)]


def matrix(table: AnnData, use: str, where: str = "") -> np.ndarray:
    """Rows of a slot of ``.obsm`` as float64, shape (n, d).

    Raises
    ------
    KeyError
        If the slot does not exist; the text names the call that writes it.
    """
    if use not in table.obsm:
        raise KeyError(f"{use!r} is not in .obsm{where} (found: {found(table.obsm)}). {_filled_by(use)}")
    values = table.obsm[use]
    values = values.toarray() if hasattr(values, "toarray") else np.asarray(values)
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.number):
        raise ValueError(
            f".obsm[{use!r}]{where} must be a matrix of numbers, not {values.dtype} of shape {values.shape}."
        )
    return values.astype(np.float64)


def stacked(tables: Sequence[AnnData], use: str) -> np.ndarray:
    """The same slot of several tables, one below the other.

    Raises
    ------
    KeyError
        If a table lacks the slot.
    ValueError
        If the widths differ.
    """
    parts = [matrix(t, use, _of(i, tables)) for i, t in enumerate(tables)]
    widths = sorted({p.shape[1] for p in parts})
    if len(widths) > 1:
        raise ValueError(
            f".obsm[{use!r}] has {found(widths)} columns in different objects: they were not embedded by the same model."
        )
    return np.concatenate(parts)


def column(table: AnnData, key: str, argument: str, where: str = "", cure: str = "") -> np.ndarray:
    """A column of ``.obs`` as strings; ``None`` where it is missing.

    Raises
    ------
    KeyError
        If the column does not exist.
    """
    if key not in table.obs:
        raise KeyError(f"{argument}={key!r} is not in .obs{where} (found: {found(table.obs.columns)}). {cure}".rstrip())
    return texts(table.obs[key])


def texts(values: pd.Series) -> np.ndarray:
    """Values as strings in an object array; ``None`` where they are missing."""
    stated = values.notna().to_numpy()
    out = np.full(len(values), None, dtype=object)
    out[stated] = [str(v) for v in values[stated]]
    return out


def columns(tables: Sequence[AnnData], key: str, argument: str, cure: str = "") -> np.ndarray:
    """The same column of several tables, one below the other."""
    return np.concatenate([column(t, key, argument, _of(i, tables), cure) for i, t in enumerate(tables)])


def set_categories(table: AnnData, key: str, values: pd.Categorical) -> None:
    """Write a categorical column of ``.obs``; ``.uns['<key>_colors']``, which goes by position, stays with its categories only."""
    former = table.obs[key] if key in table.obs else None
    same = former is not None and hasattr(former, "cat") and list(former.cat.categories) == list(values.categories)
    table.obs[key] = values
    if not same:
        table.uns.pop(f"{key}_colors", None)


def _of(number: int, tables: Sequence[AnnData]) -> str:
    return "" if len(tables) == 1 else f" of object {number}"


def _filled_by(use: str) -> str:
    if use in (_keys.IMAGE, _keys.GENE):
        return "Run sw.tl.embed(data, model=model) first, or pass use=… with a slot that is there."
    if use in {_keys.features(name) for name in ("scvi", "scanvi", "pca")}:
        return f"Run sw.pp.embed_genes(data, {use.removeprefix('X_')!r}) first."
    return "Run sw.pp.embed_images(data, encoder) or sw.pp.embed_genes(data, encoder) first."
