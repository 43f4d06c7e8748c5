"""Pictures are drawn without a screen, and closed after each test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer._provenance import record
from spatialwhisperer.tl._annotation.record import AnnotationRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ["a", "b/c", "d"]
mpl.use("agg")


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    import matplotlib.pyplot as plt

    plt.close("all")
    yield
    plt.close("all")


@pytest.fixture(params=["SpatialData", "AnnData"])
def annotated(request: Any, section: Any, adata: Any, model: Any, labels: dict[str, str]) -> Any:
    """A section with labels and a query, as either kind of object."""
    data = section if request.param == "SpatialData" else adata
    sw.tl.zero_shot_annotate(data, labels, model=model, min_confidence=0.9)
    sw.tl.query(data, "fat tissue", model=model)
    return data


@pytest.fixture
def made() -> ad.AnnData:
    """Rows of three classes with cosines at a temperature of a half, as an annotation leaves them."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 200)
    scores = rng.normal(size=(200, 3)) + 1.2 * np.eye(3)[truth]
    adata = ad.AnnData(np.zeros((200, 1), np.float32), obs=pd.DataFrame(index=[f"r{i}" for i in range(200)]))
    adata.obs["sw_label"] = pd.Categorical.from_codes(scores.argmax(1), categories=pd.Index(NAMES))
    adata.obsm["sw_label_scores"] = scores.astype(np.float32)
    adata.uns["sw_label"] = {"classes": np.array(NAMES)}
    adata.obs["truth"] = pd.Categorical(np.array(NAMES)[truth])
    adata.obs["group"] = np.repeat(["x", "y"], [120, 80])
    known: dict[str, Any] = {
        "classes": tuple(NAMES),
        "labels": tuple(NAMES),
        "prompts": tuple((name,) for name in NAMES),
    }
    how: dict[str, Any] = {
        "scores": "cosine",
        "normalize": "none",
        "background": None,
        "temperature": 0.5,
        "calibrated": False,
    }
    asked: dict[str, Any] = {
        "examples": None,
        "group_key": None,
        "level": None,
        "min_confidence": 0.0,
        "min_margin": 0.0,
        "rollup": False,
    }
    record(adata, "sw_label", AnnotationRecord(**known, **how, **asked, model={}))
    return adata
