from __future__ import annotations

from dataclasses import replace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from spatialwhisperer.protocols.her2st.folds import LABELS, Fold
from spatialwhisperer.protocols.her2st.frozen_features import Task
from spatialwhisperer.protocols.her2st.trained_networks import NetworkOptions
from spatialwhisperer.protocols.papers.measuring import measure
from spatialwhisperer.protocols.papers.rows import rows_of

GENES = ["HAL", "VWF", *(f"G{i}" for i in range(38))]


class _Folder:
    """Sections that lie in memory in the place of a folder of data."""

    smoke = True

    def __init__(self) -> None:
        self.tables = {name: section(name, seed) for seed, name in enumerate(("S1", "S2", "S3"))}

    def table(self, name: str) -> ad.AnnData:
        return self.tables[name]

    def features(self, *_: Any, **__: Any) -> str:
        return "X_mine"


def section(name: str, seed: int) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    x = rng.poisson(np.linspace(0.5, 3, len(GENES)), (60, len(GENES))).astype(np.float32)
    obs = pd.DataFrame({"section": name, "patient": name}, index=[f"{name}_{i}" for i in range(60)])
    obs[LABELS] = pd.Categorical(["invasive cancer", "connective tissue"] * 30)
    obs["sw_darkness"] = rng.uniform(size=60)
    # mclSTExp looks up positions on the array
    obs["array_row"], obs["array_col"] = np.divmod(np.arange(60), 10)
    table = ad.AnnData(x, obs=obs, var=pd.DataFrame(index=GENES))
    table.obsm["X_mine"] = rng.normal(size=(60, 8)).astype(np.float32)
    table.obsm["spatial"] = obs[["array_col", "array_row"]].to_numpy(float) * 100
    return table


FOLD = Fold("section", "S3", ("S1", "S2"), ("S3",), 0.7)


def test_expression_is_measured_on_the_lists_of_the_row_beside_darkness() -> None:
    (row,) = [row for row in rows_of("mclstexp") if row.name == "HER2+, sections"]
    row = replace(row, metrics=(*row.metrics, "pearson:markers"), domains=("S3",))
    rows = measure(row, Task("mclstexp", "peer", FOLD, "mine", 0), _Folder(), NetworkOptions())  # type: ignore[arg-type]
    own = rows[rows["predictor"] == "prediction"]
    for key in row.columns:
        metric, genes = key.split(":")
        assert len(own[(own["metric"] == metric) & (own["gene_list"] == genes)]) == 1, key
    assert "darkness" in set(rows["predictor"])


def test_classes_are_measured_of_all_test_sections_together() -> None:
    (row,) = rows_of("tpirbae")
    rows = measure(row, Task("bleep", "strict", FOLD, "mine", 0), _Folder(), NetworkOptions(epochs=1))  # type: ignore[arg-type]
    assert set(rows["metric"]) == {"macro_f1", "balanced_accuracy"}
