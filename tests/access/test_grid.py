from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spatialwhisperer._access.grid import Grid, add_instances_table, add_tile_grid, check_grid_names, grid_table
from spatialwhisperer._access.slide import Slide


def test_shapes_get_a_table_of_their_instances(build: Any) -> None:
    data = build.one()
    made = add_instances_table(data, "spots", "new")
    assert made.obs["instance_id"].tolist() == ["i0", "i1", "i2"]
    assert Slide.open(data, table_key="new", mpp=1).scaled()[0].xy_px.tolist() == build.XY.tolist()
    with pytest.raises(ValueError, match="already has an element named 'he'"):
        add_instances_table(data, "spots", "he")
    with pytest.raises(KeyError, match="no shapes 'nope'"):
        add_instances_table(data, "nope", "another")


def test_a_grid_is_squares_registered_like_the_image_and_a_table_of_them(build: Any) -> None:
    from spatialdata.transformations import get_transformation

    data = build.one(images={"he": build.image(build.RGB, build.maps(S=2.0, microns=0.5))})
    table = add_tile_grid(data, {"he": Grid(build.XY, 4.0)}, "grid")
    assert data.tables["grid"] is table
    assert np.array_equal(table.obsm["spatial"], build.XY)
    squares = data.shapes["he_grid"]
    assert np.allclose(squares.geometry.area, 16)
    assert np.allclose(squares.geometry.bounds.to_numpy()[:, :2] + 2, build.XY)
    assert get_transformation(squares, get_all=True).keys() == {"S", "microns"}
    (section,) = Slide.open(data, table_key="grid").scaled()
    assert np.allclose(section.xy_px, build.XY)
    assert section.mpp == 0.5


def test_a_grid_takes_no_name_that_exists(build: Any) -> None:
    data = build.one()
    with pytest.raises(ValueError, match="already has an element named 'table'"):
        add_tile_grid(data, {"he": Grid(build.XY, 4.0)}, "table")
    assert set(data.shapes) == {"spots"}
    for key, squares in (("sw_tiles", "he_tiles"), ("grid", "he_grid")):
        data.shapes[squares] = data.shapes["spots"]
        with pytest.raises(ValueError, match=f"'{squares}'"):
            check_grid_names(data, ["he"], key)


def test_an_image_can_have_several_grids(build: Any) -> None:
    data = build.one()
    for key, size in (("sw_tiles", 4.0), ("coarse", 8.0)):
        add_tile_grid(data, {"he": Grid(build.XY, size)}, key)
    assert np.allclose(data.shapes["he_tiles"].geometry.area, 16)
    assert np.allclose(data.shapes["he_coarse"].geometry.area, 64)
    assert data.tables["coarse"].uns["spatialdata_attrs"]["region"] in ("he_coarse", ["he_coarse"])


def test_the_table_of_a_grid_annotates_the_squares_of_each_image(build: Any) -> None:
    table = grid_table({"a": Grid(build.XY, 4.0), "b": Grid(build.XY[:1], 4.0)})
    assert table.obs["region"].tolist() == ["a_tiles"] * 3 + ["b_tiles"]
    assert table.obs["instance_id"].tolist() == [0, 1, 2, 0]
    assert table.obs_names.is_unique
    assert table.uns["spatialdata_attrs"]["region"] == ["a_tiles", "b_tiles"]
