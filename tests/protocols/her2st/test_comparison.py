from __future__ import annotations

import pandas as pd
import pytest

from spatialwhisperer.protocols.__main__ import main


@pytest.mark.slow
def test_presets_are_compared_and_a_finished_fold_is_not_done_again(data_folder, tmp_path) -> None:
    arguments = ["her2st", "--data", str(data_folder), "--out", str(tmp_path), "--smoke"]
    main(arguments)
    table = pd.read_csv(tmp_path / "her2st.csv", keep_default_na=False, na_values={"value": [""]})
    assert {"(baselines)", "whisperer", "mclstexp", "bleep"} == set(table["preset"])
    r = table[(table["metric"] == "pearson") & (table["gene_list"] == "HEG50")].groupby(["preset", "predictor"])[
        "value"
    ]
    # a section of a patient from two others of the same patient, every second spot: measured .32
    assert r.mean()["whisperer", "prediction"] > r.mean()["(baselines)", "darkness"]
    assert "| mclstexp |" in (tmp_path / "her2st.md").read_text()
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "folds").iterdir()}
    next(iter(files)).unlink()
    main(arguments)
    again = {path: path.stat().st_mtime_ns for path in (tmp_path / "folds").iterdir()}
    assert sum(files[path] != again[path] for path in files) == 1
