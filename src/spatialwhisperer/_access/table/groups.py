"""Names of groups of rows: patients, batches, sections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable


def group_name(value: Any) -> str:
    """A value of a column as the name of a group.

    A whole number has no decimal point. One missing value turns a column of integers into decimals, and patient 1 of one table would
    not be patient 1.0 of another.
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
