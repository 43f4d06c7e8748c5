from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from spatialwhisperer.protocols.ablation.report import draw, report, summary


@pytest.fixture
def scored() -> pd.DataFrame:
    """Two classes in three sections of two patients, by the recipe, a change of it, and a change of that change."""
    rows = []
    for row, against, shift in (("base", None, (0, 0, 0)), ("a: b", "base", (1, 2, 3)), ("a: c", "a: b", (1, 1, 1))):
        for section, by in zip(("A1", "C2", "C3"), shift, strict=True):
            for name, value in (("fat", 0.6), ("tumour", 0.8)):
                part, _, change = row.rpartition(": ")
                rows.append((row, part, change, against, section[0], section, name, value + by / 50))
    return pd.DataFrame(rows, columns=["row", "part", "change", "against", "patient", "section", "class", "auroc"])


def test_differences_are_paired_over_sections(scored: pd.DataFrame) -> None:
    table = summary(scored)
    assert table.index.tolist() == ["base", "a: b", "a: c"]
    assert table["macro AUROC, patient A"]["base"] == pytest.approx(0.7)
    assert table["macro AUROC, patient C"]["a: b"] == pytest.approx(0.7 + 2.5 / 50)
    assert table["difference"]["a: b"] == pytest.approx(2 / 50)
    half = t.ppf(0.975, 2) * (1 / 50) / np.sqrt(3)
    assert [table[c]["a: b"] for c in ("low", "high")] == pytest.approx([2 / 50 - half, 2 / 50 + half])
    assert table["difference"]["a: c"] == pytest.approx(-1 / 50)
    assert all(np.isnan(table[c]["base"]) for c in ("difference", "low", "high"))


def test_the_table_states_what_was_left_out(scored: pd.DataFrame) -> None:
    text = report(summary(scored), {"image encoder: nuclei": "A1 is too coarse"})
    lines = text.splitlines()
    assert lines[0] == "| part | change | macro AUROC, patient A | macro AUROC, patient C | difference | against |"
    assert lines[2] == "|  | base | 0.700 | 0.700 | – |  |"
    assert lines[3].startswith("| a | b | 0.720 | 0.750 | +0.040 [-0.010, +0.090] | the recipe |")
    assert lines[4].endswith("| a: b |")
    assert lines[-1] == "Left out: image encoder: nuclei, because A1 is too coarse."


def test_the_picture_has_a_mark_for_each_change(scored: pd.DataFrame) -> None:
    (ax,) = draw(summary(scored)).axes
    drawn = ax.get_lines()[1]
    assert np.asarray(drawn.get_xdata()) == pytest.approx([2 / 50, -1 / 50])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a: b", "a: c *"]
