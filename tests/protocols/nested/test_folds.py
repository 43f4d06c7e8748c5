from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.protocols.nested.folds import OUTER, inner_folds, unit_kind, units_of


def section(patient: str, n: int = 32) -> ad.AnnData:
    arrays: Any = {"spatial": np.stack(np.divmod(np.arange(n), 4), axis=1).astype(float)}
    obs = pd.DataFrame({"patient": patient}, index=[f"s{i}" for i in range(n)])
    return ad.AnnData(np.zeros((n, 0)), obs=obs, obsm=arrays)


def test_a_reported_section_takes_no_part_in_training_or_choice() -> None:
    assert all(not set(fold.train) & set(fold.tests) for fold in OUTER)
    assert all(len({name[0] for name in fold.tests}) == 1 for fold in OUTER)


@pytest.mark.parametrize(
    ("patients", "kind", "n_folds"),
    [("PQRR", "3 patients", 3), ("PP", "2 sections", 2), ("PQQ", "3 sections", 3), ("P", "8 blocks", 8)],
)
def test_what_is_left_out_depends_on_what_there_is(patients: str, kind: str, n_folds: int) -> None:
    tables = [section(p) for p in patients]
    names = [f"{p}{i}" for i, p in enumerate(patients)]
    units = units_of(tables)
    assert unit_kind(tables, units) == kind
    folds = list(inner_folds(names, tables, units))
    assert len(folds) == n_folds
    scored = {name: np.zeros(32, int) for name in names}
    for fold in folds:
        for name, table, rows in fold.tests:
            scored[name] += rows
            assert set(table.obs["patient"][rows]) <= fold.patients
        # rows that train and rows that are scored make up all rows
        assert sum(t.n_obs for t in fold.train) + sum(rows.sum() for _, _, rows in fold.tests) == 32 * len(tables)
    assert all((n == 1).all() for n in scored.values())
