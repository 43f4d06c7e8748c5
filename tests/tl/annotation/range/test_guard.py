"""Which rows are out of range, and the reason that is written where a row has no label."""

from __future__ import annotations

import numpy as np
import pytest

from spatialwhisperer.models.reference import Reference, ReferenceConfig
from spatialwhisperer.tl._annotation.range.guard import RowRange, reasons, report, row_ranges, verdict
from spatialwhisperer.tl._annotation.range.training_range import SectionRange


def section(name: str, distance: float | None, n_tissue: int = 50) -> SectionRange:
    return SectionRange(name, 50, n_tissue, 0.5, 1.0, distance, None if distance is None else 1.2)


def reference() -> Reference:
    arrays = {
        "feature_mean": np.zeros((2, 1), np.float32),
        "feature_std": np.ones((2, 1), np.float32),
        "unseen_row": np.array([0, 2], np.float32),
        "unseen_section": np.array([0.8, 0.8], np.float32),
    }
    return Reference(ReferenceConfig(sections=("a", "b"), unseen="groups"), arrays)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (section("a", 1.1), "in range"),
        (section("a", 1.3), "out of range"),
        (section("a", 1.2), "in range"),
        (section("a", 1.3, n_tissue=20), "out of range"),
        (section("a", 1.3, n_tissue=19), "too few rows"),
        (section("a", None), "too few rows"),
    ],
)
def test_a_section_is_judged_where_it_has_enough_rows(one: SectionRange, expected: str) -> None:
    assert verdict(one) == expected


def test_rows_are_out_of_range_by_themselves_or_with_their_section() -> None:
    x = np.array([[1.0], [3.0], [1.0], [np.nan]])
    sections = np.array(["a", "a", "b", "b"])
    found = row_ranges(reference(), x, sections, [section("a", 1.0), section("b", 5.0)])
    assert found is not None
    assert found.limit == pytest.approx(1.95)
    assert found.row.tolist() == [False, True, False, False]
    assert found.section.tolist() == [False, False, True, False]
    assert found.outside.tolist() == [False, True, True, False]


def test_a_row_at_the_limit_is_in_range() -> None:
    found = RowRange(np.array([1.5, 2.0, 2.5], np.float32), 2.0, np.zeros(3, bool))
    assert found.row.tolist() == found.outside.tolist() == [False, False, True]


def test_nothing_is_judged_where_the_model_does_not_tell() -> None:
    x, names = np.zeros((2, 1)), np.array(["a", "a"])
    assert row_ranges(None, x, names, []) is None
    assert row_ranges(Reference(), x, names, []) is None
    assert row_ranges(reference(), None, names, []) is None


def test_of_several_reasons_the_first_is_written() -> None:
    found = RowRange(
        np.array([9, 9, 1, 1, 1, np.nan], np.float32), 2.0, np.array([True, False, True, False, False, False])
    )
    low = np.array([True, True, True, True, False, False])
    labelled = np.array([False, False, False, False, True, False])
    code = np.array([0, 0, 0, 0, 0, -1])
    assert reasons(code, labelled, found, low).tolist() == [
        "section out of range",
        "row out of range",
        "section out of range",
        "below min_confidence",
        None,
        "no embedding",
    ]
    assert reasons(code, labelled, None, ~low)[:1].tolist() == ["below min_margin"]


def test_one_line_counts_the_rows() -> None:
    found = RowRange(np.array([3, 1, 3, 1], np.float32), 2.0, np.array([True, True, False, False]))
    line = report(found, [section("x", 1.5), section("y", 0.5)])
    assert line is not None
    assert line.startswith("3 of 4 rows get no label")
    assert "2 rows are of sections whose distance is above the limit of 1.2 standard deviations: x (1.5). " in line
    assert "1 further row is above the limit of single rows, 2.0 standard deviations. " in line
    assert "sw.tl.tissue_range" in line
    assert "unknown='label'" in line
    alone = report(RowRange(found.distance, 2.0, np.zeros(4, bool)), [section("y", 0.5)])
    assert alone is not None
    assert "tissue. 2 rows are above the limit of single rows" in alone
    assert report(RowRange(found.distance, 5.0, np.zeros(4, bool)), []) is None
    assert report(None, []) is None


def test_the_line_names_the_second_limit_where_confidence_has_one() -> None:
    found = RowRange(np.array([3.0, 1.0]), 2.0, np.zeros(2, bool))
    assert str(report(found, [])).endswith("unknown='label' labels these rows nevertheless.")
    assert str(report(found, [], 0.6)).endswith(
        "unknown='label' labels those of them that are sure enough, and together with min_confidence=0 all of them."
    )
