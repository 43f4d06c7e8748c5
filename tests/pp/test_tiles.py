from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer._access.records import TilesRecord
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.tiles.plan import plan_tiles
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer._provenance import record, recorded_as
from spatialwhisperer.pp.features.tile_features import read_tiles

XY = np.array([[150.0, 120.0], [300.5, 410.2], [477.0, 222.0], [90.0, 505.0]])


def stated(table: Any) -> TilesRecord:
    out = recorded_as(table, "sw_tiles", TilesRecord)
    assert out is not None
    return out


def names(sdata: Any) -> list[tuple[str, str]]:
    return sorted((str(kind), str(name)) for kind, name, _ in sdata.gen_elements())


@pytest.fixture(scope="module")
def image(build: Any) -> np.ndarray:
    return build.disc()[0]


@pytest.fixture
def sdata(build: Any, image: np.ndarray) -> Any:
    return build.spatialdata(image, XY)


def test_centres_and_provenance_are_written(sdata: Any) -> None:
    assert sw.pp.tiles(sdata, tile_um=32, tile_px=64) is None
    table = sdata.tables["table"]
    assert np.array_equal(table.obsm["sw_tiles"], XY)
    assert table.obsm["sw_tiles"].dtype == np.float64
    record = stated(table)
    assert (record.tile_um, record.tile_px, record.at) == (32.0, 64, "spots")
    assert (record.off_slide, record.on_low_res) == ("raise", "warn")
    assert record.where.mpp == {"S_spots": 0.5}
    assert record.where.rule == {"S_spots": "coordinate system 'microns'"}
    assert record.where.image == {"S_spots": "S_image"}


def test_a_later_call_states_everything_anew(build: Any, image: np.ndarray) -> None:
    """What an earlier call stated of scale and image does not live on."""
    sdata = build.spatialdata(image, XY, mpp=None)
    sw.pp.tiles(sdata, tile_um=32, mpp=0.5)
    with pytest.raises(ValueError, match="are not known"):
        sw.pp.tiles(sdata, tile_um=32)
    assert stated(sdata.tables["table"]).where.mpp == {"S_spots": 0.5}
    sw.pp.tiles(sdata, tile_um=64, mpp=0.25)
    assert stated(sdata.tables["table"]).where.mpp == {"S_spots": 0.25}


def test_not_in_place_returns_a_table_and_writes_nothing(build: Any, image: np.ndarray, sdata: Any) -> None:
    adata = build.visium({"L": image}, {"L": XY})
    cases: tuple[tuple[Any, dict[str, Any]], ...] = ((sdata, {}), (adata, {"mpp": 0.5}))
    for data, arguments in cases:
        got = sw.pp.tiles(data, tile_um=32, tile_px=64, at="cells", inplace=False, **arguments)
        assert got is not None
        assert got.shape == (4, 0)
        assert np.array_equal(got.obsm["sw_tiles"], XY)
        table = data if data is adata else sdata.tables["table"]
        assert list(got.obs_names) == list(table.obs_names)
        assert "sw_tiles" not in table.obsm
        assert "spatialwhisperer" not in table.uns
    # an AnnData's copy carries its images
    assert got is not None
    assert read_tiles(plan_tiles(Slide.open(got)), 32, 64).shape == (4, 3, 64, 64)


def test_shapes_without_a_table_get_one(build: Any, image: np.ndarray) -> None:
    sdata = build.spatialdata(image, XY, with_table=False)
    before = names(sdata)
    got = sw.pp.tiles(sdata, tile_um=32, tile_px=64, shapes_key="S_spots", inplace=False)
    assert got is not None
    assert got.n_obs == 4
    with pytest.raises(KeyError, match="not an image"):
        sw.pp.tiles(sdata, tile_um=32, shapes_key="S_spots", image_key="nope")
    assert names(sdata) == before
    sw.pp.tiles(sdata, tile_um=32, tile_px=64, shapes_key="S_spots", key_added="cells", at="cells")
    assert names(sdata) == sorted([*before, ("tables", "cells")])
    assert np.array_equal(sdata.tables["cells"].obsm["sw_tiles"], XY)
    # the second call finds the table that the first one made
    sw.pp.tiles(sdata, tile_um=64, tile_px=64, shapes_key="S_spots")
    assert stated(sdata.tables["cells"]).tile_um == 64.0


def test_labels_without_a_table_get_one(build: Any, image: np.ndarray) -> None:
    from spatialdata.models import Labels2DModel
    from spatialdata.transformations import Identity

    sdata = build.spatialdata(image)
    cells = np.zeros(image.shape[1:], np.int64)
    cells[100:110, 200:220] = 7
    cells[300:304, 50:54] = 3
    sdata.labels["cells"] = Labels2DModel.parse(cells, dims=("y", "x"), transformations={"S": Identity()})
    sw.pp.tiles(sdata, at="cells", tile_um=32, tile_px=64, shapes_key="cells")
    assert sdata.tables["sw_tiles"].obs["instance_id"].tolist() == [3, 7]
    assert sdata.tables["sw_tiles"].obsm["sw_tiles"].tolist() == [[52, 302], [210, 105]]


def test_a_table_must_annotate_the_shapes_that_are_named(sdata: Any) -> None:
    sdata.tables["again"] = sdata.tables["table"].copy()
    # predictions stand beside the table that is meant
    sdata.tables["predicted"] = sdata.tables["table"].copy()
    record(sdata.tables["predicted"], "sw_expression", {})
    with pytest.raises(ValueError, match=r"Several tables annotate 'S_spots': .*table_key=…"):
        sw.pp.tiles(sdata, tile_um=32, shapes_key="S_spots")
    sw.pp.tiles(sdata, tile_um=32, shapes_key="S_spots", table_key="again")
    assert "sw_tiles" in sdata.tables["again"].obsm
    del sdata.tables["again"]
    sw.pp.tiles(sdata, tile_um=32, shapes_key="S_spots")
    assert "sw_tiles" in sdata.tables["table"].obsm
    assert "sw_tiles" not in sdata.tables["predicted"].obsm
    sdata.tables["again"] = sdata.tables["table"].copy()
    sdata.shapes["others"] = sdata.shapes["S_spots"]
    with pytest.raises(ValueError, match=r"Table 'again' does not annotate 'others'"):
        sw.pp.tiles(sdata, tile_um=32, shapes_key="others", table_key="again")


def test_low_resolution_is_said_or_refused(build: Any, image: np.ndarray, sdata: Any) -> None:
    cases: tuple[tuple[Any, dict[str, Any]], ...] = ((sdata, {}), (build.spatialdata(image), {"at": "grid"}))
    for data, arguments in cases:
        with pytest.warns(SpatialWhispererWarning, match="tiles ask for less: 56 um for 0.25") as caught:
            sw.pp.tiles(data, tile_um=56, tile_px=224, **arguments, inplace=False)
        assert caught[0].filename == __file__
        before = names(data)
        with pytest.raises(ValueError, match="at most tile_px=112"):
            sw.pp.tiles(data, tile_um=56, tile_px=224, on_low_res="error", **arguments)
        assert names(data) == before
        sw.pp.tiles(data, tile_um=56, tile_px=224, on_low_res="allow", **arguments)


def test_errors_leave_the_object_unchanged(build: Any, image: np.ndarray, sdata: Any) -> None:
    tissue = build.disc()[1]
    adata = build.visium({"L": image}, {"L": XY})
    bare = build.spatialdata(image, mpp=None)
    cases: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (sdata, {"tile_um": -1}, ValueError, "tile_um must be a positive"),
        (sdata, {"tile_um": np.nan}, ValueError, "tile_um must be a positive"),
        (sdata, {"tile_px": 0}, ValueError, "tile_px must be"),
        (sdata, {"at": "cell"}, ValueError, "at must be one of 'spots', 'cells', 'grid'"),
        (sdata, {"on_low_res": "no"}, ValueError, "on_low_res must be one of"),
        (sdata, {"off_slide": "no"}, ValueError, "off_slide must be one of"),
        (sdata, {"stride_um": 5}, ValueError, "stride_um is meant for a grid"),
        (sdata, {"tissue": tissue}, ValueError, "tissue is meant for a grid"),
        (sdata, {"key_added": "other"}, ValueError, "names a table that this call makes"),
        (sdata, {"shapes_key": "nope"}, KeyError, "no shapes 'nope'"),
        (sdata, {"library_key": "x"}, ValueError, "applies to AnnData"),
        (sdata, {"libraries_key": "x"}, TypeError, "Did you mean library_key"),
        (sdata, {"at": "grid", "table_key": "table"}, ValueError, "table_key is meant for tiles on the rows"),
        (sdata, {"at": "grid", "spot_pitch_um": 100}, ValueError, "spot_pitch_um is meant for tiles on the rows"),
        (sdata, {"at": "grid", "min_tissue": 2}, ValueError, "min_tissue"),
        (sdata, {"at": "grid", "stride_um": 0}, ValueError, "stride_um must be a positive"),
        (sdata, {"at": "grid", "tissue": "yes"}, ValueError, "tissue must be"),
        (sdata, {"at": "grid", "tissue": {"other": tissue}}, KeyError, "no mask for image 'S_image'"),
        (sdata, {"at": "grid", "tile_um": 4000}, ValueError, "fits into an image: S_image is 400 x 300 µm"),
        (sdata, {"at": "grid", "image_key": "nope"}, KeyError, "no image 'nope'"),
        (sdata, {"at": "grid", "coordinate_system": "T"}, ValueError, "coordinate_system='T'.*'S_image'"),
        (sdata, {"at": "grid", "mpp": 20}, ValueError, "looks like the magnification"),
        (sdata, {"at": "grid", "mpp": 1.0}, ValueError, "disagree: 1 µm per pixel by mpp=…, 0.5 by"),
        (adata, {"at": "grid", "coordinate_system": "T", "inplace": False}, ValueError, "applies to SpatialData"),
        (adata, {"shapes_key": "spots", "mpp": 0.5}, ValueError, "applies to SpatialData"),
        (bare, {"at": "grid"}, ValueError, "microns per pixel of section 'S_image'"),
        (bare, {"mpp": 0.5}, KeyError, "holds no table"),
    ]
    for data, arguments, error, text in cases:
        before = build.state(data)
        with pytest.raises(error, match=text):
            sw.pp.tiles(data, **({"tile_um": 20} | arguments))
        assert build.state(data) == before


def test_places_are_checked_again_where_rows_were_moved(monkeypatch: pytest.MonkeyPatch, noisy: Any) -> None:
    """Whether x and y were exchanged was found out by `tiles`, for the places that rows had then."""
    looked: list[str] = []
    monkeypatch.setattr(
        "spatialwhisperer._access.tiles.plan.check_axes", lambda section, *_: looked.append(section.name)
    )
    noisy.uns["spatial"]["L"]["scalefactors"]["microns_per_pixel"] = 0.5
    sw.pp.tiles(noisy, tile_um=32)
    assert looked == ["L"]
    plan_tiles(Slide.open(noisy))
    assert looked == ["L"]
    noisy.obsm["spatial"] = noisy.obsm["spatial"][:, ::-1].copy()
    plan_tiles(Slide.open(noisy))
    assert looked == ["L", "L"]
