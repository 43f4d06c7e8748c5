from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer._access.records import TilesRecord, Where
from spatialwhisperer._access.result import Result
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer._provenance import record, recorded


def test_arguments_that_no_function_has_are_refused_with_the_name_that_was_meant(build: Any) -> None:
    with pytest.raises(TypeError, match=r"no argument 'image_keys'\. Did you mean image_key\?"):
        Slide.open(build.one(), image_keys="he")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"no argument 'xyz'\. An object is opened with table_key, image_key"):
        Slide.open(build.one(), xyz=1)  # type: ignore[call-arg]


def test_an_image_without_a_scale_factor_is_said_where_rows_have_places(build: Any, recwarn: Any) -> None:
    adata = build.library(build.XY)
    library = adata.uns["spatial"]["L"]
    library["images"] = {"hires": library["images"]["fullres"]}
    with pytest.warns(SpatialWhispererWarning, match="goes on without an image. Library 'L' holds the image 'hires'"):
        Slide.open(adata).say_left_out()
    with pytest.raises(ValueError, match="mpp=… is about an image that cannot be read. Library 'L'"):
        Slide.open(adata, mpp=0.5).say_left_out()
    # a mapping says which images are meant, and rows without places have none
    with pytest.warns(SpatialWhispererWarning, match="goes on without an image"):
        Slide.open(adata, mpp={"other": 0.5}).say_left_out()
    del adata.obsm["spatial"]
    recwarn.clear()
    Slide.open(adata, mpp=0.5).say_left_out()
    assert not len(recwarn)


def test_rows_and_kind_of_the_object(build: Any) -> None:
    assert (Slide.open(build.one()).n_rows, Slide.open(build.one()).is_spatialdata) == (3, True)
    adata = build.library(build.XY)
    assert (Slide.open(adata).n_rows, Slide.open(adata).is_spatialdata) == (3, False)


def test_opening_looks_at_the_table_alone(build: Any) -> None:
    """An object whose image is ambiguous still has a table, counts and results."""
    maps = build.maps(S=1.0)
    data = build.one(images={"a": build.image(build.RGB, maps), "b": build.image(build.RGB, maps)})
    slide = Slide.open(data)
    assert slide.table is data.tables["table"]
    assert slide.sections.tolist() == ["spots"] * 3
    with pytest.raises(ValueError, match="Several images"):
        slide.has_image()


# ------------------------------------------------------------------------------------------------- images and scale


def test_sections_have_images_before_they_have_a_scale(build: Any) -> None:
    slide = Slide.open(build.one())
    assert slide.has_image()
    assert [s.name for s in slide.imaged()] == ["spots"]
    assert slide.where == Where(image={"spots": "he"})
    with pytest.raises(ValueError, match=r"microns per pixel of section 'spots' are not known"):
        slide.scaled()


def test_an_object_without_an_image_says_what_is_missing(build: Any) -> None:
    slide = Slide.open(build.one(images={}))
    assert not slide.has_image()
    assert slide.where == Where()
    with pytest.raises(KeyError, match=r"Section 'spots' has no H&E image \(image elements found: none\)"):
        slide.imaged()
    adata = build.library(build.XY)
    del adata.uns["spatial"]
    assert not Slide.open(adata).has_image()
    with pytest.raises(KeyError, match=r"\.uns\['spatial'\]\[library\]\['images'\] found: none"):
        Slide.open(adata, mpp=1).imaged()
    unlinked = build.one(tables={"table": ad.AnnData(np.zeros((2, 1), np.float32))})
    assert not Slide.open(unlinked).has_image()


@pytest.mark.parametrize("options", [{"mpp": 1.0}, {"spot_pitch_um": 100}])
def test_coordinates_that_are_nan_are_named(build: Any, options: Any) -> None:
    square = [[x, y] for x in (10.0, 30.0, 50.0) for y in (10.0, 30.0, 50.0)]
    adata = build.library(np.array([*square, [np.nan, 3.0]]))
    with pytest.raises(ValueError, match=r"1 of 10 rows of section 'L' have NaN coordinates \(first at row 9\)"):
        Slide.open(adata, **options).scaled()


def test_a_pitch_is_no_trouble_for_a_section_without_an_image(build: Any) -> None:
    with pytest.raises(KeyError, match="no H&E image"):
        Slide.open(build.one(images={}), spot_pitch_um=100).scaled()


def test_an_empty_table_is_nowhere(build: Any) -> None:
    assert Slide.open(build.library(build.XY)[:0].copy()).where == Where()


# ------------------------------------------------------------------------------------------------- what tiles stated


@pytest.fixture
def stated(build: Any) -> ad.AnnData:
    """A table for which `pp.tiles` stated scale, image and library."""
    adata = build.library(build.XY)
    adata.obs["part"] = pd.Categorical(["one", "one", "two"])
    where = Where(
        mpp={"one": 0.5, "two": 0.6},
        rule={"one": "mpp=…", "two": "mpp=…"},
        image={"one": "L", "two": "L"},
        library_key="part",
    )
    record(adata, "sw_tiles", TilesRecord(56.0, 112, "spots", "nan", "allow", where))
    return adata


def test_what_the_caller_leaves_open_is_taken_from_tiles(stated: ad.AnnData) -> None:
    slide = Slide.open(stated)
    assert slide.tiles is not None
    assert slide.tiles.tile_px == 112
    assert slide.sections.tolist() == ["one", "one", "two"]
    assert {s.name: s.mpp for s in slide.scaled()} == {"one": 0.5, "two": 0.6}
    assert slide.where == slide.tiles.where


def test_an_argument_comes_before_what_tiles_stated(stated: ad.AnnData) -> None:
    assert {s.mpp for s in Slide.open(stated, mpp=0.3).scaled()} == {0.3}
    stated.obs["other"] = "all"
    assert Slide.open(stated, library_key="other").sections.tolist() == ["all"] * 3


def test_tiles_can_be_left_aside(stated: ad.AnnData) -> None:
    slide = Slide.open(stated, use_tiles=False)
    assert slide.tiles is None
    assert slide.sections.tolist() == ["L"] * 3
    assert slide.frames[0].scale is None


def test_a_scale_that_tiles_stated_of_another_image_does_not_count(build: Any) -> None:
    maps = build.maps(S=1.0)
    images = {"he": build.image(build.RGB, maps), "again": build.image(build.RGB, maps)}
    data = build.one(images=images)
    where = Where(mpp={"spots": 0.5}, image={"spots": "he"})
    record(data.tables["table"], "sw_tiles", TilesRecord(56.0, None, "spots", "raise", "warn", where))
    assert Slide.open(data).scaled()[0].mpp == 0.5
    assert Slide.open(data, image_key="again").frames[0].mpp is None


@pytest.fixture
def tiled(build: Any) -> ad.AnnData:
    """A table with the tiles that `pp.tiles` recorded at a scale that nothing else states."""
    adata = build.library(build.XY)
    adata.obsm["sw_tiles"] = adata.obsm["spatial"].copy()
    where = Where(mpp={"L": 0.5}, rule={"L": "mpp=…"}, image={"L": "L"})
    record(adata, "sw_tiles", TilesRecord(8.0, 8, "spots", "raise", "allow", where))
    return adata


def test_a_scale_that_tiles_stated_before_the_image_was_resized_does_not_count(tiled: ad.AnnData) -> None:
    library = tiled.uns["spatial"]["L"]
    library["images"]["fullres"] = library["images"]["fullres"][::2, ::2]
    tiled.obsm["spatial"] = tiled.obsm["spatial"] / 2
    with pytest.raises(ValueError, match=r"'L' lie 0\.5 times as far apart as when sw\.pp\.tiles recorded .*pass mpp="):
        Slide.open(tiled).scaled()
    assert Slide.open(tiled, drawing=True).frames[0].mpp is None
    assert Slide.open(tiled, mpp=1.0).scaled()[0].mpp == 1.0
    # the object may state the scale that it has now
    library["scalefactors"]["microns_per_pixel"] = 1.0
    assert Slide.open(tiled).scaled()[0].mpp == 1.0


@pytest.mark.parametrize(
    "change",
    [
        lambda xy: xy + 7,
        lambda xy: xy[::-1],
        lambda xy: np.column_stack([60 - xy[:, 1], xy[:, 0]]),
        lambda xy: xy * [-1, 1] + [100, 0],
        lambda xy: xy + [[1.0, 0.0], [0.0, -1.0], [0.5, 0.5]],
    ],
)
def test_the_scale_that_tiles_stated_holds_where_rows_are_moved(tiled: ad.AnnData, change: Any) -> None:
    tiled.obsm["spatial"] = change(tiled.obsm["spatial"])
    assert Slide.open(tiled).scaled()[0].mpp == 0.5


@pytest.mark.parametrize("rows", [[0], [0, 0], []])
def test_too_few_rows_say_nothing_about_the_scale(tiled: ad.AnnData, rows: list[int]) -> None:
    tiled.obsm["spatial"] = tiled.obsm["spatial"] / 2
    part = tiled[rows].copy()
    part.obs_names_make_unique()
    assert all(section.mpp == 0.5 for section in Slide.open(part).frames)


def test_an_image_that_was_renamed_after_tiles_is_said(build: Any, tiled: ad.AnnData) -> None:
    maps = build.maps(S=1.0)
    data = build.one()
    where = Where(mpp={"spots": 0.5, "others": 0.5}, image={"spots": "before", "others": "gone"})
    record(data.tables["table"], "sw_tiles", TilesRecord(56.0, None, "spots", "raise", "warn", where))
    message = r"sw\.pp\.tiles recorded image 'before' for section 'spots', which is not in this object \(found: he\)"
    with pytest.raises(KeyError, match=message):
        _ = Slide.open(data).frames
    assert Slide.open(data, image_key="he").frames[0].image is not None
    # only images of sections that the table has
    data.images["before"] = build.image(build.RGB, maps)
    assert Slide.open(data).scaled()[0].mpp == 0.5
    tiled.uns["spatial"]["new"] = tiled.uns["spatial"].pop("L")
    assert Slide.open(tiled, mpp=0.5).scaled()[0].name == "new"


def test_a_record_of_another_version_is_no_record(build: Any) -> None:
    adata = build.library(build.XY)
    record(adata, "sw_tiles", {"tile_um": 56.0, "surprising": 1})
    assert Slide.open(adata).tiles is None


def test_a_picture_is_drawn_where_features_were_read(build: Any) -> None:
    """Only a picture takes scale, image and library from the records of features, and only where these agree."""
    adata = build.library(build.XY)
    adata.obs["part"] = "one"
    where = Where(mpp={"one": 0.5}, image={"one": "L"}, library_key="part")
    record(adata, "X_a", {"where": where})
    assert Slide.open(adata).frames[0].mpp is None
    (section,) = Slide.open(adata, drawing=True).frames
    assert (section.name, section.mpp) == ("one", 0.5)
    assert section.image is not None
    assert Slide.open(adata, drawing=True, mpp=0.3).frames[0].mpp == 0.3
    record(adata, "X_b", {"where": Where(mpp={"one": 0.25}, image={"one": "L"}, library_key="part")})
    assert Slide.open(adata, drawing=True).frames[0].mpp is None


# ------------------------------------------------------------------------------------------------- results


def test_results_go_to_the_table(build: Any) -> None:
    data = build.one()
    Slide.open(data).put(Result("mine", {"a": 1}, obs={"x": [1, 2, 3]}))
    assert data.tables["table"].obs["x"].tolist() == [1, 2, 3]
    assert recorded(data.tables["table"], "mine") == {"a": 1}


def test_a_table_is_put_beside_the_one_that_it_follows(build: Any) -> None:
    data = build.one()
    slide = Slide.open(data)
    with pytest.raises(ValueError, match="already has an element named 'he'"):
        slide.check_table("he", key="mine")
    slide.put_table(ad.AnnData(np.zeros((3, 4), np.float32)), "mine")
    assert data.tables["mine"].obs["which"].tolist() == ["i0", "i1", "i2"]
