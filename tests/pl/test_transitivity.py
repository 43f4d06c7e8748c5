from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer.pl.transitivity import _classes, transitivity

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@pytest.fixture(scope="module")
def report(simulated: Any, model: Any, labels: dict[str, str]) -> pd.DataFrame:
    return sw.tl.transitivity(simulated.sections["P3"], model=model, labels=labels)


def draw(report: pd.DataFrame) -> list[Axes]:
    axes = transitivity(report)
    axes[0].figure.canvas.draw()
    return axes


def test_every_part_of_a_whole_report_has_a_panel(report: pd.DataFrame) -> None:
    quantities, classes, _, labels = draw(report)
    texts = [t.get_text() for t in quantities.texts]
    assert f"{report['value']['coverage']:.2f}" in texts
    assert len(classes.patches) == np.isfinite(report.attrs["class_auroc"]).sum()
    assert [t.get_text() for t in labels.get_yticklabels()] == report.attrs["classes"]


def test_a_quantity_that_cannot_be_tested_says_so(report: pd.DataFrame) -> None:
    untestable = report.copy()
    untestable.loc["coverage", ["value", "low", "high"]] = np.nan
    assert "untestable on these data" in [t.get_text() for t in draw(untestable)[0].texts]


def test_another_frame_and_a_report_without_its_details_are_refused(report: pd.DataFrame) -> None:
    with pytest.raises(KeyError, match="no transitivity report"):
        transitivity(pd.DataFrame({"value": [1.0]}, index=["other"]))
    bare = report.copy()
    bare.attrs = {}
    with pytest.raises(KeyError, match="no transitivity report"):
        transitivity(bare)


@pytest.mark.parametrize(
    ("values", "more"),
    [([0.9, 0.7, 0.6], ""), ([0.9, np.nan, 0.6], "; 1 labels"), ([np.nan, np.nan, 0.6], "; 2 labels")],
)
def test_labels_with_too_few_rows_are_counted(values: list[float], more: str) -> None:
    import matplotlib.pyplot as plt

    details = {f"class_{name}": values for name in ("auroc", "low", "high")}
    _, ax = plt.subplots()
    _classes(ax, details | {"classes": ["a", "b", "c"], "class_rows": [9, 8, 7]})
    counted = f"{more} with too few rows" if more else ""
    assert ax.get_xlabel() == f"AUROC (rows with the label by expression in brackets{counted})"
