from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer._access.sections.choice import pictures, the_image
from spatialwhisperer._access.sections.regions import image_scales, region_codes, region_positions
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._messages import SpatialWhispererWarning


def test_rows_follow_the_table_not_the_shapes(build: Any) -> None:
    data = build.one(tables={"table": build.table({"spots": ["i2", "i0"]})})
    (section,) = Slide.open(data, mpp=1).scaled()
    assert section.name == "spots"
    assert section.rows.tolist() == [0, 1]
    assert np.allclose(section.xy_px, build.XY[[2, 0]])
    assert section.coordinate_system == "S"


def test_several_regions_interleaved_in_one_table(build: Any) -> None:
    xy, other, maps = build.XY, build.XY + 5, build.maps
    annotation = build.table({"a": ["i0", "i1"], "b": ["i0", "i2"]})[[2, 0, 3, 1]].copy()
    data = build.sdata(
        images={"a_he": build.image(build.RGB, maps(A=1.0)), "b_he": build.image(build.RGB, maps(B=2.0))},
        shapes={"a": build.spots(xy, maps(A=1.0)), "b": build.spots(other, maps(B=1.0))},
        tables={"table": annotation},
    )
    slide = Slide.open(data, mpp={"a": 0.5, "b_he": 0.25})
    assert slide.sections.tolist() == region_codes(annotation).tolist() == ["b", "a", "b", "a"]
    by_name = {section.name: section for section in slide.scaled()}
    assert by_name["a"].rows.tolist() == [1, 3]
    assert by_name["b"].rows.tolist() == [0, 2]
    assert np.allclose(by_name["b"].xy_px, other[[0, 2]] / 2)
    assert (by_name["a"].mpp, by_name["b"].mpp) == (0.5, 0.25)
    assert by_name["b"].image is not None
    assert by_name["b"].image.name == "b_he"


def test_labels_in_a_scaled_system(build: Any) -> None:
    from spatialdata.models import Labels2DModel

    pixels = np.zeros((30, 50), np.int64)
    pixels[4:8, 10:14] = 3
    pixels[20:22, 40:44] = 9
    labels = Labels2DModel.parse(pixels, dims=("y", "x"), transformations=build.maps(S=2.0))
    data = build.sdata(
        images={"he": build.image(build.RGB, build.maps(S=1.0))},
        labels={"cells": labels},
        tables={"table": build.table({"cells": [9, 3]})},
    )
    (section,) = Slide.open(data, mpp=1).scaled()
    assert section.xy_px.tolist() == [[84, 42], [24, 12]]
    # in the frame of the labels themselves
    assert region_positions(data, data.tables["table"], region_codes(data.tables["table"])).tolist() == [
        [42, 21],
        [12, 6],
    ]


def test_what_is_ambiguous_or_missing_is_said(build: Any) -> None:
    one, image, maps, spots = build.one, build.image, build.maps, build.spots
    he = image(build.RGB, maps(S=1.0))
    twice = one(images={"he": he, "again": image(build.RGB, maps(S=1.0))})
    elsewhere = one(images={"he": image(build.RGB, maps(T=1.0))})
    doubtful = one(
        images={"he": image(build.RGB, maps(S=1.0, T=3.0))},
        shapes={"spots": spots(build.XY, maps(S=1.0, T=1.0))},
    )
    unlinked = one(tables={"table": ad.AnnData(np.zeros((2, 1), np.float32))})
    cases: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (twice, {}, ValueError, "Several images share"),
        (elsewhere, {}, KeyError, "no H&E image"),
        (elsewhere, {"image_key": "he"}, ValueError, "share no coordinate system"),
        (one(), {"coordinate_system": "T", "image_key": "he"}, ValueError, "coordinate_system='T' is not shared"),
        (one(), {"image_key": "nope"}, KeyError, "image_key='nope' is not an image"),
        (one(tables={"table": build.table({"spots": ["i0", "gone"]})}), {}, KeyError, "such as gone"),
        (one(tables={"table": build.table({"else": ["i0"]})}), {}, KeyError, "annotates 'else'"),
        (unlinked, {}, ValueError, "annotates no element"),
        (one(), {"library_key": "where"}, ValueError, "library_key applies to AnnData"),
        (doubtful, {}, ValueError, "matched differently"),
    ]
    for data, arguments, error, text in cases:
        with pytest.raises(error, match=text):
            Slide.open(data, mpp=1.0, **arguments).scaled()
    (section,) = Slide.open(doubtful, mpp=1.0, coordinate_system="T").scaled()
    assert np.allclose(section.xy_px, build.XY / 3)
    (blind,) = Slide.open(one(images={})).frames
    assert blind.image is None
    assert np.isnan(blind.xy_px).all()


@pytest.mark.parametrize("kind", ["shapes", "labels"])
@pytest.mark.parametrize("regions", [["a"], ["a", "b"]])
def test_the_call_that_is_named_leaves_out_rows_of_what_was_cut_away(build: Any, kind: str, regions: list[str]) -> None:
    """Of another region, or of instances of this one."""
    import spatialdata
    from spatialdata.models import Labels2DModel

    maps = build.maps(S=1.0)
    pixels = np.zeros((30, 50), np.int64)
    pixels[4:8, 10:14] = 3
    made: dict[str, tuple[Any, list[Any]]] = {
        "shapes": (build.spots(build.XY, maps).iloc[:2], ["i1", "i0"]),
        "labels": (Labels2DModel.parse(pixels, dims=("y", "x"), transformations=maps), [3]),
    }
    element, kept = made[kind]
    sdata = build.sdata(
        images={"he": build.image(build.RGB, maps)},
        tables={"own": build.table(dict.fromkeys(regions, ["i2", "i1", "i0"] if kind == "shapes" else [9, 3]))},
        **{kind: {"a": element}},
    )
    with pytest.raises(KeyError, match="Leave such rows out: ") as caught:
        Slide.open(sdata, mpp=1).frames  # noqa: B018
    call = str(caught.value.args[0]).split("Leave such rows out: ")[1].removesuffix(".")
    exec(call, {"sdata": sdata, "spatialdata": spatialdata})
    (section,) = Slide.open(sdata, mpp=1).frames
    assert section.name == "a"
    assert len(section.rows) == len(kept)
    assert sorted(sdata["own"].obs["which"]) == sorted(kept)


def test_a_table_of_which_nothing_is_left_names_another_remedy(build: Any) -> None:
    sdata = build.one(tables={"table": build.table({"gone": ["i0"]})})
    with pytest.raises(KeyError, match=r"annotates 'gone'.*Add it under this name, or leave the table out"):
        Slide.open(sdata, mpp=1).frames  # noqa: B018


def test_an_image_may_be_chosen_for_each_region(build: Any) -> None:
    maps, table = build.maps(S=1.0), build.table({"a": ["i0"], "b": ["i1"]})
    data = build.sdata(
        images={"one": build.image(build.RGB, maps), "two": build.image(build.RGB, maps)},
        shapes={"a": build.spots(build.XY, maps), "b": build.spots(build.XY, maps)},
        tables={"table": table},
    )
    got = Slide.open(data, mpp=1, image_key={"a": "two", "b": "one"}).where
    assert got.image == {"a": "two", "b": "one"}


def test_two_images_in_a_system_of_a_region_are_ambiguous_however_many_they_have(build: Any) -> None:
    maps = build.maps
    spots = build.spots(build.XY, maps(S=1.0, T=1.0))
    images = {"one": build.image(build.RGB, maps(S=1.0)), "two": build.image(build.RGB, maps(S=1.0, T=1.0))}
    with pytest.raises(ValueError, match="Several images share a coordinate system with 'spots': one, two"):
        Slide.open(build.one(images=images, shapes={"spots": spots}), mpp=1).frames  # noqa: B018
    # in the default system other sections may lie too
    images = {"one": build.image(build.RGB, maps(**{"global": 1.0})), "two": build.image(build.RGB, maps(T=1.0))}
    spots = build.spots(build.XY, maps(**{"global": 1.0}, T=1.0))
    (section,) = Slide.open(build.one(images=images, shapes={"spots": spots}), mpp=1).frames
    assert section.image is not None
    assert section.image.name == "two"
    del images["two"]
    (section,) = Slide.open(build.one(images=images, shapes={"spots": spots}), mpp=1).frames
    assert section.image is not None
    assert section.image.name == "one"


def test_sections_that_are_aligned_with_each_other_have_their_own_images(build: Any) -> None:
    both = {name: build.maps(**{name: 1.0, "stack": 1.0}) for name in ("a", "b")}
    data = build.sdata(
        images={f"{name}_he": build.image(build.RGB, maps) for name, maps in both.items()},
        shapes={name: build.spots(build.XY, maps) for name, maps in both.items()},
        tables={"table": build.table({"a": ["i0"], "b": ["i1"]})},
    )
    assert Slide.open(data, mpp=1).where.image == {"a": "a_he", "b": "b_he"}


def test_coordinate_systems_disagree_where_they_move_the_image(build: Any) -> None:
    turn = np.array([[0.94, -0.342, 0], [0.342, 0.94, 0], [0, 0, 1]])

    def placed(other: Any) -> Any:
        return build.one(
            images={"he": build.image(build.RGB, build.maps(S=1.0, T=other))},
            shapes={"spots": build.spots(build.XY, build.maps(S=1.0, T=1.0))},
        )

    for other in (1.3, 1.02, turn):
        with pytest.raises(ValueError, match=r"matched differently in the coordinate systems S, T"):
            Slide.open(placed(other), mpp=1.0).frames  # noqa: B018
    # numbers that were rounded
    (section,) = Slide.open(placed(1.0005), mpp=1.0).frames
    assert section.coordinate_system == "S"


def test_instances_of_another_type_or_of_one_name_are_said(build: Any) -> None:
    from spatialdata.models import PointsModel

    spots = build.spots(build.XY, build.maps(S=1.0), index=[7, 8, 9])
    text = build.one(shapes={"spots": spots}, tables={"table": build.table({"spots": ["7", "8"]})})
    with pytest.raises(
        KeyError,
        match=r"such as 7, 8.* are string \(.*\) in the table and integer \(int64\) in 'spots'.*astype\('int64'\)",
    ):
        Slide.open(text, mpp=1).frames  # noqa: B018
    frame = pd.DataFrame({"x": build.XY[:, 0], "y": build.XY[:, 1]}, index=[4, 5, 4])
    points = PointsModel.parse(frame, coordinates={"x": "x", "y": "y"}, transformations=build.maps(S=1.0))
    twice = build.one(shapes={}, points={"spots": points}, tables={"table": build.table({"spots": [4, 5]})})
    with pytest.raises(ValueError, match="Instances of 'spots' have the same name: 4"):
        Slide.open(twice, mpp=1).frames  # noqa: B018


def test_a_mapping_with_a_name_that_is_no_section_is_refused_where_it_leaves_one_out(build: Any) -> None:
    data = build.one(images={"he": build.image(build.RGB, build.maps(S=1.0, microns=0.5))})
    with pytest.raises(
        KeyError, match=r"mpp names 'spot', which is no section .* nothing of spots \(sections: spots; images: he\)"
    ):
        Slide.open(data, mpp={"spot": 0.25}).frames  # noqa: B018
    with pytest.raises(KeyError, match=r"image_key names 'spot', which is no section .* \(sections: spots\)"):
        Slide.open(data, image_key={"spot": "he"}).frames  # noqa: B018
    # one mapping may serve several objects
    assert Slide.open(data, mpp={"spots": 0.5, "others": 2.0}).frames[0].mpp == 0.5
    assert Slide.open(data, mpp={"he": 0.5, "others": 2.0}).frames[0].mpp == 0.5


def test_all_systems_of_microns_are_compared(build: Any) -> None:
    data = build.one(images={"he": build.image(build.RGB, build.maps(S=1.0, microns=0.5, S_um=0.25))})
    with pytest.raises(
        ValueError, match=r"disagree: 0\.5 .*'microns', 0\.25 .*'S_um'\. Say which one is right with mpp=…"
    ):
        Slide.open(data).frames  # noqa: B018
    assert Slide.open(data, mpp=0.25).frames[0].mpp == 0.25
    # of the shapes alone
    spots = build.spots(build.XY, build.maps(S=1.0, P_um=0.4))
    data = build.one(images={"he": build.image(build.RGB, build.maps(S=1.0, microns=0.5))}, shapes={"spots": spots})
    with pytest.raises(ValueError, match=r"disagree: 0\.5 .*'microns', 0\.4 .*'P_um'"):
        Slide.open(data).frames  # noqa: B018


def test_scale_from_a_system_of_microns(build: Any) -> None:
    maps = build.maps
    for name, expected in (("microns", 0.25), ("S_um", 0.25), ("museum", None), ("S.micron", 0.25)):
        data = build.one(images={"he": build.image(build.RGB, maps(S=1.0, **{name: 0.25}))})
        got = Slide.open(data).frames[0].mpp
        assert got == (pytest.approx(expected) if expected else None), name
        assert [s.mpp for s in image_scales(data, "he")] == ([] if got is None else [got])
    # registered to microns are the shapes alone, and the image has another resolution
    shapes = build.spots(build.XY, maps(S=1.0, microns=0.5))
    data = build.one(images={"he": build.image(build.RGB, maps(S=2.0))}, shapes={"spots": shapes})
    assert Slide.open(data).frames[0].mpp == pytest.approx(1.0)
    assert image_scales(data, "he") == ()


def test_a_sheared_image_is_said(build: Any) -> None:
    shear = np.array([[0.5, 0.2, 0], [0, 0.5, 0], [0, 0, 1.0]])
    with pytest.warns(SpatialWhispererWarning, match="sheared on its way to microns"):
        image_scales(build.one(images={"he": build.image(build.RGB, build.maps(microns=shear))}), "he")


def test_pixels_that_are_no_squares_have_the_scale_of_their_area_and_a_stretch(build: Any) -> None:
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    for matrix in (np.diag([0.5, 2.0, 1]), turn @ np.diag([0.5, 2.0, 1])):
        image = build.image(build.RGB, build.maps(S=1.0, microns=matrix))
        (section,) = Slide.open(build.one(images={"he": image})).frames
        assert section.scale is not None
        assert (section.mpp, section.scale.stretch) == (pytest.approx(1.0), pytest.approx(0.25))
        assert section.pixel_um(1.0) == (pytest.approx(0.5), pytest.approx(2.0))
    # without microns, the system that places the spots on the image tells
    stretched = build.image(build.RGB, build.maps(S=np.diag([2.0, 1.0, 1])))
    (section,) = Slide.open(build.one(images={"he": stretched}), mpp=0.7).frames
    assert section.scale is not None
    assert (section.mpp, section.scale.stretch) == (0.7, 2.0)
    # and a pitch is measured in squares
    grid = np.stack(np.meshgrid(np.arange(10.0), np.arange(10.0)), -1).reshape(-1, 2) * 5
    data = build.one(
        images={"he": stretched},
        shapes={"spots": build.spots(grid, build.maps(S=1.0))},
        tables={"table": build.table({"spots": [f"i{k}" for k in range(100)]})},
    )
    (section,) = Slide.open(data, spot_pitch_um=100).frames
    assert section.mpp == pytest.approx(20 * 2**0.5)


def test_of_one_picture_at_several_resolutions_the_finest_is_read(build: Any) -> None:
    maps, smooth = build.maps, np.kron(build.RGB[:, ::10, ::10], np.ones((1, 10, 10), np.uint8))
    images = {
        "hires": build.image(smooth[:, ::2, ::2], maps(S=2.0, hires=1.0)),
        "full": build.image(smooth, maps(S=1.0)),
    }
    shapes = {"spots": build.spots(build.XY, maps(S=1.0, hires=0.5))}
    data = build.one(images=images, shapes=shapes)
    (section,) = Slide.open(data, mpp=1).frames
    assert section.image is not None
    assert section.image.name == "full"
    assert np.allclose(section.xy_px, build.XY)
    assert the_image(data, None) == "full"
    assert pictures(data) == ["full"]
    # the other can still be named
    (section,) = Slide.open(data, mpp=1, image_key="hires").frames
    assert np.allclose(section.xy_px, build.XY / 2)
    data.images["hires"] = build.image(255 - smooth[:, ::2, ::2], maps(S=2.0, hires=1.0))
    with pytest.raises(ValueError, match=r"hires, full\. They do not show one picture at several resolutions"):
        Slide.open(data, mpp=1).frames  # noqa: B018
    assert set(pictures(data)) == {"full", "hires"}
