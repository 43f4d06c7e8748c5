"""Pictures of confidence and ranking."""

from __future__ import annotations

from typing import Any

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer._provenance import record
from spatialwhisperer.pl.reliability import reliability
from spatialwhisperer.pl.roc import roc
from spatialwhisperer.tl.evaluation.calibration import evaluate_calibration

mpl.use("agg")
NAMES = ["a", "b/c", "d"]


@pytest.fixture(autouse=True)
def _close() -> Any:
    import matplotlib.pyplot as plt

    plt.close("all")
    yield
    plt.close("all")


@pytest.fixture
def made() -> ad.AnnData:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 200)
    scores = rng.normal(size=(200, 3)) + 1.2 * np.eye(3)[truth]
    adata = ad.AnnData(np.zeros((200, 1), np.float32), obs=pd.DataFrame(index=[f"r{i}" for i in range(200)]))
    adata.obs["sw_label"] = pd.Categorical.from_codes(scores.argmax(1), categories=NAMES)
    adata.obsm["sw_label_scores"] = scores.astype(np.float32)
    adata.uns["sw_label"] = {"classes": np.array(NAMES)}
    adata.obs["truth"] = pd.Categorical(np.array(NAMES)[truth])
    adata.obs["group"] = np.repeat(["x", "y"], [120, 80])
    record(adata, "sw_label", temperature=0.5, scores="cosine")
    return adata


def test_reliability(made: ad.AnnData) -> None:
    bins = evaluate_calibration(made, "truth")
    top, below = reliability(made, "truth")
    assert top.get_title(loc="left") == f"ECE {bins.attrs['ece']:.3f}"
    filled = bins[bins["n"] > 0]
    n = len(filled)
    assert np.allclose([b.get_height() for b in top.patches[:n]], filled["accuracy"])
    tops = [b.get_y() + b.get_height() for b in top.patches[n:]]
    assert np.allclose(tops, filled["confidence"])
    assert [b.get_height() for b in below.patches] == filled["n"].tolist()
    again = reliability(bins)
    assert again[0].get_title(loc="left") == top.get_title(loc="left")


def test_reliability_in_own_axes(made: ad.AnnData) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2)
    assert reliability(made, "truth", n_bins=5, axes=axes) == list(axes)
    assert plt.get_fignums() == [figure.number]
    with pytest.raises(ValueError, match="2 axes are needed; 1 were given"):
        reliability(made, "truth", axes=axes[0])


def test_reliability_refuses(made: ad.AnnData) -> None:
    with pytest.raises(TypeError, match="truth is needed"):
        reliability(made)
    with pytest.raises(ValueError, match="not a result of sw.tl.evaluate_calibration"):
        reliability(pd.DataFrame({"a": [1]}))


def area(line: Any) -> float:
    x, y = line.get_data()
    return float(np.trapezoid(y, x) if hasattr(np, "trapezoid") else np.trapz(y, x))  # noqa: NPY201


@pytest.mark.parametrize("group_key", [None, "group"])
def test_roc(made: ad.AnnData, group_key: str | None) -> None:
    ax = roc(made, "truth", group_key=group_key)
    result = sw.tl.evaluate_annotation(made, "truth", group_key=group_key)
    words = [t.get_text() for t in ax.get_legend().get_texts()]
    for name, line, text in zip(NAMES, ax.lines, words, strict=False):
        assert area(line) == pytest.approx(result.loc[name, "auroc"], abs=1e-6)
        assert text.startswith(f"{name}  {result.loc[name, 'auroc']:.2f}")
        assert ("2 groups" in text) == (group_key is not None)
    assert ax.get_title(loc="left") == f"macro AUROC {result.loc['macro', 'auroc']:.2f}"


def test_roc_of_several_labels(made: ad.AnnData) -> None:
    made.obs["coarse"] = np.where(made.obs["truth"] == "a", "A", "rest")
    ax = roc(made, "coarse", mapping={"A": "a", "rest": ["b/c", "d"]}, palette={"A": "red", "rest": "blue"})
    assert {line.get_color() for line in ax.lines[:2]} == {"red", "blue"}
    with pytest.raises(KeyError, match="palette has no colour for rest"):
        roc(made, "coarse", mapping={"A": "a", "rest": ["b/c", "d"]}, palette={"A": "red"})


def test_roc_of_one_class_alone(made: ad.AnnData) -> None:
    made.obs["truth"] = "a"
    with pytest.raises(ValueError, match="None of the classes .a. has 1 rows with it and as many without"):
        roc(made, "truth")


def test_unsure_labels_are_see_through(section: Any, model: Any, labels: dict[str, str]) -> None:
    table = section["table"]
    sw.tl.zero_shot_annotate(section, labels, model=model, min_confidence=0.6)
    (ax,) = sw.pl.annotation(section, with_image=False, confidence=True, alpha=0.8)
    alphas = ax.collections[0].get_facecolors()[:, 3]
    sure = table.obs["sw_label_confidence"].to_numpy(float)
    given = table.obs["sw_label"].notna().to_numpy()
    expected = 0.8 * (0.1 + 0.9 * (sure - 0.2) / 0.8)
    assert np.allclose(alphas[given], expected[given], atol=1e-5)
    assert np.allclose(alphas[~given], 0.8)
    words = [t.get_text() for t in ax.get_legend().get_texts()]
    assert words[-3:] == ["confidence 100%", "confidence 60%", "confidence 20%"]
    del table.obs["sw_label_confidence"]
    with pytest.raises(KeyError, match=r"confidence=True needs numbers in \.obs\['sw_label_confidence'\]"):
        sw.pl.annotation(section, confidence=True)
