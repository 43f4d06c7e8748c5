"""Predictions that are the truth and noise."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

from spatialwhisperer import _keys
from spatialwhisperer._provenance import record
from spatialwhisperer.statistics.expression.value_spaces import to_space

SPACE = "per_spot_log1p"


def _values(table: Any, space: str = SPACE) -> np.ndarray:
    values = to_space(table.X, space, library=np.asarray(table.X.sum(axis=1)).ravel())
    return values.toarray() if sp.issparse(values) else values


def _guess(
    table: Any,
    noise: float = 0.5,
    n_genes: int | None = None,
    gene_lists: dict[str, list[str]] | None = None,
    space: str = SPACE,
) -> ad.AnnData:
    truth = _values(table)
    noisy = truth + np.random.default_rng(0).normal(0, noise, truth.shape)
    out = ad.AnnData(noisy.astype(np.float32), obs=table.obs[[]].copy(), var=table.var[[]].copy())
    out = out if n_genes is None else out[:, :n_genes].copy()
    record(out, _keys.EXPRESSION, {"value_space": space} | ({} if gene_lists is None else {"gene_lists": gene_lists}))
    return out


@pytest.fixture
def measured() -> Any:
    """Values of a table in the space of the predictions, dense."""
    return _values


@pytest.fixture
def guess() -> Any:
    """A prediction of a table: the truth and noise."""
    return _guess


@pytest.fixture
def train(simulated: Any) -> list[Any]:
    return [simulated.sections["P1"], simulated.sections["P2"]]
