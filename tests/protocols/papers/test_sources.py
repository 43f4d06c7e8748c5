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
        table = source.read("P5_ST_rep1")["table"]
        assert microns_per_pixel(table, "cscc", "P5_ST_rep1") == pytest.approx(5.0)


def test_a_folder_may_be_that_of_the_data_set(tmp_path: Path) -> None:
    (tmp_path / "lizard").mkdir()
    assert place_of("lizard", tmp_path) == tmp_path / "lizard" == place_of("lizard", tmp_path / "lizard")
    assert place_of("pannuke", tmp_path) is None


def test_the_held_out_section_of_a_paper_is_not_replaced(tmp_path: Path) -> None:
    row = next(row for row in rows_of("bleep") if row.dataset == "liver")
    for name, sample in (("C73_C1", "GSM7697870"), ("PSC011_A1", "GSM7845914")):
        spots = files.hexagonal(0)
        under = spots[spots["in_tissue"] == 1]
        files.write_triplet(tmp_path / "liver", f"{sample}_{name}", under["barcode"], files.counts_of(under, 0))
        spots.to_csv(tmp_path / "liver" / f"{sample}_{name}_tissue_positions_list.csv", header=False, index=False)
        (tmp_path / "liver" / f"{sample}_{name}_Merged.tif").touch()
    # sections of another patient are no training sections of this row
    assert open_source(row, tmp_path) is None


def test_where_the_sections_of_the_paper_form_no_fold_others_are_taken(data_folder: Path) -> None:
    (row,) = rows_of("tpirbae")
    source = open_source(row, data_folder)
    assert source is not None
    # A1 is the only one of the paper that has an image here
    assert set(source.patients.values()) == {"A", "C"}
