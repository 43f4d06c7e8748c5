"""Numbers and labels of a file for QuPath."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer.io._qupath import writing

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def rows() -> ad.AnnData:
    adata = ad.AnnData(np.zeros((3, 0), np.float32), obs=pd.DataFrame({"kind": list("aab")}, index=list("xyz")))
    adata.obsm["spatial"] = np.array([[10.0, 10.0], [30.0, 10.0], [50.0, 10.0]])
    return adata


def test_measurements_are_written_as_they_are(rows: ad.AnnData, tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "whole": np.array([1234567, -5, 2**53 + 1]),
        "short": np.array([0.1, 1e-7, 1234567.2], np.float32),
        "long": np.array([1 / 3, 20987639.25, 1e22]),
        "flag": np.array([True, False, True]),
        "gaps": pd.array([7654321, None, 1], dtype="Int64"),
        "some": np.array([np.nan, np.inf, 2.5]),
    }
    for name, values in columns.items():
        rows.obs[name] = values
    sw.io.write_qupath(rows, tmp_path / "a.geojson", key="kind", measurements=list(columns))
    written = [
        one["properties"]["measurements"] for one in json.loads((tmp_path / "a.geojson").read_text())["features"]
    ]
    assert [one["whole"] for one in written] == [1234567, -5, 2**53 + 1]
    assert [one["short"] for one in written] == [0.1, 1e-7, 1234567.2]
    assert [one["long"] for one in written] == [1 / 3, 20987639.25, 1e22]
    assert [one["flag"] for one in written] == [1, 0, 1]
    assert [one.get("gaps") for one in written] == [7654321, None, 1]
    assert [one.get("some") for one in written] == [None, None, 2.5]


def ids(data: ad.AnnData, path: Path) -> list[str]:
    sw.io.write_qupath(data, path, key="kind", overwrite=True)
    return [one["id"] for one in json.loads(path.read_text())["features"]]


def test_each_object_has_an_id_of_its_own_which_stays(rows: ad.AnnData, tmp_path: Path) -> None:
    first = ids(rows, tmp_path / "a.geojson")
    assert len(set(first)) == 3
    rows.obs_names = ["x", "y", "x"]
    repeated = ids(rows, tmp_path / "a.geojson")
    assert len(set(repeated)) == 3
    assert repeated[:2] == first[:2]
    assert ids(rows, tmp_path / "b.geojson") == repeated


def test_ids_are_unique_beyond_the_rows_that_are_written_at_a_time(
    rows: ad.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows.obs_names = ["x", "x", "x"]
    whole = ids(rows, tmp_path / "a.geojson")
    monkeypatch.setattr(writing, "ROWS_AT_A_TIME", 2)
    assert ids(rows, tmp_path / "a.geojson") == whole
    assert len(set(whole)) == 3


@pytest.mark.usefixtures("ordinary_user")
def test_a_read_only_place_is_named_before_anything_is_written(rows: ad.AnnData, tmp_path: Path) -> None:
    place = tmp_path / "a.geojson"
    place.touch()
    for closed in (place, tmp_path):
        before = closed.stat().st_mode
        closed.chmod(before & ~0o222)
        with pytest.raises(PermissionError, match=rf"{re.escape(str(closed))} cannot be written.*Choose another path"):
            sw.io.write_qupath(rows, place, key="kind", overwrite=True)
        closed.chmod(before)
    assert place.read_text() == ""


def test_measured_numbers_are_no_labels(rows: ad.AnnData, tmp_path: Path) -> None:
    rows.obs["n_counts"] = [10.5, np.nan, 3.25]
    with pytest.raises(
        ValueError, match=r"\.obs\['n_counts'\] holds 2 different numbers.*Pass it as measurements=\['n_counts'\]"
    ):
        sw.io.write_qupath(rows, tmp_path / "a.geojson", key="n_counts")
    assert not (tmp_path / "a.geojson").exists()
    rows.obs["cluster"] = [1.0, np.nan, 2.0]
    sw.io.write_qupath(rows, tmp_path / "a.geojson", key="cluster", measurements="n_counts")
    rows.obs["complex"] = [1j, 2j, 3j]
    with pytest.raises(ValueError, match="measurements must be columns of numbers"):
        sw.io.write_qupath(rows, tmp_path / "b.geojson", key="kind", measurements="complex")
