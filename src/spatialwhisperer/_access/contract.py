"""What an object must hold to be read: matrices of numbers, links to elements, libraries, invertible transformations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from pandas.api.types import is_hashable

from spatialwhisperer._messages import listing
from spatialwhisperer._provenance import provenance_of

if TYPE_CHECKING:
    from anndata import AnnData

_SMALLEST_SCALE, _LARGEST_SCALE = 1e-9, 1e9
_LEAST_AREA = 1e-9
_MOST_CLASSES = 100


def check_table(table: AnnData) -> None:
    """Refuse a table that is not in memory, whose columns cannot be told apart, or whose provenance is damaged.

    Raises
    ------
    TypeError
        If ``.obs`` or ``.var`` is no DataFrame.
    ValueError
        If two columns of ``.obs`` have one name, or the provenance is not a dictionary.
    """
    if any(not isinstance(part, pd.DataFrame) for part in (table.obs, table.var)):
        raise TypeError(
            "The table was read lazily: its .obs and .var are no DataFrames, and results are written to them. Load it first: "
            "table = table.to_memory()."
        )
    provenance_of(table)
    columns: Any = table.obs.columns
    if not columns.is_unique:
        raise ValueError(
            f"Several columns of .obs are named {listing(columns[columns.duplicated()].unique(), 3)}. Rename or drop all but one."
        )


class Link(NamedTuple):
    """Which columns of a table name the element and the instance of each row."""

    region_key: str
    instance_key: str


def link_of(table: AnnData) -> Link | None:
    """The columns that link a table to the elements it annotates; ``None`` where it annotates none.

    Raises
    ------
    ValueError
        If ``.uns['spatialdata_attrs']`` is damaged, or names a column that is not there.
    """
    attrs = table.uns.get("spatialdata_attrs")
    if attrs is None:
        return None
    remedy = "Link the table again: spatialdata.models.TableModel.parse(table, region=…, region_key=…, instance_key=…)."
    if not isinstance(attrs, Mapping):
        raise ValueError(f".uns['spatialdata_attrs'] must be a dictionary, not {type(attrs).__name__}. {remedy}")
    for name in ("region_key", "instance_key"):
        column = attrs.get(name)
        if not isinstance(column, str) or column not in table.obs:
            raise ValueError(
                f".uns['spatialdata_attrs'][{name!r}] must name a column of .obs, not {column!r} (found: "
                f"{listing(table.obs.columns)}). {remedy}"
            )
    region: Any = attrs.get("region")
    several = np.ndim(region) == 1 and len(region) > 0 and all(isinstance(r, str) for r in region)
    if not isinstance(region, str) and not several:
        raise ValueError(
            f".uns['spatialdata_attrs']['region'] must name one element or several, not {region!r}. {remedy}"
        )
    return Link(attrs["region_key"], attrs["instance_key"])


def instances_of(table: AnnData, link: Link) -> np.ndarray:
    """The instance of its element that each row annotates, shape (n,).

    Raises
    ------
    ValueError
        If an instance is a list or another container.
    """
    instances = table.obs[link.instance_key].to_numpy()
    if instances.dtype == object and not all(is_hashable(value) for value in instances):
        raise ValueError(
            f".obs[{link.instance_key!r}] must name one instance for each row, and holds lists or other containers. Fill in the numbers "
            "or names of the instances."
        )
    return np.asarray(instances)


def libraries_of(adata: AnnData) -> dict[str, Mapping[str, Any]]:
    """The libraries of ``.uns['spatial']`` by name. Entries that are no library, such as flags, are left out.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    stored = adata.uns.get("spatial", {})
    if not isinstance(stored, Mapping):
        raise ValueError(
            f".uns['spatial'] must be a dictionary of libraries, as sc.read_visium stores it, not {type(stored).__name__}. Delete it "
            "(del adata.uns['spatial']), or read the section again."
        )
    libraries = {str(name): entry for name, entry in stored.items() if isinstance(entry, Mapping)}
    for name, entry in libraries.items():
        for part in ("images", "scalefactors"):
            if not isinstance(entry.get(part, {}), Mapping):
                raise ValueError(
                    f".uns['spatial'][{name!r}][{part!r}] must be a dictionary, not {type(entry[part]).__name__}. Delete it, or read "
                    "the section again."
                )
    return libraries


def scale_factor(entry: Mapping[str, Any], name: str) -> Any:
    """A scale factor of a library; ``None`` where it is not there. An array of one number, as files keep some, is that number."""
    value = entry.get("scalefactors", {}).get(name)
    return value.item() if isinstance(value, np.ndarray) and value.size == 1 else value


def number_matrix(values: Any, where: str, *, least_columns: int = 1) -> np.ndarray:
    """A stored matrix as float64, shape (n, d), whether it is an array, a DataFrame or sparse.

    Parameters
    ----------
    values
        What is stored.
    where
        Where it is stored, for the message.
    least_columns
        Columns that it has at least.

    Raises
    ------
    ValueError
        If it is not a matrix of numbers, or has fewer columns.
    """
    array = _matrix(values, where)
    if array.shape[1] < least_columns:
        raise ValueError(f"{where} must have at least {least_columns} columns; it has shape {array.shape}.")
    return array.astype(np.float64)


def feature_matrix(values: Any, where: str) -> np.ndarray:
    """Stored features as float32, shape (n, d); NaN where a row has none.

    Raises
    ------
    ValueError
        If it is not a matrix of numbers, or holds a number that float32 cannot hold.
    """
    array = _matrix(values, where)
    with np.errstate(over="ignore"):
        features = array.astype(np.float32)
    if rows := int(np.isinf(features).any(axis=1).sum()):
        raise ValueError(
            f"{where} is infinite, or beyond the largest number of float32 ({np.finfo(np.float32).max:.2g}), in {rows} of {len(features)} "
            "rows. Compute these rows again, or set them to NaN, which stands for a row without features."
        )
    return features


def _matrix(values: Any, where: str) -> np.ndarray:
    """A stored matrix of numbers as an array, of the type that it has."""
    array = values.toarray() if sp.issparse(values) else np.asarray(values)
    numbers = array.dtype.kind in "iuf" or (array.dtype == object and _are_numbers(array))
    if array.ndim != 2 or not numbers:
        raise ValueError(
            f"{where} must be a matrix of numbers, not {array.dtype} of shape {array.shape}. Store it again as an array of floats."
        )
    return array


def number_column(values: Any, where: str) -> np.ndarray:
    """A stored column as float64, shape (n,); NaN where it is missing.

    Raises
    ------
    ValueError
        If it is not a column of numbers. Truth values, dates and complex numbers are none.
    """
    if not holds_numbers(values):
        raise ValueError(f"{where} must be a column of numbers, not {values.dtype}. Store it again as floats.")
    return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))


def holds_numbers(values: Any) -> bool:
    """Whether a Series holds real numbers."""
    return getattr(values.dtype, "kind", "O") in "iuf"


def check_label_column(values: Any, where: str, remedy: str) -> None:
    """Refuse decimals where classes are needed: each would be a class of its own. Integers with a missing value are whole decimals.

    Parameters
    ----------
    values
        A column.
    where
        Where it is stored, for the message.
    remedy
        The call for such numbers, for the message.

    Raises
    ------
    ValueError
        If it holds decimals that are not whole, or more than a hundred different ones.
    """
    if getattr(values.dtype, "kind", "O") != "f":
        return
    found = np.asarray(values.dropna().unique(), dtype=np.float64)
    if len(found) > _MOST_CLASSES or (found != np.round(found)).any():
        raise ValueError(
            f"{where} holds {len(found)} different numbers, such as {found[0]:g}, and no classes. {remedy} If each number is a class, store "
            "the column again with .astype('category')."
        )


def check_affine(name: str, system: str, matrix: np.ndarray) -> None:
    """Refuse a transformation of an element that cannot be inverted.

    Raises
    ------
    ValueError
        If values are not finite, or the map flattens the plane.
    """
    scales = np.linalg.norm(matrix[:2, :2], axis=0)
    good = np.isfinite(matrix).all() and ((scales > _SMALLEST_SCALE) & (scales < _LARGEST_SCALE)).all()
    if not good or abs(np.linalg.det(matrix[:2, :2])) <= _LEAST_AREA * scales.prod():
        raise ValueError(
            f"The transformation of {name!r} to the coordinate system {system!r} cannot be inverted: {matrix[:2].tolist()}. Set another "
            "one with spatialdata.transformations.set_transformation, or remove it with remove_transformation."
        )


def _are_numbers(array: np.ndarray) -> bool:
    return all(isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in array.ravel())
