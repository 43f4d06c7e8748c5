from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer._access.sections.lattice import hexagonal_pitch_px, spot_pitch_px
from spatialwhisperer._access.sections.scale import GivenPixel, Scale, of_library, settle
from spatialwhisperer._access.sections.section import Section, say_scales
from spatialwhisperer._access.slide import Slide

if TYPE_CHECKING:
    from pathlib import Path

PITCH = 80.0


def array(kind: str, n: int = 20) -> tuple[pd.DataFrame, np.ndarray]:
    """Array indices of n x n spots, and their centres in pixels, 80 apart."""
    row, col = (i.ravel() for i in np.mgrid[:n, :n])
    if kind == "square":
        xy = PITCH * np.column_stack([col, row])
    else:
        # as Space Ranger numbers them: columns go by twos within a row
        col = 2 * col + row % 2
        xy = PITCH * np.column_stack([col / 2, row * np.sqrt(3) / 2])
    return pd.DataFrame({"array_row": row, "array_col": col}), xy


def turned(xy: np.ndarray, degrees: float) -> np.ndarray:
    a = np.deg2rad(degrees)
    return xy @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])


def one_scale(**changes: Any) -> Scale | None:
    """The scale of a section whose object states nothing, but for the changes."""
    nothing = {"mpp": None, "spot_pitch_um": None, "xy_px": array("square")[1], "stated": None, "found": ()}
    return settle("S", "he", **(nothing | changes))


# ------------------------------------------------------------------------------------------------- spots


@pytest.mark.parametrize("kind", ["square", "hexagonal"])
def test_pitch_of_regular_and_jittered_lattices(kind: str) -> None:
    rng = np.random.default_rng(0)
    some = array(kind)[1][rng.permutation(400)[:300]]
    assert spot_pitch_px("S", some) == pytest.approx(PITCH)
    assert spot_pitch_px("S", some + rng.normal(0, 4, some.shape)) == pytest.approx(PITCH, rel=0.02)


@pytest.mark.parametrize("kind", ["square", "hexagonal"])
def test_a_few_spots_have_the_pitch_of_their_array(kind: str) -> None:
    obs, xy = array(kind)
    rng = np.random.default_rng(0)
    for fraction in (0.5, 0.2, 0.1, 0.05):
        few = rng.permutation(400)[: int(400 * fraction)]
        assert spot_pitch_px("S", turned(xy, 7)[few], obs.iloc[few]) == pytest.approx(PITCH)


@pytest.mark.parametrize("kind", ["square", "hexagonal"])
def test_the_pitch_of_a_few_spots_without_indices_is_not_guessed(kind: str) -> None:
    xy = array(kind)[1]
    rng = np.random.default_rng(0)
    half = rng.permutation(400)[:200]
    assert spot_pitch_px("S", xy[half]) == pytest.approx(PITCH)
    for fraction in (0.1, 0.05):
        with pytest.raises(ValueError, match=r"'S' lie too far apart to measure their pitch: .* Pass mpp=…"):
            spot_pitch_px("S", xy[rng.permutation(400)[: int(400 * fraction)]])
    with pytest.raises(ValueError, match="closer ones"):
        spot_pitch_px("S", rng.uniform(0, 1000, (400, 2)))


def test_spots_on_every_second_place_of_a_square_array_are_refused() -> None:
    obs, xy = array("square")
    for there in (obs.sum(axis=1) % 2 == 0, (obs % 2 == 1).all(axis=1), obs["array_row"] % 3 == 0):
        with pytest.raises(ValueError, match=r"spots of section 'S' are only on every second .* Pass mpp=…"):
            spot_pitch_px("S", xy[there], obs[there])


def test_indices_that_do_not_place_the_spots_are_not_used() -> None:
    obs, xy = array("square")
    rng = np.random.default_rng(0)
    for wrong in (
        obs.iloc[rng.permutation(400)],
        obs.astype(str),
        obs[["array_row"]],
        obs * [1, 2],
        obs / 4,
        obs.assign(array_row=3),
    ):
        assert spot_pitch_px("S", xy, wrong) == pytest.approx(PITCH)


def test_rows_that_share_a_place_or_have_none_do_not_change_the_pitch() -> None:
    xy = array("square")[1]
    assert spot_pitch_px("S", np.concatenate([xy, xy, [[np.nan, 3.0]]])) == pytest.approx(PITCH)
    for few in (xy[:2], np.repeat(xy[:1], 10, axis=0)):
        with pytest.raises(ValueError, match=r"too few to measure their pitch\. Pass mpp=…"):
            spot_pitch_px("S", few)


@pytest.mark.parametrize("degrees", [0, 7, 90, 213])
def test_the_pitch_of_a_hexagonal_array_follows_from_its_indices(degrees: float) -> None:
    obs, xy = array("hexagonal")
    assert hexagonal_pitch_px(obs, turned(xy, degrees) + [300, -20]) == pytest.approx(PITCH)
    assert hexagonal_pitch_px(obs, xy * [-1, 1]) == pytest.approx(PITCH)
    # centres that were rounded, of a few spots far apart
    rng = np.random.default_rng(0)
    few = rng.permutation(400)[:60]
    assert hexagonal_pitch_px(obs.iloc[few], np.rint(turned(xy, degrees)[few])) == pytest.approx(PITCH, rel=1e-3)


def test_other_arrays_have_no_hexagonal_pitch() -> None:
    obs, xy = array("square")
    assert hexagonal_pitch_px(obs, xy) is None
    # every second spot of a square array alternates like a hexagonal one, and is none
    draughts = (obs.sum(axis=1) % 2 == 0).to_numpy()
    assert hexagonal_pitch_px(obs[draughts], xy[draughts]) is None
    obs, xy = array("hexagonal")
    assert hexagonal_pitch_px(obs.drop(columns="array_row"), xy) is None
    assert hexagonal_pitch_px(obs[:9], xy[:9]) is None
    one_row = (obs["array_row"] == 3).to_numpy()
    assert hexagonal_pitch_px(obs[one_row], xy[one_row]) is None
    assert hexagonal_pitch_px(obs, xy * np.nan) is None
    # indices of other spots than these
    assert hexagonal_pitch_px(obs, np.random.default_rng(0).permutation(xy)) is None


# ------------------------------------------------------------------------------------------------- what objects state


def test_a_visium_library_states_the_pitch_of_its_array() -> None:
    obs, xy = array("hexagonal")
    factors = {"spot_diameter_fullres": 52.0}
    (scale,) = of_library({"scalefactors": factors}, obs, xy)
    assert scale.mpp == pytest.approx(100 / PITCH)
    assert "100 µm pitch of the Visium array" in scale.rule
    both = of_library({"scalefactors": factors | {"fiducial_diameter_fullres": 84.0}}, obs, xy)
    assert [s.mpp for s in both] == pytest.approx([1.25, 1.25])
    assert "fiducial" in both[1].rule


def test_array_indices_in_text_are_read_where_they_are_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    obs, xy = array("hexagonal")
    entry = {"scalefactors": {"spot_diameter_fullres": np.array([52.0])}}
    expected = of_library(entry, obs, xy)
    for kind in (str, "string", "category", object):
        assert of_library(entry, obs.astype(kind), xy) == expected
    assert of_library(entry, obs.astype(str).astype("category"), xy) == expected
    assert capsys.readouterr().err == ""
    words = obs.astype(str).assign(array_row="A1")
    assert of_library(entry, words, xy) == ()
    assert ".obs['array_row'] holds values that are no numbers" in capsys.readouterr().err
    assert spot_pitch_px("S", xy, words) == pytest.approx(PITCH)


def test_microns_per_pixel_of_visium_hd_are_taken_as_they_are() -> None:
    factors = {"microns_per_pixel": 0.27, "spot_diameter_fullres": 7.3}
    (scale,) = of_library({"scalefactors": factors}, *array("square"))
    assert scale == Scale(0.27, "microns_per_pixel in the scale factors")
    with pytest.raises(ValueError, match="microns_per_pixel must be a positive number"):
        of_library({"scalefactors": {"microns_per_pixel": 0}})


def test_microns_per_pixel_are_compared_with_the_array_of_the_spots() -> None:
    obs, xy = array("hexagonal")
    factors = {"microns_per_pixel": 1.25, "spot_diameter_fullres": 52.0}
    stated, pitch = of_library({"scalefactors": factors}, obs, xy)
    assert (stated.mpp, pitch.mpp) == (1.25, pytest.approx(1.25))
    # measured between places, the pitch of a part of a section is not exact
    assert len(of_library({"scalefactors": factors}, obs[[]], xy)) == 1


def test_a_square_array_states_no_scale() -> None:
    """Spots of the first Spatial Transcriptomics arrays are 200 µm apart; nothing but the caller can say so."""
    entry = {"scalefactors": {"spot_diameter_fullres": 40.0, "fiducial_diameter_fullres": 84.0}}
    assert of_library(entry, *array("square")) == ()
    assert of_library({"scalefactors": {}}, *array("hexagonal")) == ()
    assert of_library({}) == ()


def test_a_real_square_array_states_no_scale(data_folder: Path) -> None:
    adata = ad.read_h5ad(data_folder / "her2st" / "C2" / "counts.h5ad")
    pixels = np.zeros((2000, 2000, 3), np.uint8)
    factors = {"spot_diameter_fullres": 145.0, "tissue_hires_scalef": 0.2}
    adata.uns["spatial"] = {"C2": {"images": {"hires": pixels}, "scalefactors": factors}}
    (section,) = Slide.open(adata).frames
    assert section.scale is None
    with pytest.raises(ValueError, match=r"section 'C2' are not known\. Pass mpp=….*spot_pitch_um=….*200"):
        Slide.open(adata).scaled()
    meta = json.loads((data_folder / "her2st" / "C2" / "meta.json").read_text())
    (section,) = Slide.open(adata, spot_pitch_um=200).scaled()
    assert section.mpp == pytest.approx(meta["um_per_px"], rel=0.02)


@pytest.fixture(scope="module")
def cytassist(data_folder: Path) -> Any:
    """The spots on tissue of a real Space Ranger 3 CytAssist run, as scanpy stores its folder."""
    folder = data_folder / "visium_cytassist" / "spatial"
    spots = pd.read_csv(folder / "tissue_positions.csv", index_col="barcode").query("in_tissue == 1")
    adata = ad.AnnData(np.zeros((len(spots), 1), np.float32), obs=spots[["array_row", "array_col"]])
    adata.obsm["spatial"] = spots[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(float)
    factors = json.loads((folder / "scalefactors_json.json").read_text())
    adata.uns["spatial"] = {"L": {"images": {"lowres": np.zeros((600, 600, 3), np.uint8)}, "scalefactors": factors}}
    return adata


def test_a_real_cytassist_run_states_its_scale_by_pitch_and_fiducials(cytassist: Any) -> None:
    entry = cytassist.uns["spatial"]["L"]
    pitch, fiducial = of_library(entry, cytassist.obs, cytassist.obsm["spatial"])
    assert pitch.mpp == pytest.approx(4.678, rel=1e-3)
    assert fiducial.mpp == pytest.approx(pitch.mpp, rel=1e-3)
    (section,) = Slide.open(cytassist).scaled()
    assert section.scale == pitch
    assert Slide.open(cytassist).where.rule == {"L": "the 100 µm pitch of the Visium array"}
    # a part of the spots has the scale of all
    (part,) = Slide.open(cytassist[::7].copy()).scaled()
    assert part.mpp == pytest.approx(pitch.mpp, rel=1e-6)


def test_a_wrong_statement_about_a_real_run_raises_with_both_numbers(cytassist: Any) -> None:
    for options in ({"mpp": 0.5}, {"spot_pitch_um": 200}):
        with pytest.raises(
            ValueError, match=r"section 'L' disagree: .* by (mpp|spot_pitch_um)=.*, 4\.678 by the 100 µm"
        ):
            Slide.open(cytassist, **options).scaled()
    adata = cytassist.copy()
    adata.uns["spatial"]["L"]["scalefactors"]["fiducial_diameter_fullres"] *= 1.1
    with pytest.raises(
        ValueError, match=r"disagree: 4\.678 µm per pixel by .*pitch.*, 4\.252 by its fiducial diameter"
    ):
        Slide.open(adata).scaled()


# ------------------------------------------------------------------------------------------------- which one counts


def test_the_argument_counts_then_tiles_then_the_object() -> None:
    found, stated = (Scale(0.5, "object"),), Scale(0.51, "tiles")
    assert one_scale() is None
    assert one_scale(found=found) == found[0]
    assert one_scale(found=found, stated=stated) == stated
    assert one_scale(found=found, stated=stated, mpp=0.52) == Scale(0.52, "mpp=…")
    assert one_scale(spot_pitch_um=100) == Scale(100 / PITCH, "spot_pitch_um=100")
    assert one_scale(spot_pitch_um=100, mpp=1.2) == Scale(1.2, "mpp=…")


def test_an_object_that_was_changed_after_tiles_were_laid_is_refused() -> None:
    stated, found = Scale(0.5, "sw.pp.tiles"), (Scale(1.0, "microns_per_pixel"),)
    with pytest.raises(
        ValueError, match=r"sw.pp.tiles recorded 0\.5 .* now states 1 by microns_per_pixel\. Run sw\.pp\.tiles again"
    ):
        one_scale(found=found, stated=stated)


def test_a_mapping_names_sections_or_images() -> None:
    assert one_scale(mpp={"S": 0.3, "he": 0.4}) == Scale(0.3, "mpp=…")
    assert one_scale(mpp={"he": 0.4}) == Scale(0.4, "mpp=…")
    assert one_scale(mpp={"other": 0.4}) is None
    assert one_scale(mpp={"other": 0.4}, found=[Scale(0.5, "object")]) == Scale(0.5, "object")


def test_two_rules_that_disagree_by_more_than_five_per_cent_raise_with_both_numbers() -> None:
    assert one_scale(mpp=0.52, found=[Scale(0.5, "the scanner")]) == Scale(0.52, "mpp=…")
    with pytest.raises(
        ValueError,
        match=r"section 'S' disagree: 0\.53 µm per pixel by mpp=…, 0\.5 by the scanner\. Leave out the argument",
    ):
        one_scale(mpp=0.53, found=[Scale(0.5, "the scanner")])
    with pytest.raises(ValueError, match=r"disagree: 0\.5 .* by one, 0\.45 by two\. Say which one is right with mpp=…"):
        one_scale(found=[Scale(0.5, "one"), Scale(0.45, "two")])


def test_the_caller_settles_it_between_two_statements_of_the_object() -> None:
    found = [Scale(0.5, "one"), Scale(0.25, "two")]
    assert one_scale(mpp=0.25, found=found) == Scale(0.25, "mpp=…")
    with pytest.raises(ValueError, match=r"disagree: 0\.4 .* by mpp=…, 0\.5 by one"):
        one_scale(mpp=0.4, found=found)
    # also where it was told to tiles, and not where these took it from the object
    assert one_scale(stated=Scale(0.25, "mpp=…"), found=found) == Scale(0.25, "mpp=…")
    with pytest.raises(ValueError, match="the object now states 0.25 by two"):
        one_scale(stated=Scale(0.5, "one"), found=found)


def test_a_number_that_is_no_scale_is_refused() -> None:
    for magnification in (20, 40, 40.0):
        with pytest.raises(ValueError, match=f"mpp={magnification:g} looks like the magnification of an objective"):
            one_scale(mpp=magnification)
    for wrong in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="mpp must be a positive number"):
            one_scale(mpp=wrong)
        with pytest.raises(ValueError, match="spot_pitch_um must be a positive number"):
            one_scale(spot_pitch_um=wrong)


def test_a_pitch_needs_places() -> None:
    """A section without an image has no pixels; what is wrong with it is said later."""
    assert one_scale(spot_pitch_um=100, xy_px=np.full((4, 2), np.nan)) is None


# ------------------------------------------------------------------------------------------------- Visium in a SpatialData


def spots_of_sdata(kind: str, diameter_px: float) -> Any:
    """Spots of an array as circles beside an image that is not registered to microns."""
    import geopandas as gpd
    from shapely import Point
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, ShapesModel, TableModel

    obs, xy = array(kind)
    circles = gpd.GeoDataFrame({"radius": np.full(len(xy), diameter_px / 2)}, geometry=[Point(p) for p in xy])
    table = ad.AnnData(
        np.zeros((len(xy), 1), np.float32),
        obs=obs.assign(region="spots", spot=range(len(xy))).set_index(obs.index.astype(str)),
    )
    return SpatialData(
        images={"he": Image2DModel.parse(np.zeros((3, 64, 64), np.uint8), c_coords=["r", "g", "b"])},
        shapes={"spots": ShapesModel.parse(circles)},
        tables={"table": TableModel.parse(table, region="spots", region_key="region", instance_key="spot")},
    )


def test_a_visium_array_in_a_spatialdata_states_its_pitch() -> None:
    (section,) = Slide.open(spots_of_sdata("hexagonal", 0.65 * PITCH)).scaled()
    assert section.mpp == pytest.approx(100 / PITCH)


def test_a_visium_array_contradicts_a_system_of_microns() -> None:
    from spatialdata.transformations import Scale as Factor
    from spatialdata.transformations import set_transformation

    data = spots_of_sdata("hexagonal", 0.65 * PITCH)
    set_transformation(data["he"], Factor([1.25, 1.25], axes=("x", "y")), "microns")
    (section,) = Slide.open(data).scaled()
    assert section.scale == Scale(1.25, "coordinate system 'microns'")
    set_transformation(data["he"], Factor([1.0, 1.0], axes=("x", "y")), "microns")
    with pytest.raises(ValueError, match=r"disagree: 1 .* by coordinate system 'microns', 1\.25 by the 100 µm pitch"):
        Slide.open(data).scaled()


@pytest.mark.parametrize(("kind", "diameter_px"), [("square", 0.65 * PITCH), ("hexagonal", PITCH)])
def test_other_circles_in_a_spatialdata_state_no_scale(kind: str, diameter_px: float) -> None:
    with pytest.raises(ValueError, match="not known"):
        Slide.open(spots_of_sdata(kind, diameter_px)).scaled()


def test_the_rule_of_a_scale_that_the_object_states_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    def section(scale: Scale | None, pixel: GivenPixel = GivenPixel()) -> Section:
        return Section("A", np.empty(0, np.int64), np.empty((0, 2)), None, scale, pixel=pixel)

    given, image = Scale(0.25, "mpp=…"), GivenPixel("pixel of image 'he'", "image 'he' (100 x 60 pixels)")
    say_scales([section(Scale(0.5, "coordinate system 'microns'"), image), section(given), section(None)])
    assert "Scale of A: 0.5 µm per pixel by coordinate system 'microns'." in capsys.readouterr().err
    say_scales([section(given), section(Scale(0.25, "spot_pitch_um=100"), image)])
    assert capsys.readouterr().err == ""
    # the caller may have meant the pixels of another image
    say_scales([section(given, image)])
    assert "Scale of A: 0.25 µm per pixel of image 'he' (100 x 60 pixels) by mpp=…." in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------- what files state


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"PhysicalSizeX": "0.25", "PhysicalSizeY": "0.5"}, (0.25, 0.5)),
        ({"PhysicalSizeX": "250", "PhysicalSizeXUnit": "nm"}, (0.25, 0.25)),
        ({"PhysicalSizeX": "2.5e-7", "PhysicalSizeXUnit": "m"}, (0.25, 0.25)),
        ({"PhysicalSizeX": "1", "PhysicalSizeXUnit": "pixel", "PhysicalSizeYUnit": "pixel"}, None),
        ({"PhysicalSizeX": "0"}, None),
        ({"PhysicalSizeX": "nan", "PhysicalSizeY": "what"}, None),
        ({}, None),
    ],
)
def test_ome_states_lengths_in_any_unit(attributes: dict[str, str], expected: tuple[float, float] | None) -> None:
    from spatialwhisperer._access.elements.pixel_size import of_ome

    found = of_ome(attributes)
    assert (found is None) == (expected is None)
    if found is not None:
        assert (found.x, found.y) == pytest.approx(expected)


def test_only_a_resolution_of_a_microscope_is_a_scale() -> None:
    from spatialwhisperer._access.elements.pixel_size import of_openslide, of_resolution

    kept = {dpi for dpi in (72, 96, 300, 600, 1200, 25_400, 50_800, 101_600) if of_resolution(dpi, dpi, 25_400, "dpi")}
    assert kept == {25_400, 50_800, 101_600}
    assert of_resolution(0, "x", 1.0, "") is None
    assert of_openslide({"openslide.mpp-x": "0.25"}) is None
    found = of_openslide({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.26"})
    assert found is not None
    assert found.scale.mpp == pytest.approx(0.255, rel=1e-3)
