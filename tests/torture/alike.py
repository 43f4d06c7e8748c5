"""Whether two results are the same but for rounding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

RTOL = 1e-3


def alike(one: Any, other: Any, *, rtol: float = RTOL) -> str:
    """Nothing where two results are the same, else where they differ."""
    if isinstance(one, pd.DataFrame) and isinstance(other, pd.DataFrame):
        if list(one.columns) != list(other.columns) or len(one) != len(other):
            return f"columns {list(one.columns)[:5]} and {list(other.columns)[:5]}"
        return next(
            (f"{c}: {why}" for c in range(one.shape[1]) if (why := alike(one.iloc[:, c], other.iloc[:, c], rtol=rtol))),
            "",
        )
    if isinstance(one, ad.AnnData) and isinstance(other, ad.AnnData):
        return alike(one.X, other.X, rtol=rtol)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if list(one) != list(other):
            return f"keys {list(one)} and {list(other)}"
        return next((f"{k}: {why}" for k in one if (why := alike(one[k], other[k], rtol=rtol))), "")
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return f"{len(one)} and {len(other)} parts"
        return next((f"{i}: {why}" for i in range(len(one)) if (why := alike(one[i], other[i], rtol=rtol))), "")
    return _arrays(_array(one), _array(other), rtol)


def _array(value: Any) -> np.ndarray:
    if isinstance(value, pd.Series):
        value = value.astype(object).to_numpy() if isinstance(value.dtype, pd.CategoricalDtype) else value.to_numpy()
    return np.asarray(value.toarray() if sp.issparse(value) else value)


def _arrays(one: np.ndarray, other: np.ndarray, rtol: float) -> str:
    if one.shape != other.shape:
        return f"shapes {one.shape} and {other.shape}"
    if one.dtype.kind in "iufb" and other.dtype.kind in "iufb":
        far = ~np.isclose(
            one, other, rtol=rtol, atol=rtol * max(1e-6, float(np.nanmax(np.abs(other), initial=0))), equal_nan=True
        )
        return f"{int(far.sum())} of {far.size} numbers differ" if far.any() else ""
    if one.dtype == object and one.ndim == 0:
        # a picture or an encoder: only whether there is one
        return "" if (one.item() is None) == (other.item() is None) else "only one has a result"
    return "" if [str(v) for v in one.ravel()] == [str(v) for v in other.ravel()] else "values differ"
