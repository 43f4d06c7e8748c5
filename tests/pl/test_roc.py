from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer.pl.roc import roc

if TYPE_CHECKING:
    import anndata as ad

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
    assert {line.get_color() for line in ax.lines[:2]} == {"red", "blue"}
    with pytest.raises(KeyError, match="palette has no colour for rest"):
        roc(made, "coarse", mapping={"A": "a", "rest": ["b/c", "d"]}, palette={"A": "red"})


def test_roc_of_one_class_alone(made: ad.AnnData) -> None:
    made.obs["truth"] = "a"
    with pytest.raises(ValueError, match="None of the classes .a. has 1 rows with it and as many without"):
        roc(made, "truth")
