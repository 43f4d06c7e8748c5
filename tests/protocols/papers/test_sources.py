from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spatialwhisperer.protocols.papers.rows import rows_of
from spatialwhisperer.protocols.papers.sources import microns_per_pixel, open_source, place_of
from tests.datasets.papers import files

if TYPE_CHECKING:
    from pathlib import Path


def test_sections_of_a_row_are_found_in_the_folder_of_their_data_set(tmp_path: Path) -> None:
    row = next(row for row in rows_of("mclstexp") if row.dataset == "cscc")
    assert open_source(row, tmp_path) is None
    files.write_cscc(tmp_path / "cscc", "P2_ST_rep1", "GSM4284316")
    # nothing can be held out of one section
    assert open_source(row, tmp_path) is None
    files.write_cscc(tmp_path / "cscc", "P5_ST_rep1", "GSM4284319", seed=1)
    for folder in (tmp_path, tmp_path / "cscc"):
        source = open_source(row, folder)
        assert source is not None
        assert dict(source.patients) == {"P2_ST_rep1": "P2", "P5_ST_rep1": "P5"}
        assert not source.whole
    table = source.read("P5_ST_rep1")["table"]
    assert microns_per_pixel(table, "cscc", "P5_ST_rep1") == pytest.approx(5.0)


def test_a_folder_may_be_that_of_the_data_set(tmp_path: Path) -> None:
    (tmp_path / "lizard").mkdir()
    assert place_of("lizard", tmp_path) == tmp_path / "lizard" == place_of("lizard", tmp_path / "lizard")
    assert place_of("pannuke", tmp_path) is None


def test_where_the_sections_of_the_paper_form_no_fold_others_are_taken(data_folder: Path) -> None:
    (row,) = rows_of("tpirbae")
    source = open_source(row, data_folder)
    assert source is not None
    assert not source.whole
    # A1 is the only one of the paper that has an image here
    assert set(source.patients.values()) == {"A", "C"}
