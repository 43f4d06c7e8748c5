"""Groups of rows whose column has missing values, and sections that are passed twice."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.tl._training.sources import describe, groups_of


def table(seed: int, n: int = 6, **obs: Any) -> ad.AnnData:
    """Counts of some rows, whose names and positions differ between seeds."""
    rng = np.random.default_rng(seed)
    out = ad.AnnData(
        rng.poisson(2, (n, 5)).astype(np.float32), obs=pd.DataFrame(obs, index=[f"{seed}_{i}" for i in range(n)])
    )
    out.obsm["spatial"] = rng.uniform(0, 1000, (n, 2))
    return out


def described(*objects: ad.AnnData) -> Any:
    return describe(objects, modalities=["gene"], keys={}, text_keys=(), group_key="patient")


def test_one_missing_patient_does_not_rename_the_others() -> None:
    one, two = table(0, patient=1), table(1, patient=[1.0, 1.0, 1.0, 1.0, 1.0, np.nan])
    sources = described(one, two, table(2, patient=2))
    assert groups_of(sources) == ["1", "2", "object 1"]
    assert sources[1].group.tolist() == ["1"] * 5 + ["object 1"]


def test_a_section_is_passed_once() -> None:
    one, two = table(0), table(1)
    message = r"object 0 and object 2 hold the same section \(6 rows with the same names, positions and values\)"
    for again in (one, one.copy(), one[::-1].copy()):
        with pytest.raises(ValueError, match=message):
            described(one, two, again)
    # another modality of the same patient is no leak
    one.obs["patient"] = again.obs["patient"] = "P1"
    assert len(described(one, two, again)) == 3


def test_other_sections_may_have_the_same_names_and_positions() -> None:
    one, two = table(0), table(1)
    two.obs_names, two.obsm["spatial"] = list(one.obs_names), one.obsm["spatial"]
    assert len(described(one, two)) == 2
    del one.obsm["spatial"], two.obsm["spatial"]
    assert len(described(one, two)) == 2
    # nor are rows without counts or features compared
    assert len(described(one[:, :0].copy(), two[:, :0].copy())) == 2


def test_the_same_features_are_the_same_section() -> None:
    one = table(0)[:, :0].copy()
    one.obsm["X_image"] = np.random.default_rng(0).normal(size=(6, 3))
    with pytest.raises(ValueError, match="hold the same section"):
        described(one, one.copy())


def test_a_table_that_is_filled_with_one_value_tells_nothing() -> None:
    one, two = table(0), table(1)
    for each in (one, two):
        each.obs_names, each.obsm["spatial"] = [f"tile-{i}" for i in range(6)], np.arange(12.0).reshape(6, 2)
        each.X = np.zeros((6, 5), np.float32)
        each.obsm["X_image"] = np.zeros((6, 2))
    assert len(described(one, two)) == 2
