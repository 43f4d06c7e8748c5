from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from spatialwhisperer._access.records import TilesRecord, Where
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.tiles.plan import check_resolution, plan_tiles
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer._provenance import record

if TYPE_CHECKING:
    import anndata as ad


@pytest.fixture
def away(build: Any) -> ad.AnnData:
    """Three rows on the image and one off it."""
    return build.library(np.concatenate([build.XY, [[130.0, 20.0]]]))


def test_centres_are_in_the_order_of_the_table(build: Any) -> None:
    maps = build.maps
    annotation = build.table({"a": ["i0", "i1"], "b": ["i0", "i2"]})[[2, 0, 3, 1]].copy()
    data = build.sdata(
        images={"a_he": build.image(build.RGB, maps(A=1.0)), "b_he": build.image(build.RGB, maps(B=2.0))},
        shapes={"a": build.spots(build.XY, maps(A=1.0)), "b": build.spots(build.XY, maps(B=1.0))},
        tables={"table": annotation},
    )
    plan = plan_tiles(Slide.open(data, mpp=0.5))
    half = build.XY / 2
    assert np.allclose(plan.centres(), [half[0], build.XY[0], half[2], build.XY[1]])
    assert not plan.off.any()
    rows = np.concatenate([rows for rows, _ in plan.read(8, 16)])
    assert sorted(rows.tolist()) == [0, 1, 2, 3]


def test_a_centre_off_the_image_is_refused_with_its_row(away: ad.AnnData) -> None:
    with pytest.raises(
        ValueError,
        match=r"1 of 4 tile centres of section 'L' are off image 'L' \(100 x 60 pixels\), such as row 3 at x = 130",
    ):
        plan_tiles(Slide.open(away, mpp=1))
    with pytest.raises(ValueError, match="off_slide must be one of 'raise', 'nan'"):
        plan_tiles(Slide.open(away, mpp=1), "drop")  # type: ignore[arg-type]


def test_a_centre_off_the_image_can_be_left_empty(away: ad.AnnData) -> None:
    plan = plan_tiles(Slide.open(away, mpp=1), "nan")
    assert plan.off.tolist() == [False, False, False, True]
    assert np.isnan(plan.centres()).all(axis=1).tolist() == plan.off.tolist()
    assert 3 not in np.concatenate([rows for rows, _ in plan.read(8, 8)])


@pytest.mark.parametrize(("radius", "reaches"), [(8.0, True), (3.0, False)])
def test_a_shape_that_reaches_onto_the_image_may_have_its_centre_off_it(
    build: Any, radius: float, reaches: bool, caplog: Any
) -> None:
    """As in a part that was cut out of a slide by a query of spatialdata."""
    xy = np.concatenate([build.XY, [[105.0, 20.0]]])
    data = build.sdata(
        images={"he": build.image(build.RGB, build.maps(S=1.0))},
        shapes={"a": build.spots(xy, build.maps(S=1.0))},
        tables={"table": build.table({"a": [f"i{i}" for i in range(len(xy))]})},
    )
    data.shapes["a"]["radius"] = radius
    slide = Slide.open(data, mpp=1)
    if not reaches:
        with pytest.raises(ValueError, match=r"1 of 4 tile centres .* off image 'he'.*off_slide='nan'"):
            plan_tiles(slide)
        return
    with caplog.at_level("INFO", logger="spatialwhisperer"):
        plan = plan_tiles(slide)
    assert plan.off.tolist() == [False, False, False, True]
    assert "1 of 4 tile centres of section 'a' lie off image 'he', and their shapes reach onto it" in caplog.text


def test_shapes_of_which_half_lie_off_the_image_are_no_part_of_a_slide(build: Any) -> None:
    xy = np.concatenate([build.XY, build.XY + [100, 0]])
    data = build.sdata(
        images={"he": build.image(build.RGB, build.maps(S=1.0))},
        shapes={"a": build.spots(xy, build.maps(S=1.0))},
        tables={"table": build.table({"a": [f"i{i}" for i in range(len(xy))]})},
    )
    data.shapes["a"]["radius"] = 500.0
    with pytest.raises(ValueError, match=r"3 of 6 tile centres .* off image 'he'"):
        plan_tiles(Slide.open(data, mpp=1))


def test_what_tiles_stated_about_such_centres_counts_where_nothing_is_asked(away: ad.AnnData) -> None:
    where = Where(mpp={"L": 1.0}, image={"L": "L"})
    record(away, "sw_tiles", TilesRecord(8.0, 8, "spots", "nan", "allow", where))
    assert plan_tiles(Slide.open(away)).off.sum() == 1
    with pytest.raises(ValueError, match="off image"):
        plan_tiles(Slide.open(away), "raise")


def test_whole_tiles_are_those_inside_the_image(build: Any) -> None:
    adata = build.library(np.array([[2.0, 30.0], [50.0, 30.0]]))
    plan = plan_tiles(Slide.open(adata, mpp=1))
    assert sorted(np.concatenate([rows for rows, _ in plan.read(8, 8)]).tolist()) == [0, 1]
    assert np.concatenate([rows for rows, _ in plan.read(8, 8, whole=True)]).tolist() == [1]


def test_there_must_be_rows_on_an_image(build: Any) -> None:
    adata = build.library(build.XY)
    with pytest.raises(ValueError, match="no rows"):
        plan_tiles(Slide.open(adata[:0].copy(), mpp=1))
    adata.obsm["spatial"] += 1e4
    with pytest.raises(ValueError, match=r"No tile centre lies on an image\. Check image_key and coordinate_system"):
        plan_tiles(Slide.open(adata, mpp=1), "nan")


def test_enlarging_is_said_refused_or_allowed(build: Any, recwarn: Any) -> None:
    sections = Slide.open(build.library(build.XY), mpp=0.5).scaled()
    check_resolution(sections, [32], 64, "warn")
    check_resolution(sections, [32], 640, "allow")
    # a tenth is lost in the rounding of scales
    check_resolution(sections, [32], 70, "error")
    assert not len(recwarn)
    text = (
        r"to 224 pixels.*image 'L' has 0.5 um per pixel, and tiles ask for less: 56 um for 0.25 \(at most tile_px=112\)"
    )
    with pytest.warns(SpatialWhispererWarning, match=text):
        check_resolution(sections, [56], 224, "warn")
    with pytest.raises(ValueError, match=text + r".*sw\.pp\.tiles\(data, tile_um=56, on_low_res='allow'\)"):
        check_resolution(sections, [56], 224, "error")
    with pytest.warns(SpatialWhispererWarning, match=r"56 um for 0.25 \(at most tile_px=112\) and 80 um for") as caught:
        check_resolution([*sections, *sections], [56, 80, 200], 224, "warn")
    assert len(caught) == 1
