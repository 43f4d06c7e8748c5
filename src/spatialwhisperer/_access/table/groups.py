"""Names of groups of rows: patients, batches, sections, and the classes of known labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

T = TypeVar("T")


def group_name(value: Any) -> str:
    """A value of a column as the name of a group.

    A whole number has no decimal point. One missing value turns a column of integers into decimals, and patient (or class) 1 of one
    table would not be patient 1.0 of another.
    """
    if isinstance(value, float | np.floating) and value.is_integer():
        return str(int(value))
    return str(value)


def group_names(values: Iterable[Any]) -> np.ndarray:
    """Names of the groups of all rows, an object array; ``None`` where a value is missing, which is never a group named "nan"."""
    codes, found = pd.factorize(pd.Series(values))
    names = np.array([*(group_name(value) for value in found), None], dtype=object)
    # the code of a missing value is -1, and ``None`` stands last
    return names[codes]


def by_group(argument: str, given: Mapping[Any, T], what: str = "section") -> dict[str, T]:
    """What a caller states for each group, by its name: a key may be the whole number that a column holds.

    Parameters
    ----------
    argument
        Its name, for the message.
    given
        What was passed.
    what
        What a group is, for the message.

    Raises
    ------
    ValueError
        If two keys name one group.
    """
    named = {group_name(key): value for key, value in given.items()}
    if len(named) < len(given):
        raise ValueError(f"{argument} names a {what} twice (found: {listing(map(repr, given))}); keep one of its keys.")
    return named


def check_all_named(names: np.ndarray, what: str, column: str, remedy: str) -> None:
    """Refuse rows whose column names no group.

    Parameters
    ----------
    names
        As of :func:`group_names`.
    what, column
        What a group is, and the column of ``.obs``, for the message.
    remedy
        What to do about it.

    Raises
    ------
    ValueError
        If there are any.
    """
    missing = names == None  # noqa: E711
    if missing.any():
        raise ValueError(
            f"{int(missing.sum())} of {len(names)} rows name no {what} in .obs[{column!r}] (first row {int(np.flatnonzero(missing)[0])}). "
            f"{remedy}"
        )


def known_labels(labels: np.ndarray, ignore: Sequence[str]) -> np.ndarray:
    """Names of classes, with those to ignore turned into ``None``."""
    if isinstance(ignore, str):
        raise TypeError(f"ignore must be a list of labels, not the string {ignore!r}.")
    out = labels.copy()
    out[np.isin(labels, np.array([group_name(name) for name in ignore], dtype=object))] = None
    return out


def names_in_order(names: Iterable[str | None], columns: Iterable[pd.Series]) -> list[str]:
    """Names that occur, each once, in the order of the categories of the columns, then of the alphabet."""
    present = {name for name in names if name is not None}
    order = [group_name(c) for column in columns if hasattr(column, "cat") for c in column.cat.categories]
    return [name for name in dict.fromkeys([*order, *sorted(present)]) if name in present]
