"""Which doubt predicts errors, on annotations that are made by hand."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from spatialwhisperer._provenance import record
from spatialwhisperer.statistics.calibration import probabilities
from spatialwhisperer.tl._annotation.record import AnnotationRecord
from spatialwhisperer.tl.evaluation.errors import evaluate_errors

CLASSES = ("a", "b", "c")


def annotated(seed: int) -> ad.AnnData:
    """A table as an annotation leaves it; the truth is drawn from the probabilities."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 1.5, (100, 3)).astype(np.float32)
    drawn = (probabilities(scores, 1.0).cumsum(1) < rng.random((100, 1))).sum(1).clip(0, 2)
    adata = ad.AnnData(np.zeros((100, 1), np.float32), obs=pd.DataFrame(index=[f"r{i}" for i in range(100)]))
    adata.obs["truth"] = pd.Categorical(np.array(CLASSES)[drawn])
    adata.obs["sw_label"] = pd.Categorical(np.array(CLASSES)[scores.argmax(1)])
    adata.obsm["sw_label_scores"] = scores
    adata.obsm["spatial"] = np.argwhere(np.ones((10, 10))).astype(float)
    adata.uns["sw_label"] = {"classes": np.array(CLASSES)}
    plain: dict[str, Any] = {
        "classes": CLASSES,
        "labels": CLASSES,
        "prompts": tuple((name, f"the {name}") for name in CLASSES),
        "scores": "cosine",
        "normalize": "none",
        "background": None,
        "temperature": 1.0,
        "calibrated": False,
        "examples": None,
        "group_key": None,
        "level": None,
        "min_confidence": 0.0,
        "min_margin": 0.0,
        "rollup": False,
        "model": {},
    }
    record(adata, "sw_label", AnnotationRecord(**plain))
    return adata


def test_each_measure_is_the_auroc_of_the_wrong_rows() -> None:
    tables = [annotated(0), annotated(1)]
    wrong = np.concatenate([t.obs["truth"].astype(str) != t.obs["sw_label"].astype(str) for t in tables])
    confidence = np.concatenate([probabilities(np.asarray(t.obsm["sw_label_scores"]), 1.0).max(1) for t in tables])
    assert evaluate_errors(tables, "truth").index.tolist() == ["1 − confidence"]
    rng = np.random.default_rng(2)
    for t, part in zip(tables, np.split(wrong, 2), strict=True):
        t.obs["sw_label_agreement"] = (1 - part * rng.random(100)).astype(np.float32)
        sd = rng.random((100, 3)).astype(np.float32)
        t.obsm["sw_label_wording_sd"] = np.where(np.arange(3) == 2, np.nan, sd)
    found = evaluate_errors(tables, "truth")
    assert found.index.tolist() == ["1 − confidence", "1 − agreement", "wording sd"]
    assert found["auroc"]["1 − confidence"] == pytest.approx(roc_auc_score(wrong, -confidence))
    disagreement = np.concatenate([1 - t.obs["sw_label_agreement"] for t in tables])
    assert found["auroc"]["1 − agreement"] == pytest.approx(roc_auc_score(wrong, disagreement))
    best = np.concatenate([np.asarray(t.obsm["sw_label_scores"]).argmax(1) for t in tables])
    sd = np.concatenate([np.asarray(t.obsm["sw_label_wording_sd"]) for t in tables])[np.arange(200), best]
    known = np.isfinite(sd)
    assert found["auroc"]["wording sd"] == pytest.approx(roc_auc_score(wrong[known], sd[known]))
    assert found["n"].tolist() == [200, 200, known.sum()]
    assert found["n_wrong"].tolist() == [wrong.sum(), wrong.sum(), wrong[known].sum()]
    gain = found["auroc"]["1 − agreement"] - found["auroc"]["1 − confidence"]
    assert found["difference"]["1 − agreement"] == pytest.approx(gain)
    assert found["low"]["1 − confidence"] < found["auroc"]["1 − confidence"]


def test_a_measure_that_one_object_lacks_is_left_out() -> None:
    tables = [annotated(0), annotated(1)]
    tables[0].obs["sw_label_agreement"] = np.linspace(0, 1, 100, dtype=np.float32)
    # of coarser terms there are no wordings
    tables[0].obsm["sw_label_wording_sd"] = np.ones((100, 5), np.float32)
    assert evaluate_errors(tables, "truth").index.tolist() == ["1 − confidence"]
    assert evaluate_errors(tables[0], "truth").index.tolist() == ["1 − confidence", "1 − agreement"]


def test_labels_that_the_truth_cannot_tell_apart_are_one() -> None:
    table = annotated(0)
    table.obs["coarse"] = np.where(table.obs["truth"] == "a", "a", "b or c")
    found = evaluate_errors(table, "coarse", mapping={"a": "a", "b or c": ["b", "c"]})
    wrong = (table.obs["truth"] == "a") != (table.obs["sw_label"] == "a")
    assert found["n_wrong"].tolist() == [wrong.sum()]
    with pytest.raises(KeyError, match=r"sw\.tl\.zero_shot_annotate"):
        evaluate_errors(ad.AnnData(np.zeros((3, 1))), "truth")
