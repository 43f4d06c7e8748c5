from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer._access.slide import Slide
from spatialwhisperer._messages import SpatialWhispererWarning


@pytest.fixture
def two(build: Any) -> ad.AnnData:
    """Four rows of two libraries, of which one states its scale; no column names them yet."""
    adata = ad.AnnData(np.zeros((4, 1), np.float32), obs=pd.DataFrame(index=list("abcd")))
    adata.obsm["spatial"] = np.arange(8.0).reshape(4, 2)
    entry = {"images": {"fullres": np.moveaxis(build.RGB, 0, -1)}, "scalefactors": {"microns_per_pixel": 0.3}}
    adata.uns["spatial"] = {"A": entry, "B": {**entry, "scalefactors": {}}}
    return adata


CODES = ["B", "A", "B", "A"]


def test_the_column_of_the_libraries_can_be_named(two: ad.AnnData) -> None:
    with pytest.raises(ValueError, match="library_key"):
        Slide.open(two).sections  # noqa: B018
    two.obs["slide"] = pd.Categorical(CODES)
    slide = Slide.open(two, library_key="slide", mpp={"B": 2.0})
    assert slide.sections.tolist() == CODES
    got = {s.name: s for s in slide.scaled()}
    assert (got["A"].mpp, got["B"].mpp) == (0.3, 2.0)
    assert got["B"].rows.tolist() == [0, 2]
    assert np.array_equal(got["B"].xy_px, two.obsm["spatial"][[0, 2]])
    assert slide.where.library_key == "slide"
    with pytest.raises(ValueError, match="section 'B' are not known"):
        Slide.open(two, library_key="slide").scaled()
    with pytest.raises(KeyError, match="library_key='nope'"):
        Slide.open(two, library_key="nope").frames  # noqa: B018


def test_sections_that_are_whole_numbers_may_be_named_by_these(two: ad.AnnData) -> None:
    two.uns["spatial"] = {"1": two.uns["spatial"]["A"], "2": two.uns["spatial"]["B"]}
    two.obs["library_id"] = [2, 1, 2, 1]
    slide = Slide.open(two, mpp={1: 0.3, 2.0: 2.0})  # type: ignore[dict-item]
    assert [(s.name, s.mpp) for s in slide.scaled()] == [("2", 2.0), ("1", 0.3)]
    slide = Slide.open(two, image_key={1: "1", 2: "1"})  # type: ignore[dict-item]
    assert [(s.name, s.image and s.image.name) for s in slide.frames] == [("2", "1"), ("1", "1")]
    with pytest.raises(ValueError, match="mpp names a section twice"):
        Slide.open(two, mpp={1: 0.3, "1": 2.0})  # type: ignore[dict-item]
    with pytest.raises(KeyError, match=r"mpp names '3', which is no section of this object, and says nothing of 2, 1"):
        Slide.open(two, mpp={3: 0.3}).frames  # type: ignore[dict-item]  # noqa: B018


def test_a_usual_column_whose_values_are_libraries_is_found(two: ad.AnnData) -> None:
    two.obs["batch"] = ["x", "y", "x", "y"]
    two.obs["sample"] = CODES
    assert Slide.open(two).sections.tolist() == CODES


def test_one_library_is_one_section(build: Any) -> None:
    adata = build.library(build.XY)
    assert Slide.open(adata).sections.tolist() == ["L"] * 3
    del adata.uns["spatial"]
    assert Slide.open(adata).sections.tolist() == ["all"] * 3


@pytest.fixture
def joined() -> ad.AnnData:
    """Two sections of six spots without images, joined; both have the same positions."""
    adata = ad.AnnData(np.zeros((12, 1), np.float32))
    adata.obsm["spatial"] = np.tile(np.stack(np.divmod(np.arange(6.0), 3), 1), (2, 1))
    return adata


TWO = np.repeat(["s1", "s2"], 6)


@pytest.mark.parametrize("column", ["library_id", "library", "section", "sample", "sample_id", "batch"])
def test_sections_without_images_are_those_of_a_usual_column(
    joined: ad.AnnData, column: str, capsys: pytest.CaptureFixture[str]
) -> None:
    joined.obs[column] = pd.Categorical(TWO)
    assert Slide.open(joined).sections.tolist() == TWO.tolist()
    # what squidpy reads too needs no remark
    assert (f".obs['{column}'] (s1, s2)" in capsys.readouterr().err) == (column != "library_id")
    joined.obs["other"] = np.tile(["x", "y", "z"], 4)
    assert set(Slide.open(joined, library_key="other").sections) == {"x", "y", "z"}
    del joined.obsm["spatial"]
    # single cells of several donors
    assert Slide.open(joined).sections.tolist() == ["all"] * 12


def test_sections_on_an_array_or_of_a_table_alone_are_told_apart(joined: ad.AnnData) -> None:
    joined.obs["region"], joined.obs["sample"] = TWO, ["x", *["y"] * 11]
    joined.uns["spatialdata_attrs"] = {"region": ["s1", "s2"], "region_key": "region", "instance_key": "sample"}
    assert Slide.open(joined).sections.tolist() == TWO.tolist()
    del joined.uns["spatialdata_attrs"]
    joined.obs["array_row"], joined.obs["array_col"] = np.asarray(joined.obsm.pop("spatial"), int).T
    joined.obs["sample"] = TWO
    assert Slide.open(joined).sections.tolist() == TWO.tolist()


@pytest.mark.parametrize("values", [["s1"] * 12, [f"cell {i}" for i in range(12)]])
def test_a_column_with_one_name_or_one_for_each_row_names_no_sections(joined: ad.AnnData, values: list[str]) -> None:
    joined.obs["sample"] = values
    joined.obsm["spatial"] = np.arange(24.0).reshape(12, 2)
    assert Slide.open(joined).sections.tolist() == ["all"] * 12


def test_a_section_of_which_rows_name_no_library_is_refused(joined: ad.AnnData) -> None:
    joined.obs["sample"] = [*TWO[:11], None]
    with pytest.raises(ValueError, match=r"1 of 12 rows name no library in .obs\['sample'\] .*library_key="):
        Slide.open(joined).sections  # noqa: B018


def test_rows_upon_each_other_that_no_usual_column_tells_apart_are_said(joined: ad.AnnData) -> None:
    joined.obs["slide"] = TWO
    with pytest.warns(
        SpatialWhispererWarning, match=r"12 of 12 rows lie at the very places of other rows.*library_key="
    ):
        Slide.open(joined).sections  # noqa: B018
    joined.obs["array_row"], joined.obs["array_col"] = np.asarray(joined.obsm["spatial"], int).T
    joined.obsm["spatial"] = np.arange(24.0).reshape(12, 2)
    with pytest.warns(SpatialWhispererWarning, match="12 of 12 rows"):
        Slide.open(joined).sections  # noqa: B018


@pytest.mark.filterwarnings("error::spatialwhisperer._messages.SpatialWhispererWarning")
def test_other_tables_are_not_said_to_be_joined(joined: ad.AnnData) -> None:
    joined.obs["slide"] = TWO
    assert set(Slide.open(joined, library_key="slide").sections) == {"s1", "s2"}
    apart: Any = np.arange(24.0).reshape(12, 2)
    for xy in (np.zeros((12, 2)), np.full((12, 2), np.nan), apart, apart[:, :1]):
        joined.obsm["spatial"] = xy
        assert Slide.open(joined).sections.tolist() == ["all"] * 12


def test_rows_of_a_library_that_is_not_there_have_no_image(build: Any) -> None:
    adata = build.library(build.XY)
    adata.obs["library_id"] = pd.Categorical(["L", "gone", "L"])
    slide = Slide.open(adata, mpp=1.0)
    assert slide.sections.tolist() == ["L", "gone", "L"]
    with pytest.raises(KeyError, match=r"'gone' has no H&E image .*uns\['spatial'\]\['gone'\], leave out the rows"):
        slide.scaled()
    assert Slide.open(adata[[0, 2]].copy(), mpp=1.0).scaled()[0].rows.tolist() == [0, 1]
    assert Slide.open(adata, mpp=1.0, image_key="L").where.image == {"L": "L", "gone": "L"}
    adata.obs["library_id"] = ["first", "second", "first"]
    assert not Slide.open(adata).has_image()


@pytest.mark.parametrize(
    ("column", "values"),
    [("library_id", ["mouse 3"] * 3), ("library_id", ["mouse 3", np.nan, "mouse 3"]), ("library", ["x", "y", "x"])],
)
def test_other_names_of_the_rows_of_one_library_are_no_sections(build: Any, column: str, values: list[Any]) -> None:
    adata = build.library(build.XY)
    adata.obs[column] = values
    assert Slide.open(adata).sections.tolist() == ["L"] * 3


def test_rows_that_name_no_library_beside_those_of_the_only_one_are_refused(build: Any) -> None:
    """As after a join with a table that had no such column."""
    adata = build.library(build.XY)
    adata.obs["library_id"] = ["L", np.nan, "L"]
    with pytest.raises(ValueError, match=r"1 of 3 rows name no library in .obs\['library_id'\] \(first row 1\)"):
        Slide.open(adata).sections  # noqa: B018


def test_the_image_of_another_library_can_be_named(two: ad.AnnData) -> None:
    two.obs["library_id"] = CODES
    assert Slide.open(two, image_key={"B": "A"}).where.image == {"A": "A", "B": "A"}
    with pytest.raises(KeyError, match="no image 'C'"):
        Slide.open(two, image_key="C").frames  # noqa: B018


def test_what_only_a_spatialdata_has_is_refused(two: ad.AnnData) -> None:
    two.obs["library_id"] = CODES
    with pytest.raises(ValueError, match="coordinate_system applies to SpatialData"):
        Slide.open(two, coordinate_system="global").frames  # noqa: B018


def test_rows_without_positions_have_no_tiles(two: ad.AnnData) -> None:
    two.obs["library_id"] = CODES
    del two.obsm["spatial"]
    slide = Slide.open(two)
    assert not slide.has_image()
    with pytest.raises(KeyError, match="'spatial' not in .obsm"):
        slide.frames  # noqa: B018


def test_libraries_may_be_numbers_and_every_row_needs_one(two: ad.AnnData) -> None:
    two.uns["spatial"] = {"1": two.uns["spatial"]["A"], "2": two.uns["spatial"]["B"]}
    two.obs["slide"] = [1.0, 2.0, 1.0, 2.0]
    assert Slide.open(two, library_key="slide").sections.tolist() == ["1", "2", "1", "2"]
    two.obs["slide"] = [1.0, np.nan, 1.0, 2.0]
    with pytest.raises(ValueError, match=r"1 of 4 rows name no library in .obs\['slide'\] \(first row 1\)"):
        Slide.open(two, library_key="slide").sections  # noqa: B018
