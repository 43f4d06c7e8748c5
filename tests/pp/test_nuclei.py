from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely

import spatialwhisperer as sw
from spatialwhisperer.pp._nuclei import canvas, finding
from tests.pp.nuclei_slides import Drawn, draw, found_at, slide_of


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    return draw(500, 640)


@pytest.fixture
def slide(drawn: Drawn) -> Any:
    return slide_of(drawn.image)


def find(image: np.ndarray, **options: Any) -> Any:
    return sw.pp.nuclei(slide_of(image, mpp=options.pop("mpp", 0.5)), inplace=False, **options)


@pytest.fixture(scope="module")
def found(drawn: Drawn) -> Any:
    return find(drawn.image)


def same(a: Any, b: Any) -> bool:
    """Whether two results hold the same nuclei, in the same order."""
    return len(a) == len(b) and bool(shapely.equals_exact(a.geometry.to_numpy(), b.geometry.to_numpy(), 1e-9).all())


# ------------------------------------------------------------------------------------------- what is found


def test_every_drawn_nucleus_is_found_once_and_nothing_else(drawn: Drawn, found: Any) -> None:
    at = found_at(found, drawn.centres)
    assert len(found) == len(drawn.centres)
    assert sorted(at) == list(range(len(found)))


def test_areas_are_those_that_were_drawn(drawn: Drawn, found: Any) -> None:
    ratio = found["area_um2"].to_numpy()[found_at(found, drawn.centres)] / drawn.area_um2
    assert abs(np.median(ratio) - 1) < 0.05
    assert (np.abs(ratio - 1) < 0.25).all()
    outline = shapely.area(found.geometry.to_numpy()) * 0.25
    np.testing.assert_allclose(outline, found["area_um2"], rtol=0.05)


def test_a_finer_scan_of_the_same_tissue_gives_the_same_nuclei() -> None:
    coarse, fine = draw(400, 400, mpp=0.5), draw(800, 800, mpp=0.25)
    a, b = find(coarse.image), find(fine.image, mpp=0.25)
    assert len(a) == len(coarse.centres)
    assert len(b) == len(fine.centres)
    assert abs(b["area_um2"].median() / np.median(fine.area_um2) - 1) < 0.06


def test_measures_describe_shape_and_stain() -> None:
    y, x = np.mgrid[:200, :200]
    image = np.full((3, 200, 200), 240, np.uint8)
    image[:, (x - 60) ** 2 + (y - 60) ** 2 <= 12**2] = np.array([[90], [60], [140]], np.uint8)
    image[:, ((x - 130) / 24) ** 2 + ((y - 130) / 8) ** 2 <= 1] = np.array([[140], [120], [180]], np.uint8)
    circle, ellipse = (row for _, row in find(image).iterrows())
    assert circle["eccentricity"] < 0.2
    assert ellipse["eccentricity"] == pytest.approx(np.sqrt(1 - (8 / 24) ** 2), abs=0.03)
    assert min(circle["solidity"], ellipse["solidity"]) > 0.93
    assert circle["haematoxylin"] > ellipse["haematoxylin"] > 0.1


def stretched(image: np.ndarray, width_um: float, height_um: float, system: str = "microns") -> Any:
    from spatialdata.transformations import Scale, set_transformation

    slide = slide_of(image, mpp=None)
    set_transformation(slide["he"], {system: Scale([width_um, height_um], axes=("x", "y"))}, set_all=True)
    return slide


def test_pixels_that_are_no_squares_are_averaged_to_squares(drawn: Drawn, found: Any) -> None:
    wide: Any = sw.pp.nuclei(stretched(np.repeat(drawn.image, 2, axis=2), 0.25, 0.5), inplace=False)
    pd.testing.assert_frame_equal(
        wide.drop(columns=["geometry", "image"]), found.drop(columns=["geometry", "image"]), check_exact=False
    )
    assert same(wide.set_geometry(wide.geometry.scale(0.5, 1, origin=(0, 0))), found)


def test_nuclei_are_measured_in_microns_where_pixels_stay_uneven() -> None:
    fine = draw(500, 500, mpp=0.3)
    squares = find(fine.image, mpp=0.3)
    halved = fine.image.reshape(3, 500, 250, 2).mean(axis=3).astype(np.uint8)
    uneven: Any = sw.pp.nuclei(stretched(halved, 0.6, 0.3), inplace=False)
    assert len(uneven) == len(squares)
    for name in ("area_um2", "eccentricity", "solidity"):
        assert uneven[name].median() == pytest.approx(squares[name].median(), rel=0.08), name


def test_nuclei_on_uneven_pixels_keep_their_proportions_in_microns(drawn: Drawn) -> None:
    from spatialdata.transformations import get_transformation

    slide = stretched(np.repeat(drawn.image, 2, axis=2), 1.0, 2.0, system="S")
    sw.pp.nuclei(slide, mpp=0.125**0.5)
    scale = get_transformation(slide["nuclei"], "he_microns").to_affine_matrix(("x", "y"), ("x", "y"))
    assert np.diag(scale) == pytest.approx([0.25, 0.5, 1])


def test_two_nuclei_that_touch_are_divided() -> None:
    y, x = np.mgrid[:120, :120]
    image = np.full((3, 120, 120), 240, np.uint8)
    for centre in (50, 67):
        image[:, (x - centre) ** 2 + (y - 60) ** 2 <= 9**2] = 90
    assert len(find(image)) == 2


def test_sizes_outside_the_range_are_left_out(drawn: Drawn, found: Any) -> None:
    middle = float(found["area_um2"].median())
    larger = find(drawn.image, min_area_um2=middle)
    smaller = find(drawn.image, max_area_um2=middle)
    assert larger["area_um2"].min() >= middle >= smaller["area_um2"].max()
    assert 0.3 * len(found) < len(larger) < 0.7 * len(found)


# ------------------------------------------------------------------------------------- what must not matter


def test_the_parts_of_the_image_and_threads_do_not_matter(drawn: Drawn, found: Any, monkeypatch: Any) -> None:
    for core, workers in ((130, 0), (211, 3), (5000, 1)):
        monkeypatch.setattr(finding, "CORE_PX", core)
        monkeypatch.setattr(finding, "_workers", lambda n=workers: n)
        other = find(drawn.image)
        assert same(found, other)
        pd.testing.assert_frame_equal(
            pd.DataFrame(found.drop(columns="geometry")), pd.DataFrame(other.drop(columns="geometry")), check_exact=True
        )


def test_chunks_and_pyramids_do_not_matter(drawn: Drawn, found: Any, build: Any) -> None:
    assert same(found, sw.pp.nuclei(slide_of(drawn.image, chunks=97), inplace=False))
    assert same(found, sw.pp.nuclei(build.spatialdata(drawn.image, multiscale=True), inplace=False))


def test_a_sample_of_a_large_slide_is_enough_for_the_stain(drawn: Drawn, found: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(canvas, "_WHOLE_PX", 1)
    monkeypatch.setattr(canvas, "_SAMPLE_PX", 64)
    monkeypatch.setattr(canvas, "_N_SAMPLES", 12)
    sampled = find(drawn.image)
    assert len(sampled) == len(found)
    assert abs(sampled["area_um2"].median() / found["area_um2"].median() - 1) < 0.03
    with pytest.raises(ValueError, match="no nucleus"):
        find(np.full((3, 200, 200), 250, np.uint8))


@pytest.mark.parametrize("turn", [lambda a: a[:, ::-1], lambda a: a[:, :, ::-1], lambda a: np.rot90(a, axes=(1, 2))])
def test_a_turned_slide_has_the_same_nuclei(drawn: Drawn, found: Any, turn: Any) -> None:
    turned = find(np.ascontiguousarray(turn(drawn.image)))
    assert len(turned) == len(found)
    for name in ("area_um2", "eccentricity", "haematoxylin"):
        np.testing.assert_allclose(np.sort(turned[name]), np.sort(found[name]), rtol=1e-3)


def test_paler_stain_and_a_darker_lamp_do_not_matter(drawn: Drawn, found: Any) -> None:
    paler = 240 * (drawn.image.astype(float).clip(1) / 240) ** 0.6
    darker = drawn.image * 0.8
    for image in (paler, darker):
        other = find(image.clip(0, 255).astype(np.uint8))
        assert len(other) == len(found)
        assert abs(other["area_um2"].median() / found["area_um2"].median() - 1) < 0.05


def test_other_tissue_on_the_slide_does_not_matter(drawn: Drawn) -> None:
    """The reference is one number of the whole slide: a half has nearly the same one."""
    half = find(drawn.image[:, :, :320].copy())
    whole = find(drawn.image)
    inside = whole[whole.geometry.centroid.x < 300]
    assert abs(len(half[half.geometry.centroid.x < 300]) - len(inside)) <= 1


@pytest.mark.parametrize("colour", [0, 255])
def test_a_margin_of_one_colour_does_not_matter(drawn: Drawn, found: Any, colour: int) -> None:
    framed = find(np.pad(drawn.image, ((0, 0), (0, 0), (0, 200)), constant_values=colour))
    assert same(found, framed[framed.geometry.centroid.x < drawn.image.shape[2]])


# --------------------------------------------------------------------------------- images that hold no nuclei


@pytest.mark.parametrize("shape", [(1, 1), (1, 60), (300, 300)])
@pytest.mark.parametrize("value", [120, 255])
def test_an_image_of_one_colour_has_no_nucleus(shape: tuple[int, int], value: int) -> None:
    with pytest.raises(ValueError, match=r"no nucleus of 16 to 400 µm² on he, at 0.5 µm per pixel"):
        find(np.full((3, *shape), value, np.uint8))


def test_an_image_that_holds_nothing_or_12_bit_values_is_refused(drawn: Drawn) -> None:
    with pytest.raises(ValueError, match="is black"):
        find(np.zeros((3, 60, 60), np.uint8))
    with pytest.raises(ValueError, match="12-bit"):
        find(drawn.image.astype(np.uint16) * 16)


def test_a_large_image_is_looked_at_in_places(monkeypatch: Any) -> None:
    from spatialwhisperer._access.tiles import intensity

    monkeypatch.setattr(intensity, "_WHOLE_PX", 1)
    with pytest.raises(ValueError, match="is black"):
        find(np.zeros((3, 600, 600), np.uint8))
    assert len(find(draw(300, 400).image)) > 30


def test_noise_on_the_background_is_no_nucleus() -> None:
    noise = np.random.default_rng(0).normal(242, 4, (3, 400, 400)).clip(0, 255).astype(np.uint8)
    with pytest.raises(ValueError, match="no nucleus"):
        find(noise)


@pytest.mark.parametrize("ink", [(20, 20, 60), (60, 60, 160), (10, 60, 20)])
def test_a_line_of_a_pen_is_no_nucleus(drawn: Drawn, found: Any, ink: tuple[int, int, int]) -> None:
    image = drawn.image.copy()
    rng = np.random.default_rng(0)
    image[:, 20:60] = (np.array(ink)[:, None, None] + rng.normal(0, 2, (3, 40, 640))).clip(21, 255).astype(np.uint8)
    marked = find(image)
    assert not (marked.geometry.centroid.y < 80).any()
    assert len(marked) == len(found)


def test_a_masked_background_is_no_nucleus(drawn: Drawn, found: Any) -> None:
    image = drawn.image.copy()
    image[:, :90] = 0
    assert same(found, find(image)) or len(find(image)) == len(found)


def test_a_coarse_image_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"0.75 µm per pixel or finer, and image 'he' has 3.19"):
        sw.pp.nuclei(slide_of(np.zeros((3, 50, 50), np.uint8), mpp=3.19))
    assert len(find(draw(250, 250, mpp=0.7).image, mpp=0.7)) > 20
    with pytest.raises(ValueError, match="No microscope resolves 0.001 µm per pixel"):
        find(np.full((3, 50, 50), 200, np.uint8), mpp=0.001)


# ---------------------------------------------------------------------------------------- what is written


def test_shapes_and_a_table_are_written(slide: Any, drawn: Drawn) -> None:
    sw.pp.nuclei(slide)
    table = slide["nuclei_table"]
    assert list(table.obs) == ["region", "instance_id", "area_um2", "eccentricity", "solidity", "haematoxylin"]
    assert table.n_obs == len(slide["nuclei"]) == len(drawn.centres)
    centres = slide["nuclei"].geometry.centroid
    np.testing.assert_allclose(table.obsm["spatial"], np.column_stack([centres.x, centres.y]))
    assert "nuclei_table" in str(slide)


def test_circles_have_the_area_of_the_outlines(slide: Any) -> None:
    sw.pp.nuclei(slide, polygons=False, key_added="cells")
    circles, table = slide["cells"], slide["cells_table"]
    np.testing.assert_allclose(np.pi * circles["radius"] ** 2 * 0.25, table.obs["area_um2"].to_numpy(), rtol=0.05)


def test_later_calls_know_the_scale_that_was_given(drawn: Drawn) -> None:
    slide = slide_of(drawn.image, mpp=None)
    with pytest.raises(ValueError, match="microns per pixel of section 'he' are not known"):
        sw.pp.nuclei(slide)
    sw.pp.nuclei(slide, mpp=0.5)
    features = sw.pp.embed_images(slide, tile_um=20, table_key="nuclei_table", inplace=False)
    assert features is not None
    assert features.shape[0] == slide["nuclei_table"].n_obs


def test_each_image_has_shapes_of_its_own(drawn: Drawn, build: Any) -> None:
    half = drawn.image[:, :, :320].copy()
    slide = build.spatialdata({"A": drawn.image, "B": half})
    sw.pp.nuclei(slide)
    counts = slide["nuclei_table"].obs["region"].value_counts()
    assert set(counts.index) == {"A_image_nuclei", "B_image_nuclei"}
    assert counts["A_image_nuclei"] == len(slide["A_image_nuclei"]) > counts["B_image_nuclei"]
    one: Any = sw.pp.nuclei(slide, image_key="B_image", key_added="b", inplace=False)
    assert set(one["image"]) == {"B_image"}


def test_an_anndata_gets_a_frame(drawn: Drawn, found: Any, build: Any) -> None:
    adata = build.visium({"L": drawn.image}, {"L": drawn.centres[:3]})
    with pytest.raises(ValueError, match="inplace=False"):
        sw.pp.nuclei(adata, mpp=0.5)
    assert same(found, sw.pp.nuclei(adata, mpp=0.5, inplace=False))


def test_outlines_are_in_full_resolution_pixels_also_where_a_smaller_image_is_stored(
    drawn: Drawn, found: Any, build: Any
) -> None:
    adata = build.visium({"L": drawn.image}, {"L": drawn.centres[:3] * 2}, factor=0.5)
    hires: Any = sw.pp.nuclei(adata, mpp=0.25, inplace=False)
    assert len(hires) == len(found)
    np.testing.assert_allclose(shapely.area(hires.geometry), 4 * shapely.area(found.geometry), rtol=0.02)
    np.testing.assert_allclose(hires.geometry.centroid.x, 2 * found.geometry.centroid.x, atol=1)
    np.testing.assert_allclose(hires["area_um2"], found["area_um2"], rtol=0.02)


def test_shapes_lie_on_the_image_in_every_coordinate_system(drawn: Drawn, build: Any) -> None:
    from spatialdata.transformations import get_transformation

    turned = np.array([[0.0, -2.0, 100.0], [2.0, 0.0, 7.0], [0.0, 0.0, 1.0]])
    slide = build.spatialdata(drawn.image, image_map=turned)
    sw.pp.nuclei(slide, mpp=0.5)
    systems = get_transformation(slide["nuclei"], get_all=True)
    assert set(systems) == {"S", "S_image_microns"}
    np.testing.assert_allclose(systems["S"].to_affine_matrix(("x", "y"), ("x", "y")), turned)


def test_the_result_survives_a_round_trip(slide: Any, tmp_path: Any) -> None:
    import spatialdata as sd

    sw.pp.nuclei(slide)
    slide.write(tmp_path / "slide.zarr")
    read = sd.read_zarr(tmp_path / "slide.zarr")
    assert same(slide["nuclei"], read["nuclei"])
    pd.testing.assert_frame_equal(slide["nuclei_table"].obs, read["nuclei_table"].obs)


# ---------------------------------------------------------------------------------------- what is refused


def test_an_interrupted_call_writes_nothing(slide: Any, build: Any, monkeypatch: Any) -> None:
    before = build.state(slide)
    calls = []

    def interrupted(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return np.zeros(arguments[0].density.shape, np.int32)

    monkeypatch.setattr(finding, "CORE_PX", 200)
    monkeypatch.setattr(finding, "find_regions", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sw.pp.nuclei(slide)
    assert build.state(slide) == before


def test_a_table_that_cannot_be_added_takes_the_shapes_with_it(slide: Any, build: Any, monkeypatch: Any) -> None:
    before = build.state(slide)

    def refuse(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(type(slide.tables), "__setitem__", refuse)
    with pytest.raises(OSError, match="disk full"):
        sw.pp.nuclei(slide)
    monkeypatch.undo()
    assert build.state(slide) == before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "otsu"}, ValueError, "'watershed', 'instanseg'"),
        ({"min_area_um2": 0}, ValueError, "positive number"),
        ({"min_area_um2": 500}, ValueError, "above min_area_um2; found 400 and 500"),
        ({"min_area_um2": "a"}, TypeError, "min_area_um2"),
        ({"polygons": 1}, TypeError, "True or False"),
        ({"weights": "model.pt"}, ValueError, "belongs to method='instanseg'"),
        ({"key_added": "a/b"}, ValueError, "key_added"),
        ({"key_added": "he"}, ValueError, "already has an element named 'he'"),
        ({"image_key": "dapi"}, KeyError, "no image 'dapi'"),
        ({"mpp": 0.6}, ValueError, "disagree: 0.6"),
        ({"mpp": 40}, ValueError, "magnification"),
        ({"image_key": "he", "mpp": 1e-9}, ValueError, "disagree"),
        ({"coordinate_system": "nowhere"}, ValueError, "nowhere"),
        ({"spot_pitch_um": 100}, ValueError, "spot_pitch_um is about the rows of a table"),
        ({"table_key": "t"}, ValueError, "table_key is about"),
        ({"tile_um": 3}, TypeError, "tile_um"),
    ],
)
def test_wrong_arguments_are_refused_and_nothing_is_written(
    slide: Any, build: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    before = build.state(slide)
    with pytest.raises(error, match=message):
        sw.pp.nuclei(slide, **options)
    assert build.state(slide) == before


def test_a_second_call_needs_another_name(slide: Any) -> None:
    sw.pp.nuclei(slide)
    with pytest.raises(ValueError, match="already has elements named 'nuclei_table', 'nuclei'"):
        sw.pp.nuclei(slide)
    sw.pp.nuclei(slide, key_added="again")
    assert same(slide["nuclei"], slide["again"])


# -------------------------------------------------------------------------------------- the rest of the way


@pytest.mark.slow
def test_each_nucleus_is_labelled_and_drawn(simulated: Any, model: Any, labels: dict[str, str]) -> None:
    import matplotlib.pyplot as plt

    truth, edge = simulated.sections["P3"], 1000
    image = truth.images["P3_image"]["scale0"]["image"].to_numpy()
    start = image.shape[1] // 2 - edge // 2
    slide = slide_of(image[:, start : start + edge, start : start + edge])
    sw.pp.nuclei(slide)
    table = slide["nuclei_table"]
    sw.tl.zero_shot_annotate(slide, labels, model=model, table_key="nuclei_table")
    xy = np.column_stack([truth["P3_cells"].geometry.x, truth["P3_cells"].geometry.y]) - start
    here = ((xy > 10) & (xy < edge - 10)).all(axis=1)
    marks = truth["cells"].obs["cell_type"].astype(str).to_numpy()[here]
    at = found_at(slide["nuclei"], xy[here])
    inside = at >= 0
    assert inside.mean() > 0.85
    label = table.obs["sw_label"].astype(str).to_numpy()[at[inside]]
    recall = pd.Series(label == marks[inside]).groupby(marks[inside]).mean()
    # chance is one in five; a tile shows the surroundings of a nucleus too
    assert recall.mean() > 0.4
    axes = sw.pl.annotation(slide, table_key="nuclei_table")
    assert axes is not None
    plt.close("all")
