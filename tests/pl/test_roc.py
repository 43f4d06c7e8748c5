from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer.pl.roc import roc

NAMES = ["a", "b/c", "d"]


def area(line: Any) -> float:
    x, y = line.get_data()
    return float(np.trapezoid(y, x))


@pytest.mark.parametrize("group_key", [None, "group"])
def test_the_area_below_a_curve_is_the_auroc_of_the_report(made: ad.AnnData, group_key: str | None) -> None:
    ax: Any = roc(made, "truth", group_key=group_key)
    result = sw.tl.evaluate_annotation(made, "truth", group_key=group_key)
    words = [t.get_text() for t in ax.get_legend().get_texts()]
    for name, line, text in zip(NAMES, ax.lines, words, strict=False):
        assert area(line) == pytest.approx(result["auroc"][name], abs=1e-6)
        assert text.startswith(f"{name}  {result['auroc'][name]:.2f}")
        assert ("2 groups" in text) == (group_key is not None)
    assert ax.get_title(loc="left") == f"macro AUROC {result['auroc']['macro']:.2f}"


def test_roc_of_several_labels(made: ad.AnnData) -> None:
    made.obs["coarse"] = np.where(made.obs["truth"] == "a", "A", "rest")
    ax = roc(made, "coarse", mapping={"A": "a", "rest": ["b/c", "d"]}, palette={"A": "red", "rest": "blue"})
    assert {line.get_color() for line in ax.lines[:2]} == {"#ff0000", "#0000ff"}
    with pytest.raises(KeyError, match="palette has no colour for rest"):
        roc(made, "coarse", mapping={"A": "a", "rest": ["b/c", "d"]}, palette={"A": "red"})


def test_roc_of_one_class_alone(made: ad.AnnData) -> None:
    made.obs["truth"] = "a"
    with pytest.raises(ValueError, match="None of the classes .a. has 1 rows with it and as many without"):
        roc(made, "truth")


def test_classes_have_the_colours_that_are_stored(made: ad.AnnData) -> None:
    made.uns["truth_colors"], made.uns["sw_label_colors"] = ["red", "lime", "blue"], ["black", "white", "gray"]
    shown = [line.get_color() for line in roc(made, "truth").lines[:3]]
    assert shown == ["#ff0000", "#00ff00", "#0000ff"]
    # a truth that is no column has those of the labels
    table = pd.get_dummies(pd.Series(made.obs["truth"]))
    assert [line.get_color() for line in roc(made, table).lines[:3]] == ["#000000", "#ffffff", "#808080"]


@pytest.mark.parametrize(("n_classes", "n_groups"), [(3, 1), (3, 4), (30, 1), (30, 3)])
def test_curves_and_legend_have_room_on_the_figure(n_classes: int, n_groups: int) -> None:
    rng = np.random.default_rng(0)
    names = [f"tissue of kind {i}" for i in range(n_classes)]
    rows = np.arange(20 * n_classes)
    truth, scores = (
        pd.Categorical.from_codes(rows % n_classes, pd.Index(names)),
        rng.normal(size=(len(rows), n_classes)),
    )
    obs = pd.DataFrame(
        {"truth": truth, "sw_label": truth, "group": rows // n_classes % n_groups}, index=rows.astype(str)
    )
    made = ad.AnnData(np.zeros((len(rows), 1), np.float32), obs=obs, uns={"sw_label": {"classes": np.array(names)}})
    made.obsm["sw_label_scores"] = scores
    ax: Any = roc(made, "truth", group_key="group")
    ax.figure.canvas.draw()
    assert ax.get_window_extent().width > 3 * ax.figure.dpi
    box, page = ax.get_legend().get_window_extent(), ax.figure.bbox
    assert box.x0 > ax.bbox.x1
    assert (box.x1 <= page.x1, box.y0 >= 0, box.y1 <= page.y1) == (True, True, True)
