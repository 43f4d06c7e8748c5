"""What a file of QuPath may look like, read block by block."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from spatialwhisperer.io._qupath import reading

if TYPE_CHECKING:
    from pathlib import Path

SQUARE = {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]]]}


def feature(name: str, geometry: Any = SQUARE, **more: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": name}, **more}}


def names_in(path: Path) -> list[str | None]:
    return [one.label for one in reading.read_objects(path)]


@pytest.mark.parametrize("packed", [False, True])
def test_a_byte_order_mark_does_no_harm(packed: bool, tmp_path: Path) -> None:
    raw = b"\xef\xbb\xbf" + json.dumps([feature("a")]).encode()
    (tmp_path / "a.geojson").write_bytes(gzip.compress(raw) if packed else raw)
    assert names_in(tmp_path / "a.geojson") == ["a"]


def test_a_feature_without_a_geometry_is_empty(tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_text(json.dumps([feature("a", None), feature("b")]))
    assert [one.geometry.is_empty for one in reading.read_objects(tmp_path / "a.geojson")] == [True, False]


@pytest.mark.parametrize("block", [1, 7, 2**20])
def test_members_before_the_features_are_passed_over(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_BLOCK", block)
    before = {"metadata": {"features": ["x"], "note": '"features":['}, "number": 1234567890, "crs": None}
    content = {"type": "FeatureCollection", **before, "features": [feature("a", features=[1]), feature("b")], "end": 1}
    (tmp_path / "a.geojson").write_text(json.dumps(content, indent=1))
    assert names_in(tmp_path / "a.geojson") == ["a", "b"]


def test_one_feature_may_have_a_member_named_features(tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_text(json.dumps(feature("a", features=[1, 2])))
    assert names_in(tmp_path / "a.geojson") == ["a"]
