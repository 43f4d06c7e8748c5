"""Checks of arrays that a caller passes."""

from __future__ import annotations

from typing import Any

import numpy as np

from spatialwhisperer._annotations import iterated, shown


def numbers(name: str, value: Any, shape: tuple[int | None, ...] | None = None) -> np.ndarray:
    """Return an array of numbers.

    Parameters
    ----------
    name
        Name of the argument.
    value
        Its value.
    shape
        The shape that is asked for, with ``None`` for any length; ``None`` takes any.

    Raises
    ------
    TypeError
        If it holds something else than real numbers.
    ValueError
        If it has another shape.
    """
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        array = np.empty(0, object)
    if array.dtype.kind not in "iufb":
        raise TypeError(f"{name} must be an array of numbers, not {shown(value)}.")
    if shape is None:
        return array
    if array.ndim != len(shape) or any(
        want is not None and n != want for n, want in zip(array.shape, shape, strict=True)
    ):
        asked = ", ".join("n" if n is None else str(n) for n in shape)
        raise ValueError(f"{name} must be of shape ({asked}); found {array.shape}.")
    return array


def one_for_each(name: str, value: Any, n: int) -> np.ndarray:
    """Return an array with one name or number for each row.

    Raises
    ------
    ValueError
        If it has another length.
    """
    parts = iterated(value)
    if parts is None or len(parts) != n:
        raise ValueError(f"{name} must name one for each of the {n} rows, not {shown(value)}.")
    return np.asarray(value) if hasattr(value, "dtype") else np.asarray(parts, dtype=object)
