from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from spatialwhisperer.protocols.finished import finished, stamp

if TYPE_CHECKING:
    from pathlib import Path


def test_a_finished_run_is_read_and_not_repeated(tmp_path: Path) -> None:
    calls = []

    def measure() -> pd.DataFrame:
        calls.append(1)
        return pd.DataFrame({"gene_list": ["", "ACG"], "value": [None, 0.5]})

    first = finished(tmp_path / "a" / "run.csv", "a run", measure)
    second = finished(tmp_path / "a" / "run.csv", "a run", measure)
    assert len(calls) == 1
    pd.testing.assert_frame_equal(first, second)
    # an empty gene list is none, an empty value a missing one
    assert first["gene_list"].tolist() == ["", "ACG"]
    assert first["value"].isna().tolist() == [True, False]
    assert {"seconds", "peak_memory_mib", "versions"} <= set(first.columns)


def test_runs_that_depend_on_something_else_have_another_stamp() -> None:
    assert stamp(("C2", "C3"), None) == stamp(("C2", "C3"), None)
    assert len({stamp(("C2",), None), stamp(("C2", "C3"), None), stamp(("C2", "C3"), 3), stamp("C2")}) == 4
