from __future__ import annotations

import pandas as pd

from spatialwhisperer.protocols.annotation.zero_shot_tables import report


def test_report_takes_the_mean_over_classes_then_over_sections() -> None:
    rows = [
        {"split": "s", "test": test, "method": "sequential", "seed": seed, "class": c, "auroc": value}
        for seed in (0, 1)
        for test, values in (("x", {"a": 0.5, "b": 0.7}), ("y", {"a": 1.0}))
        for c, value in values.items()
    ]
    text = report(pd.DataFrame(rows), 2, 0, 1.0)
    assert "| sequential (the default at this size) | 0.800 ± 0.000 |" in text
