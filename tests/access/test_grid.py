from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from anndata import AnnData

from spatialwhisperer._access import grid
from spatialwhisperer._access.grid import Grid, add_instances_table, add_tile_grid, check_grid_names, grid_table
from spatialwhisperer._access.records import TilesRecord, Where
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.tables import add_annotating_table
from spatialwhisperer._provenance import record


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


def gridded(build: Any, xy: np.ndarray, **changes: Any) -> Any:
    """A slide with a grid as `spatialwhisperer.pp.tiles` records it."""
    data = build.one(tables={}, **changes)
    lay(data, {"he": xy})
    return data


def lay(data: Any, centres: dict[str, np.ndarray]) -> None:
    table = add_tile_grid(data, {image: Grid(xy, 4.0) for image, xy in centres.items()}, "sw_tiles")
    table.obsm["sw_tiles"] = np.array(table.obsm["spatial"])
    record(table, "sw_tiles", TilesRecord(4.0, None, "grid", "raise", "warn", Where()))


def test_a_grid_without_results_is_replaced_with_all_its_squares(build: Any) -> None:
    pixels = build.image(build.RGB, build.maps(S=1.0))
    data = gridded(build, build.XY, images={"he": pixels, "second": pixels})
    lay(data, {"he": build.XY[:2], "second": build.XY})
    assert set(data.shapes) == {"spots", "he_tiles", "second_tiles"}
    assert len(data.shapes["he_tiles"]) == 2
    with pytest.raises(ValueError, match="'sw_tiles', 'he_tiles', 'second_tiles', a grid over other images too"):
        lay(data, {"he": build.XY})
    assert data["sw_tiles"].n_obs == len(data["he_tiles"]) + len(data["second_tiles"]) == 5


@pytest.mark.parametrize("where", ["obs", "obsm", "uns", "provenance", "table"])
def test_a_grid_with_results_is_not_replaced(build: Any, where: str) -> None:
    data = gridded(build, build.XY)
    table = data["sw_tiles"]
    match where:
        case "obs":
            table.obs["mine"] = 1
        case "obsm":
            table.obsm["mine"] = np.zeros((3, 1))
        case "uns":
            table.uns["mine"] = {}
        case "provenance":
            record(table, "mine", {})
        case "table":
            add_annotating_table(data, table, AnnData(np.zeros((3, 1), np.float32)), "mine")
    with pytest.raises(
        ValueError,
        match=r"elements named 'sw_tiles', 'he_tiles', a grid with results \(mine\)\. Delete them \(del sdata\['sw_tiles'\], sdata\['he_tiles'\]\)",
    ):
        check_grid_names(data, ["he"], "sw_tiles")


def test_an_error_keeps_the_former_grid(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = gridded(build, build.XY)
    before = {name: data[name] for name in ("sw_tiles", "he_tiles")}
    # a table that cannot be added
    monkeypatch.setattr(grid, "grid_table", lambda *_: "no table")
    with pytest.raises(TypeError):
        add_tile_grid(data, {"he": Grid(build.XY[:1], 4.0)}, "sw_tiles")
    assert all(data[name] is element for name, element in before.items())


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
