"""Reading columns and matrices of one or several objects. Errors name the call that writes what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.contract import number_matrix
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.table.groups import group_names
from spatialwhisperer._access.tables import obs_of
from spatialwhisperer._checks.texts import plain_text, reads_missing
from spatialwhisperer._checks.values import check_text
from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

T = TypeVar("T")


def as_list(data: T | Sequence[T], name: str = "data") -> list[T]:
    """One object or several, as a list.

    Raises
    ------
    ValueError
        If the list is empty.
    """
    objects: list[T] = list(data) if isinstance(data, Sequence) else [data]
    if not objects:
        raise ValueError(f"{name} is an empty list; pass at least one AnnData or SpatialData.")
    return objects


def tables_of(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData], table_key: str | None, name: str = "data"
) -> list[AnnData]:
    """Return the table of each object."""
    return [Slide.open(d, table_key=table_key).table for d in as_list(data, name)]


def matrix(table: AnnData, use: str, where: str = "") -> np.ndarray:
    """A matrix of ``.obsm`` as float64, shape (n, d).

    Raises
    ------
    KeyError
        If it does not exist. The message names the call that writes it.
    ValueError
        If it is not a matrix of numbers.
    """
    check_text("use", use)
    if use not in table.obsm:
        raise KeyError(f"{use!r} is not in .obsm{where} (found: {listing(table.obsm)}). {_filled_by(use)}")
    return number_matrix(table.obsm[use], f".obsm[{use!r}]{where}")


def stacked(tables: Sequence[AnnData], use: str) -> np.ndarray:
    """The same matrix of several tables, one below the other.

    Raises
    ------
    KeyError
        If a table lacks it.
    ValueError
        If the widths differ.
    """
    parts = [matrix(t, use, _of(i, tables)) for i, t in enumerate(tables)]
    widths = sorted({p.shape[1] for p in parts})
    if len(widths) > 1:
        raise ValueError(
            f".obsm[{use!r}] has {listing(widths)} columns in different objects: they were not embedded by the same model."
        )
    return np.concatenate(parts)


def column(table: AnnData, key: str, argument: str, where: str = "", remedy: str = "") -> np.ndarray:
    """A column of ``.obs`` with groups or labels, as their names; ``None`` where it is missing.

    Raises
    ------
    KeyError
        If the column does not exist.
    TypeError
        If its name is not text.
    """
    check_text(argument, key)
    if key not in table.obs:
        raise KeyError(
            f"{argument}={key!r} is not in .obs{where} (found: {listing(table.obs.columns)}). {remedy}".rstrip()
        )
    return group_names(obs_of(table)[key])


def plain_captions(values: pd.Series) -> np.ndarray:
    """Captions in plain form in an object array; ``None`` where one is missing, empty, or reads like a missing value."""
    codes, distinct = pd.factorize(values)
    plain = [plain_text(str(value)) for value in distinct]
    # the code of a missing value is -1
    return np.array([None if reads_missing(text) else text for text in plain] + [None], dtype=object)[codes]


def columns(tables: Sequence[AnnData], key: str, argument: str, remedy: str = "") -> np.ndarray:
    """The same column of several tables, one below the other."""
    return np.concatenate([column(t, key, argument, _of(i, tables), remedy) for i, t in enumerate(tables)])


def _of(number: int, tables: Sequence[AnnData]) -> str:
    return "" if len(tables) == 1 else f" of object {number}"


def _filled_by(use: str) -> str:
    if use in (_keys.IMAGE, _keys.GENE):
        return "Run sw.tl.embed(data, model=model) first, or pass use=… with a key that is there."
    if use in {_keys.features(name) for name in ("scvi", "scanvi", "drvi", "pca")}:
        return f"Run sw.pp.embed_genes(data, {use.removeprefix('X_')!r}) first."
    return "Run sw.pp.embed_images(data, encoder) or sw.pp.embed_genes(data, encoder) first."
