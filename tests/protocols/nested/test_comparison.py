from __future__ import annotations

import pandas as pd
import pytest

from spatialwhisperer.protocols.__main__ import main


@pytest.mark.slow
def test_smoke_run_on_real_sections(data_folder, tmp_path) -> None:
    main(["nested", "--data", str(data_folder), "--out", str(tmp_path), "--smoke"])
    # the method "null" is no missing value
    table = pd.read_csv(tmp_path / "nested.csv", keep_default_na=False, na_values=[""])
    assert {"product", "darkness", "ridge", "probe", "own probe", "expression", "null"} <= set(table["method"])
    # links that are solved again are those of models that are trained anew
    macro = table.groupby("method")["auroc"].mean()
    assert macro["product"] <= macro["hindsight"] + 1e-3
    choices = pd.read_csv(tmp_path / "nested_choices.csv")
    assert choices["chosen"].sum() == 1
    assert set(table["test"]).isdisjoint(", ".join(choices["chosen_on"]).split(", "))
    assert "the choice saw" in (tmp_path / "nested.md").read_text()
