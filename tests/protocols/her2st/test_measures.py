from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.protocols.her2st import measures
from spatialwhisperer.protocols.her2st.folds import LABELS


def section(name: str, labels: Any, seed: int = 0) -> ad.AnnData:
    """Spots whose features tell their label."""
    codes = pd.Categorical(labels, categories=["cancer", "fat", "undetermined"]).codes
    obs = pd.DataFrame(
        {LABELS: pd.Categorical(labels), "section": name}, index=[f"{name}{i}" for i in range(len(labels))]
    )
    table = ad.AnnData(np.zeros((len(labels), 1), np.float32), obs=obs)
    noise = np.random.default_rng(seed).normal(0, 0.1, (len(labels), 3))
    table.obsm["X"] = (np.eye(4)[codes][:, :3] + noise).astype(np.float32)
    return table


@pytest.fixture
def sections() -> tuple[list[ad.AnnData], list[ad.AnnData]]:
    train = section("A", [*["cancer"] * 12, *["fat"] * 8, "undetermined", None])
    return [train], [section("B", [*["cancer"] * 6, *["fat"] * 6, "undetermined", None], seed=1)]


def values(rows: pd.DataFrame) -> dict[str, float]:
    return dict(zip(rows["metric"], rows["value"], strict=True))


def test_a_probe_of_telling_features_is_right(sections) -> None:
    train, test = sections
    rows = measures.class_rows(train, test, "X", predictor="image features")
    assert set(rows["predictor"]) == {"image features"}
    assert values(rows) == {"macro_f1": 1.0, "balanced_accuracy": 1.0}


def test_a_probe_is_judged_by_the_recall_of_the_true_classes(sections) -> None:
    """Two spots of fat look like cancer: the recalls are 1 and 4/6, and so would not be the precisions 6/8 and 1."""
    train, (test,) = sections
    test.obsm["X"][6:8] = test.obsm["X"][:2]
    found = values(measures.class_rows(train, [test], "X"))
    assert found["balanced_accuracy"] == pytest.approx((1 + 4 / 6) / 2)
    assert found["macro_f1"] == pytest.approx((12 / 14 + 8 / 10) / 2)


def test_the_majority_class_gets_half_of_two_classes(sections) -> None:
    found = values(measures.majority_rows(*sections))
    assert found["balanced_accuracy"] == 0.5
    assert found["macro_f1"] == pytest.approx((2 / 3) / 2)
