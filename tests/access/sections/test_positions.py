from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer._access.sections import positions
from spatialwhisperer._access.slide import Slide

GRID = np.stack(np.meshgrid(np.arange(6.0), np.arange(5.0)), -1).reshape(-1, 2)
# without the ``None`` that its type allows
array_positions: Any = positions.array_positions


def positions_of(data: Any, **options: Any) -> Any:
    return Slide.open(data).positions(**options)


def table(n: int, **obs: Any) -> ad.AnnData:
    adata = ad.AnnData(np.zeros((n, 1), np.float32))
    for name, values in obs.items():
        adata.obs[name] = values
    return adata


def test_indices_of_the_array_count_where_they_are_stated() -> None:
    adata = table(3, array_row=[5, 6, 7], array_col=[1, 2, 4])
    for xy in (None, np.zeros((3, 2))):
        got = array_positions(adata, xy, np.repeat("a", 3))
        assert got.tolist() == [[1, 5], [2, 6], [4, 7]]


def test_positions_are_counted_in_the_distance_between_neighbours() -> None:
    got = array_positions(table(30), 37 * GRID + [100, 900], np.repeat("a", 30))
    assert np.array_equal(got, GRID + 1)


def test_each_section_has_a_unit_of_its_own() -> None:
    """Two sections whose pixels differ in size, and whose coordinates overlap."""
    xy = np.concatenate([20 * GRID, 33 * GRID + 7])
    order = np.random.default_rng(0).permutation(60)
    sections = np.repeat(["a", "b"], 30)
    got = array_positions(table(60), xy[order], sections[order])
    assert np.array_equal(got, np.tile(GRID + 1, (2, 1))[order])


def test_rows_without_a_place_have_no_array_position() -> None:
    xy = np.concatenate([GRID, np.full((2, 2), np.nan)])
    got = array_positions(table(32), xy, np.array(["a"] * 31 + ["b"]))
    assert np.array_equal(got[:30], GRID + 1)
    assert np.isnan(got[30:]).all()


def test_nothing_states_positions() -> None:
    assert array_positions(table(3), None, np.repeat("a", 3)) is None
    assert positions_of(table(3)) is None


@pytest.mark.parametrize("array", [False, True])
def test_array_indices_alone_are_positions_too(array: bool) -> None:
    got = positions_of(table(2, array_row=[5, 6], array_col=[1, 2]), array=array)
    assert got.tolist() == [[1, 5], [2, 6]]


def test_array_indices_that_are_no_numbers_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert positions_of(table(2, array_row=["5", "6"], array_col=["1", "2"])).tolist() == [[1, 5], [2, 6]]
    words = table(2, array_row=["A", "B"], array_col=[1, 2])
    assert positions_of(words) is None
    assert ".obs['array_row'] holds values that are no numbers" in capsys.readouterr().err
    words.obsm["spatial"] = np.array([[10.0, 10.0], [10.0, 20.0]])
    assert positions_of(words, array=True).tolist() == [[1, 1], [1, 2]]


@pytest.mark.parametrize("names", [["y", "x"], ["array_row", " Y", "X "], ["pxl_row_in_fullres", "pxl_col_in_fullres"]])
def test_columns_of_a_frame_are_found_by_their_names(build: Any, names: list[str]) -> None:
    adata = build.library(build.XY)
    columns = np.column_stack([np.ones(3), build.XY[:, ::-1]])[:, -len(names) :]
    adata.obsm["spatial"] = pd.DataFrame(columns, index=adata.obs_names, columns=names)
    slide = Slide.open(adata, mpp=1)
    assert np.array_equal(slide.frames[0].xy_px, build.XY)
    assert np.array_equal(positions_of(adata), build.XY)


@pytest.mark.parametrize("names", [["a", "b"], [0, 1], ["x", "x"], ["y", "z"], ["x", "pxl_row"]])
def test_without_these_names_the_first_two_columns_count(build: Any, names: list[Any]) -> None:
    adata = build.library(build.XY)
    adata.obsm["spatial"] = pd.DataFrame(build.XY, index=adata.obs_names, columns=names)
    assert np.array_equal(positions_of(adata), build.XY)
    assert np.array_equal(Slide.open(adata, mpp=1).frames[0].xy_px, build.XY)


def test_positions_come_from_the_shapes_where_the_table_has_none(build: Any) -> None:
    data = build.one(tables={"table": build.table({"spots": ["i2", "i0"]})})
    assert "spatial" not in data.tables["table"].obsm
    got = positions_of(data)
    assert np.allclose(got, build.XY[[2, 0]])
    # what the table states itself comes first
    data.tables["table"].obsm["spatial"] = np.array([[1.0, 2, 9], [3, 4, 9]])
    got = positions_of(data)
    assert got.tolist() == [[1, 2], [3, 4]]


def test_positions_of_shapes_are_those_of_their_own_frame(build: Any) -> None:
    """They need no image, and no coordinate system that they share with one."""
    shapes = {"spots": build.spots(build.XY, build.maps(S=7.0))}
    got = positions_of(build.one(images={}, shapes=shapes))
    assert np.allclose(got, build.XY)
