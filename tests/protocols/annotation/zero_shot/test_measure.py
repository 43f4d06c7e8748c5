from __future__ import annotations

import pandas as pd
import pytest

from spatialwhisperer.protocols.__main__ import main


@pytest.mark.slow
def test_smoke_run_on_real_sections(data_folder, tmp_path) -> None:
    main(["annotation", "--data", str(data_folder), "--out", str(tmp_path), "--smoke"])
    table = pd.read_csv(tmp_path / "annotation.csv")
    assert {"sequential", "joint", "probe", "two-stage", "expression", "shuffled"} <= set(table["method"])
    macro = table.groupby("method")["auroc"].mean()
    # one section of a patient from three others of the same patient: measured .69 for the zero-shot labels
    assert macro["sequential"] > macro["shuffled"] + 0.05
    assert (tmp_path / "annotation.md").read_text().count("| leave one section of C out |") > 5
