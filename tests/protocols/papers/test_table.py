from __future__ import annotations

import pandas as pd

from spatialwhisperer.protocols.papers.rows import rows_of
from spatialwhisperer.protocols.papers.table import Done, report, summary


def measured(values: dict[str, float], predictor: str = "prediction", fold: str = "C2") -> list[dict[str, object]]:
    keys = [key.split(":") for key in values]
    return [
        {"preset": "bleep", "fold": fold, "seed": 0, "section": fold, "predictor": predictor}
        | {"metric": metric, "gene_list": genes, "value": value}
        for (metric, genes), value in zip(keys, values.values(), strict=True)
    ]


def done(name: str) -> Done:
    (row,) = [row for row in rows_of("bleep") if row.name == name]
    rows = [
        *measured({"pearson:ACG": 0.1, "pearson:HEG50": 0.2, "pearson:HVG50": 0.3}),
        *measured({"pearson:ACG": 0.3, "pearson:HEG50": 0.4, "pearson:HVG50": 0.5}, fold="C3"),
        *measured({"pearson:ACG": 0.05}, "darkness"),
    ]
    return Done(row, pd.DataFrame(rows), "2 of the 32 sections of the paper")


def test_measured_darkness_and_published_stand_below_each_other() -> None:
    table = summary([done("HER2+, sections")])
    assert list(table["figures"]) == ["measured", "darkness", "published"]
    assert list(table["r ACG"]) == ["0.200", "0.050", "0.187"]
    assert list(table["r HEG50"]) == ["0.300", "–", "0.291"]
    assert list(table["MSE ACG"]) == ["–", "–", "0.602"]
    # the row has no such column
    assert "r HVG50" not in table


def test_the_report_says_how_each_row_was_run_and_what_was_left_out() -> None:
    text = report("bleep", [done("HER2+, patients")], {"liver": "its sections are not there; get them"})
    assert "- HER2+, patients: 2 of the 32 sections of the paper. Run by the authors of DKAN" in text
    assert "- Published numbers: DKAN, arXiv 2511.17685." in text
    assert "- Left out: liver: its sections are not there; get them." in text
