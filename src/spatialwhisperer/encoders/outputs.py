"""What an encoder computes, looked at before it is used: encoders come from callers too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from spatialwhisperer.encoders.spec import EncoderSpec

if TYPE_CHECKING:
    from collections.abc import Callable

R = TypeVar("R")

_MEMORY = ("MemoryError", "OutOfMemoryError")
_MISSING = (ImportError, FileNotFoundError, OSError)


def encoded(encoder: Any, inputs: Any, *, absent_rows: bool = False, **options: Any) -> np.ndarray:
    """Call ``encode``, and check what it returns.

    Parameters
    ----------
    encoder
        The encoder.
    inputs
        What it encodes, n rows. An encoder of the caller gets a copy.
    absent_rows
        Whether a whole row of NaN stands for an input without features, as that of a spot without counts.
    **options
        Further arguments of ``encode``.

    Returns
    -------
    Features, float32 (n, d).

    Raises
    ------
    ValueError
        If ``encode`` fails, changes its inputs, or returns another number of rows or columns, or values that are not finite.
    TypeError
        If it returns something else than numbers.
    """
    name, n = encoder.spec.name, inputs.shape[0] if hasattr(inputs, "shape") else len(inputs)
    if not is_foreign(encoder):
        return features_of(name, encoder.encode(inputs, **options), n)
    own = _copy(inputs)
    features = features_of(name, called(name, "encode", encoder.encode, own, **options), n)
    if not _same(own, inputs):
        raise ValueError(
            f"Encoder {name!r} changes its inputs while it encodes them. Let encode work on a copy: inputs = inputs.copy()."
        )
    dim = getattr(encoder.spec, "dim", None)
    if dim is not None and features.shape[1] != dim:
        raise ValueError(f"Encoder {name!r} returned {features.shape[1]} columns, and its EncoderSpec says dim={dim}.")
    bad = ~np.isfinite(features)
    if absent_rows:
        bad[np.isnan(features).all(axis=1)] = False
    if bad.any():
        raise ValueError(
            f"Encoder {name!r} returned NaN or infinite values in {int(bad.any(axis=1).sum())} of {n} rows; features must be finite."
        )
    return features


def is_foreign(encoder: Any) -> bool:
    """Whether the class of an encoder, or of the object that it wraps, is not of this package."""
    return _is_foreign_class(type(getattr(encoder, "given", encoder)))


def _is_foreign_class(cls: type) -> bool:
    return not cls.__module__.startswith("spatialwhisperer.")


def called(name: str, method: str, function: Callable[..., R], *args: Any, **options: Any) -> R:
    """Call a method of an encoder of the caller.

    Raises
    ------
    ImportError, FileNotFoundError, OSError
        If it fails because something is missing or cannot be read.
    ValueError
        If it fails for any other reason but a lack of memory.
    """
    try:
        return function(*args, **options)
    except Exception as error:
        if type(error).__name__ in _MEMORY:
            raise
        kind = next((kind for kind in _MISSING if isinstance(error, kind)), ValueError)
        raise kind(
            f"Encoder {name!r} failed in {method}: {type(error).__name__}: {error}. Call it by itself to find out why: "
            f"encoder.{method}(…)."
        ) from error


def opened(name: str, make: Any, **options: Any) -> Any:
    """Open an encoder by the ``open`` of its class.

    Raises
    ------
    ValueError
        If a class of the caller fails.
    TypeError
        If it opens something that has no `EncoderSpec`.
    """
    if "open" not in vars(make) or not _is_foreign_class(make):
        encoder = make.open(name, **options)
    else:
        encoder = called(name, "open", make.open, name, **options)
    if not isinstance(getattr(encoder, "spec", None), EncoderSpec):
        raise TypeError(
            f"Encoder {name!r} has no EncoderSpec after it was opened. A class that is registered by several names sets self.spec itself."
        )
    return encoder


def features_of(name: str, given: Any, n: int) -> np.ndarray:
    """Return what an encoder computed for ``n`` inputs as float32 (n, d).

    Raises
    ------
    TypeError
        If it is no array of real numbers.
    ValueError
        If it has another shape.
    """
    try:
        features = np.asarray(given)
    except Exception as error:
        raise TypeError(
            f"Encoder {name!r} returned a {type(given).__name__} that is no array of numbers ({error}). Return float32 ({n}, d)."
        ) from error
    if features.dtype.kind not in "fiub":
        raise TypeError(
            f"Encoder {name!r} returned a {type(given).__name__} of type {features.dtype}, not of real numbers. Return float32 ({n}, d)."
        )
    if features.ndim != 2 or len(features) != n or not features.shape[1]:
        raise ValueError(f"Encoder {name!r} returned shape {features.shape} for {n} inputs; expected ({n}, d).")
    with np.errstate(over="ignore"):
        return features.astype(np.float32, copy=False)


def _copy(inputs: Any) -> Any:
    return inputs.copy() if hasattr(inputs, "copy") else list(inputs)


def _same(one: Any, other: Any) -> bool:
    """Whether inputs are what they were: an array, a sparse matrix or a list of texts."""
    if not hasattr(other, "shape"):
        return list(one) == list(other)
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if hasattr(other, "tocsr"):
        return (one != other).nnz == 0
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
