"""Counts and spots of Spatial Transcriptomics arrays, in the tables that the lab of the method writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

if TYPE_CHECKING:
    from pathlib import Path


def selected(spots: pd.DataFrame) -> pd.DataFrame:
    """Spots that were selected, named ``<x>x<y>`` by their printed array indices, as the rows of counts are."""
    if "selected" in spots:
        spots = spots[spots["selected"] == 1]
    return spots.set_axis([f"{x}x{y}" for x, y in spots[["x", "y"]].to_numpy().astype(int)])


def whole_numbers(counts: Any, path: Path) -> sp.csr_matrix:
    """Counts as CSR int32.

    Parameters
    ----------
    counts
        A table, an array or a sparse matrix.
    path
        Where they are from, for an error.

    Raises
    ------
    ValueError
        If a value is negative or no whole number.
    """
    matrix: Any = sp.csr_matrix(counts) if sp.issparse(counts) else np.asarray(counts)
    values: Any = matrix.data if sp.issparse(matrix) else matrix
    if not np.issubdtype(values.dtype, np.number) or (values < 0).any() or (values != np.rint(values)).any():
        found = f" from {values.min():g} to {values.max():g}" if np.issubdtype(values.dtype, np.number) else ""
        raise ValueError(f"{path} must hold counts, whole numbers from 0; its values are {values.dtype}{found}.")
    return sp.csr_matrix(matrix.astype(np.int32))


def array_obs(name: str, patient: str, spots: pd.DataFrame, matrix: sp.csr_matrix) -> pd.DataFrame:
    """Rows of the table: array indices as printed and, where they were measured, adjusted; section, patient, and totals."""
    obs = pd.DataFrame({"array_row": spots["y"].astype("int64"), "array_col": spots["x"].astype("int64")})
    if {"new_x", "new_y"} <= set(spots.columns):
        obs["array_row_adj"], obs["array_col_adj"] = spots["new_y"].astype(float), spots["new_x"].astype(float)
    obs = obs.assign(section=name, patient=patient, **totals(matrix))
    obs.index = [f"{name}_{spot}" for spot in spots.index]
    return obs


def totals(matrix: sp.csr_matrix) -> dict[str, np.ndarray]:
    """Counts and genes of each row."""
    return {
        "total_counts": np.asarray(matrix.sum(axis=1)).ravel().astype(np.int32),
        "n_genes": np.diff(matrix.indptr).astype(np.int32),
    }
