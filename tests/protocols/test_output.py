from __future__ import annotations

import pandas as pd
import pytest

from spatialwhisperer.protocols.output import markdown, write_text


def test_a_frame_becomes_a_table_and_missing_values_a_dash() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]}, index=pd.Index(["r", "s"], name="row"))
    assert markdown(frame) == "| row | a | b |\n| --- | --- | --- |\n| r | 1 | x |\n| s | 2 | – |"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path) -> None:
    path = tmp_path / "new" / "table.csv"
    write_text(path, "first")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "second \ud800")
    assert path.read_text() == "first"
    write_text(path, "third")
    assert path.read_text() == "third"
    assert [p.name for p in path.parent.iterdir()] == ["table.csv"]
