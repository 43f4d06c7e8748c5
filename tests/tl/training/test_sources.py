"""What each object is to training: the groups of its rows."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

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
