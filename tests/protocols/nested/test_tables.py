from __future__ import annotations

from typing import Any

import pandas as pd

from spatialwhisperer.protocols.nested.tables import MEAN, METHODS, chosen, from_product, macro, report

VALUES = {"product": 0.7, "darkness": 0.6, "probe": 0.8}


def scored() -> pd.DataFrame:
    rows = [
        (split, test, name, method, 0, value + shift)
        for split, test, shift in (("new patient A", "A1", 0.0), ("new patient C", "C2", 0.1))
        for name in ("a", "b")
        for method, value in VALUES.items()
    ]
    # a class that one method cannot score counts for none
    rows += [("new patient A", "A1", "c", method, 0, 0.1) for method in ("product", "darkness")]
    rows += [("new patient A", "A1", name, "null", k, 0.5 + 0.01 * k) for name in "abc" for k in range(5)]
    rows += [("new patient C", "C2", name, "null", k, 0.5) for name in "ab" for k in range(5)]
    return pd.DataFrame(rows, columns=["split", "test", "class", "method", "seed", "auroc"])


CHOICES = pd.DataFrame(
    {
        "candidate": ["x", "y"],
        "inner": [0.61, 0.64],
        "split": "new patient A",
        "reported": "A1",
        "chosen_on": "C2, C3",
        "left_out": "2 sections",
        "chosen": [False, True],
    }
)
DIFFERENCES = pd.DataFrame(
    {
        "split": "new patient A",
        "method": ["product", "darkness"],
        "against": "product",
        "difference": [0.0, -0.1],
        "low": [float("nan"), -0.15],
        "high": [float("nan"), -0.05],
        "over": "spots",
        "effective_rank": [2.3, 1.0],
    }
)
NULLS = pd.DataFrame({"split": "new patient A", "class": ["a", "b"], "auroc": 0.7, "null_q95": 0.55, "p": [0.02, 0.3]})


def test_means_are_over_classes_that_all_methods_score() -> None:
    table: Any = macro(scored())
    assert table.loc[METHODS["product"]].to_list() == ["0.750", "0.700", "0.800"]
    assert table.columns[0] == MEAN
    assert table.loc[METHODS["null q95"], "new patient A"] == "0.538"


def test_differences_and_ranks_have_columns_of_their_own() -> None:
    table: Any = from_product(DIFFERENCES)
    assert table.loc[METHODS["darkness"]].to_list() == ["-0.100 [-0.150, -0.050]", "1.0"]


def test_every_choice_says_what_it_saw() -> None:
    (row,) = chosen(CHOICES).to_dict("records")
    assert row["the choice saw"] == "C2, C3"
    assert row["chosen"] == "y"
    assert row["all candidates there"] == "2: 0.610 to 0.640"


def test_report_counts_the_classes_above_shuffled_pairs() -> None:
    text = report(scored(), CHOICES, DIFFERENCES, NULLS, 5, 1.0)
    assert "new patient A: 1 of 2" in text
    assert "| new patient A | a |" in text
