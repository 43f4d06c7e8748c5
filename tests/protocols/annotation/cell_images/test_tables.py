from __future__ import annotations

import numpy as np
import pandas as pd

from spatialwhisperer.protocols.annotation.cell_images.tables import evaluate, report
from spatialwhisperer.protocols.annotation.label_sets import PANNUKE, PATHOCELL


def test_background_does_not_count_and_dominated_tiles_go() -> None:
    counts = pd.DataFrame(
        [[9, 1, 0, 0, 0, 0], [0, 0, 0, 3, 2, 0], [0, 0, 9, 1, 0, 0], [0, 0, 0, 0, 5, 0], [0, 0, 0, 0, 0, 0]],
        columns=[
            "Background",
            "Epithelial",
            "Dead Cells",
            "Connective/Soft tissue cells",
            "Inflammatory",
            "Neoplastic cells",
        ],
    )
    scores = pd.DataFrame({c: np.arange(5.0) for c in PANNUKE.prompted})
    tidy = evaluate(scores, counts, pd.Series(["a"] * 5), PANNUKE).set_index("class")
    assert set(tidy["n"]) == {4}  # the third is mostly dead cells
    assert tidy["n_present"].to_dict() == {
        "Epithelial": 1,
        "Connective/Soft tissue cells": 1,
        "Inflammatory": 2,
        "Neoplastic cells": 0,
    }
    assert tidy["auroc"].loc["Epithelial"] == 0.0
    assert np.isnan(tidy["auroc"].loc["Neoplastic cells"])


def test_a_report_names_the_column_of_classes_beside_published_values() -> None:
    table = pd.DataFrame({"prompts": "terms1", "class": list(PATHOCELL.groups), "image": "a", "auroc": 0.5})
    lines = report(table, PATHOCELL, "One image.").splitlines()
    columns = ["class", "this model (terms1)", *PATHOCELL.published_by_class, "images"]
    assert f"| {' | '.join(columns)} |" in lines
    assert "| B cells | 0.500 | 0.726 | 0.707 | 0.586 | 1 |" in lines
