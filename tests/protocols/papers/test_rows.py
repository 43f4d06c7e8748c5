from __future__ import annotations

import spatialwhisperer as sw
from spatialwhisperer.protocols.commands.papers import PAPERS
from spatialwhisperer.protocols.papers.rows import papers, published, rows, rows_of
from spatialwhisperer.protocols.papers.sources import HOW_TO_GET
from spatialwhisperer.protocols.papers.table import LABELS


def test_every_row_can_be_run_and_shown() -> None:
    assert set(PAPERS) == set(papers())
    for row in rows():
        assert row.dataset in HOW_TO_GET
        assert all(preset in sw.models.presets().index for preset in row.presets)
        assert set(row.columns) <= set(LABELS)
        assert row.task in ("expression", "classes", "labels")
        assert len(set(row.sections)) == len(row.sections)
        assert set(row.domains) <= set(row.sections)


def test_published_numbers_belong_to_a_column_and_name_their_source() -> None:
    found = [(row, published(row, preset)) for row in rows() for preset in row.presets]
    for row, table in found:
        assert set(table["metric"]) <= set(row.columns)
        assert table["source"].str.len().gt(0).all()
        assert not table["metric"].duplicated().any()
    assert sum(len(table) for _, table in found) == 30
    (own,) = [row for row in rows_of("mclstexp") if row.name == "HER2+, sections"]
    assert len(own.sections) == 32
    assert published(own, "mclstexp").set_index("metric")["value"]["pearson:HEG50"] == 0.3866


def test_folds_hold_out_sections_patients_or_the_section_of_the_paper() -> None:
    by_name = {(row.paper, row.name): row for row in rows()}
    patients = {"C2": "C", "C3": "C", "A1": "A"}
    sections = list(by_name["mclstexp", "HER2+, sections"].splits(patients))
    assert sections[0] == ("C2", ("C3", "A1"), ("C2",))
    assert len(sections) == 3
    left_out = list(by_name["tpirbae", "HER2+, patch classes"].splits(patients))
    assert left_out == [("patient C", ("A1",), ("C2", "C3")), ("patient A", ("C2", "C3"), ("A1",))]
    fixed = by_name["bleep", "liver"]
    assert list(fixed.splits({"C73_A1": "C73", "C73_C1": "C73"})) == [("C73_C1", ("C73_A1",), ("C73_C1",))]
    assert not list(fixed.splits({"C73_A1": "C73"}))
    assert not list(fixed.splits({"C73_C1": "C73"}))
