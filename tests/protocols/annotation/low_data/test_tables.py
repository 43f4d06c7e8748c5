from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.protocols.annotation.low_data import tables
from spatialwhisperer.protocols.annotation.low_data.measure import FRACTIONS


def example() -> pd.DataFrame:
    rows = []
    for seed in (0, 1):
        for fraction in FRACTIONS:
            for pair, condition, source in (
                ("image–gene", tables.BRIDGED, "image"),
                ("gene–text", tables.ALONE, "expression"),
                ("image–text", tables.ALONE, "image"),
            ):
                for name, value in (("tumour", 0.6), ("B-cells", 0.8)):
                    rows.append(
                        {
                            "split": "s",
                            "test": "t",
                            "pair": pair,
                            "condition": condition,
                            "input": source,
                            "fraction": fraction,
                            "seed": seed,
                            "n_pairs": int(64 * fraction),
                            "class": name,
                            "auroc": value - 0.1 * (1 - fraction) + 0.02 * seed,
                        }
                    )
    rows.append(rows[-1] | {"condition": tables.OTHERS, "fraction": 0.0, "n_pairs": 0, "auroc": 0.55})
    return pd.DataFrame(rows)


def test_summary_and_report() -> None:
    runs = tables.summary(example()).set_index(["pair", "measure", "fraction", "seed"])["auroc"]
    assert runs["image–gene", "labels", 1.0, 0] == pytest.approx(0.7)
    assert runs["image–gene", "regions", 1.0, 0] == pytest.approx(0.6)
    assert runs["image–gene", "cell types", 1.0, 1] == pytest.approx(0.82)
    text = tables.report(example(), 2)
    assert "| s | labels | with the other pairs | image | 0.710 ± 0.014 |" in text
    assert "Pairs: s: 1 = 64, 1/8 = 8, 1/64 = 1." in text


def test_curve_shows_every_line() -> None:
    import matplotlib.pyplot as plt

    figure = tables.draw(example())
    panels: Any = figure.axes
    assert len(panels) == 3
    assert [t.get_text() for t in panels[0].get_xticklabels()] == ["1/64", "1/8", "1"]
    np.testing.assert_allclose(panels[2].lines[0].get_ydata(), [0.7 - 0.1 * (1 - s) + 0.01 for s in (1 / 64, 1 / 8, 1)])
    levels = [line.get_ydata()[0] for line in panels[2].lines[1:]]
    assert levels == pytest.approx([0.55, 0.71, 0.5])
    plt.close(figure)
