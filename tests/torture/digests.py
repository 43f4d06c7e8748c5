"""What an object holds, hashed part by part, so that a change can be named."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import spatialdata as sd
from dask.base import tokenize

Digest = dict[str, str]


def parts(data: Any) -> Digest:
    """Hash of everything that a call could change, by its place."""
    if isinstance(data, ad.AnnData):
        return _table("", data)
    if isinstance(data, sd.SpatialData):
        out: Digest = {}
        for group, name, element in data.gen_elements():
            where = f"{group}/{name}"
            out |= _table(f"{name} ", element) if isinstance(element, ad.AnnData) else {where: _element(element)}
        return out
    if isinstance(data, list | tuple):
        return {f"[{i}] {where}": value for i, one in enumerate(data) for where, value in parts(one).items()}
    return {"": hashed(data)}


def changed(before: Digest, after: Digest) -> list[str]:
    """Places that differ."""
    return [where for where in {**before, **after} if before.get(where) != after.get(where)]


def hashed(value: Any) -> str:
    sha = hashlib.sha256()
    _fold(sha, value)
    return sha.hexdigest()[:16]


def _table(name: str, table: ad.AnnData) -> Digest:
    out = {f"{name}X": hashed(_loaded(table.X)), f"{name}names": hashed([table.obs_names, table.var_names])}
    for place in ("obs", "var"):
        frame = getattr(table, place)
        out |= {f"{name}{place}[{c}] {i}": hashed(frame.iloc[:, i]) for i, c in enumerate(frame.columns)}
    for place in ("obsm", "varm", "obsp", "varp", "layers", "uns"):
        part = getattr(table, place)
        out |= {f"{name}{place}[{key}]": hashed(part[key] if place == "uns" else _loaded(part[key])) for key in part}
    # the order of the keys belongs to what is stored
    out[f"{name}order"] = hashed([list(table.obs.columns), list(table.obsm), list(table.uns)])
    return out


def _loaded(x: Any) -> Any:
    return x[:] if type(x).__module__.startswith(("h5py", "anndata")) else x


def _element(element: Any) -> str:
    from spatialdata.transformations import get_transformation

    where = {k: repr(t) for k, t in get_transformation(element, get_all=True).items()}
    return hashed([where, element])


def _fold(sha: Any, value: Any) -> None:
    # a view of a table becomes a copy where something is written to it
    sha.update(type(value).__name__.removesuffix("View").replace("_", "").lower().replace("ndarray", "array").encode())
    if isinstance(value, Mapping):
        for key in value:
            sha.update(repr(key).encode())
            _fold(sha, value[key])
    elif isinstance(value, pd.DataFrame):
        _fold(sha, value.index)
        for i, name in enumerate(value.columns):
            sha.update(repr(name).encode())
            _fold(sha, value.iloc[:, i])
    elif isinstance(value, pd.Series | pd.Index):
        sha.update(repr(value.dtype).encode())
        _fold(sha, value.to_numpy())
        if isinstance(value, pd.Series):
            _fold(sha, value.index)
    elif isinstance(value, np.ndarray):
        sha.update(f"{value.dtype} {value.shape}".encode())
        sha.update(repr(value.tolist()).encode() if value.dtype.hasobject else np.ascontiguousarray(value).tobytes())
    elif sp.issparse(value):
        value = value.tocoo()
        for one in (value.shape, value.row, value.col, value.data):
            _fold(sha, one)
    elif hasattr(value, "children") and hasattr(value, "ds"):
        for key in value.children:
            _fold(sha, next(iter(value[key].ds.data_vars.values())).data)
    elif hasattr(value, "compute"):
        # a lazy table of points is never changed in place, and reading it takes long
        _fold(sha, tokenize(value) if hasattr(value, "npartitions") and hasattr(value, "columns") else _computed(value))
    elif isinstance(value, ad.AnnData | sd.SpatialData):
        _fold(sha, parts(value))
    elif isinstance(value, list | tuple):
        for one in value:
            _fold(sha, one)
    elif isinstance(value, str | bytes | int | float | complex | bool | None | set | frozenset | np.generic):
        sha.update(repr(value).encode())


def _computed(value: Any) -> Any:
    try:
        done = value.compute(scheduler="synchronous")
    except Exception as error:  # noqa: BLE001 - a damaged image
        return repr(error)
    return np.asarray(getattr(done, "values", done))
