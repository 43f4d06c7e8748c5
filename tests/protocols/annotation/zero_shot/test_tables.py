from __future__ import annotations

from typing import Any

import pandas as pd

from spatialwhisperer.protocols.annotation.zero_shot.tables import report

NULLS = pd.DataFrame(
    {
        "split": "s",
        "test": "x",
        "method": "whisperer",
        "class": ["a", "b"],
        "auroc": 0.7,
        "null_q95": 0.6,
        "p": [0.02, 0.4],
    }
)
DIFFERENCES = pd.DataFrame(
    {
        "split": "s",
        "method": ["whisperer", "darkness"],
        "against": "darkness",
        "difference": [0.03, 0.0],
        "low": [0.01, float("nan")],
        "high": [0.05, float("nan")],
        "over": "4 sections",
        "effective_rank": [2.2, 1.0],
    }
)


def rows(method: str = "sequential") -> list[dict[str, Any]]:
    return [
        {"split": "s", "test": test, "method": method, "seed": seed, "class": c, "auroc": value, "truth": "all"}
        for seed in (0, 1)
        for test, values in (("x", {"a": 0.5, "b": 0.7}), ("y", {"a": 1.0}))
        for c, value in values.items()
    ]


def test_report_takes_the_mean_over_classes_then_over_sections() -> None:
    table = pd.DataFrame([*rows(), *(row | {"truth": "near", "auroc": 0.25} for row in rows())])
    text = report(table, DIFFERENCES, NULLS, 2, 0, 1.0)
    assert "| sequential (the default at this size) | 0.800 ± 0.000 |" in text
    # labels that were transferred are scored apart
    assert "| sequential (the default at this size) | 0.250 ± 0.000 |" in text


def test_report_says_what_is_beyond_darkness_and_chance() -> None:
    table = pd.DataFrame([*rows("whisperer"), *(row | {"truth": "near"} for row in rows("whisperer"))])
    text = report(table, DIFFERENCES, NULLS, 2, 50, 1.0)
    assert "s, from darkness (4 sections)" in text
    assert "+0.030 [+0.010, +0.050] | 2.2 |" in text
    assert "| 1 of 2 |" in text
    assert "| s | a | 0.75 | 0.02 |" in text
