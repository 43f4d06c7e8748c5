from __future__ import annotations

import subprocess
import sys
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from spatialwhisperer import _access
from spatialwhisperer._access import (
    Level,
    find_image,
    get_table,
    image_mpp,
    read_pixels,
    rgb_names,
    sections,
    table_name,
)
from spatialwhisperer._messages import SpatialWhispererWarning

XY = np.array([[50.0, 20.0], [30.5, 41.2], [77.0, 22.0]])
RGB = np.random.default_rng(0).integers(0, 255, (3, 60, 100), dtype=np.uint8)


def image_element(pixels: np.ndarray, maps: dict[str, Any], **options: Any) -> Any:
    from spatialdata.models import Image2DModel

    return Image2DModel.parse(pixels, dims=("c", "y", "x"), transformations=maps, **options)


def spots(xy: np.ndarray, maps: dict[str, Any], index: Any = None) -> Any:
    from spatialdata.models import ShapesModel

    index = [f"i{k}" for k in range(len(xy))] if index is None else index
    return ShapesModel.parse(xy, geometry=0, radius=2.0, index=np.array(index), transformations=maps)


def table(regions: dict[str, list[Any]]) -> ad.AnnData:
    from spatialdata.models import TableModel

    obs = pd.DataFrame(
        {
            "where": pd.Categorical([region for region, ids in regions.items() for _ in ids]),
            "which": [i for ids in regions.values() for i in ids],
        },
        index=[f"{region}_{i}" for region, ids in regions.items() for i in ids],
    )
    adata = ad.AnnData(csr_matrix(np.ones((len(obs), 2), np.float32)), obs=obs)
    return TableModel.parse(adata, region=list(regions), region_key="where", instance_key="which")


def maps(**systems: Any) -> dict[str, Any]:
    """Coordinate systems by name: a factor, or an affine matrix."""
    from spatialdata.transformations import Affine, Scale

    xy = ("x", "y")
    return {
        name: Affine(value, input_axes=xy, output_axes=xy) if np.ndim(value) else Scale([value, value], xy)
        for name, value in systems.items()
    }


def sdata(**groups: Any) -> Any:
    import spatialdata as sd

    return sd.SpatialData(**groups)


def one(**changes: Any) -> Any:
    groups = {
        "images": {"he": image_element(RGB, maps(S=1.0))},
        "shapes": {"spots": spots(XY, maps(S=1.0))},
        "tables": {"table": table({"spots": ["i0", "i1", "i2"]})},
    }
    return sdata(**(groups | changes))


# ------------------------------------------------------------------------------------------------- tables


def test_table_is_found_by_name_or_because_it_is_the_only_one() -> None:
    annotation = table({"spots": ["i0"]})
    assert table_name(one()) == "table"
    assert table_name(sdata(tables={"other": annotation})) == "other"
    assert table_name(one(tables={"a": annotation, "table": annotation.copy()})) == "table"
    two = one(tables={"a": annotation, "b": annotation.copy()})
    assert get_table(two, "b") is two.tables["b"]
    with pytest.raises(KeyError, match="several tables"):
        table_name(two)
    with pytest.raises(KeyError, match="at='grid'"):
        table_name(sdata())
    with pytest.raises(KeyError, match="table_key='x'"):
        table_name(two, "x")
    adata = ad.AnnData(np.zeros((2, 1), np.float32))
    assert table_name(adata) is None
    assert get_table(adata) is adata
    with pytest.raises(TypeError, match="not dict"):
        get_table({})


def test_telling_the_types_apart_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom spatialwhisperer import _access\n"
        "assert not {'torch', 'spatialdata', 'anndata', 'dask', 'squidpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------------------------------- images


def test_pixels_outside_are_filled_and_types_become_uint8() -> None:
    level = Level(RGB, 1.0, 1.0)
    got = read_pixels(level, -2, -3, 5, 4)
    assert got.shape == (3, 7, 7)
    assert (got[:, :3] == 255).all()
    assert np.array_equal(got[:, 3:, 2:], RGB[:, :4, :5])
    assert (read_pixels(level, 200, 200, 210, 210, fill=7) == 7).all()
    for other in (RGB / np.float32(255), RGB.astype(np.uint16) * 257):
        assert np.array_equal(read_pixels(Level(other, 1, 1), 0, 0, 100, 60), RGB)
    with pytest.raises(ValueError, match=r"float image must hold values in \[0, 1\]"):
        read_pixels(Level(RGB.astype(np.float32), 1, 1), 0, 0, 10, 10)
    with pytest.raises(ValueError, match="int32"):
        read_pixels(Level(RGB.astype(np.int32), 1, 1), 0, 0, 10, 10)


def test_a_distributed_client_does_not_get_the_blocks() -> None:
    import dask
    import dask.array as da

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the default scheduler was used")

    level = Level(da.from_array(RGB, chunks=(3, 20, 20)), 1.0, 1.0)
    with dask.config.set(scheduler=refuse):
        assert np.array_equal(read_pixels(level, 0, 0, 100, 60), RGB)


def test_pyramids_and_libraries_have_levels() -> None:
    data = one(images={"he": image_element(RGB, maps(S=1.0), scale_factors=[2, 2])})
    image = find_image(data, "he")
    assert image.size_px == (100, 60)
    assert [level.scale_x for level in image.levels] == [1, 2, 4]
    adata = ad.AnnData(np.zeros((1, 1), np.float32))
    entry = {"hires": np.zeros((60, 100, 3), np.float32), "lowres": np.zeros((6, 10, 3), np.float32)}
    scales = {"tissue_hires_scalef": 0.1, "tissue_lowres_scalef": 0.01}
    adata.uns["spatial"] = {"L": {"images": entry, "scalefactors": scales}}
    image = find_image(adata, "L")
    assert image.size_px == pytest.approx((1000, 600))
    assert [level.scale_x for level in image.levels] == pytest.approx([10, 100])


def test_stacks_beside_the_he_image_are_no_obstacle() -> None:
    stack = np.zeros((7, 60, 100), np.uint8)
    data = one(images={"if": image_element(stack, maps(S=1.0)), "he": image_element(RGB, maps(S=1.0))})
    assert rgb_names(data) == ["he"]
    assert sections(data, mpp=1)[0].image.name == "he"
    with pytest.raises(ValueError, match="has 7 channels"):
        sections(data, mpp=1, image_key="if")


# ------------------------------------------------------------------------------------------------- sections


def test_rows_follow_the_table_not_the_shapes() -> None:
    data = one(tables={"table": table({"spots": ["i2", "i0"]})})
    (section,) = sections(data, mpp=1)
    assert section.name == "spots"
    assert section.rows.tolist() == [0, 1]
    assert np.allclose(section.xy_px, XY[[2, 0]])
    assert section.coordinate_system == "S"


def test_several_regions_interleaved_in_one_table() -> None:
    other = XY + 5
    annotation = table({"a": ["i0", "i1"], "b": ["i0", "i2"]})[[2, 0, 3, 1]].copy()
    data = sdata(
        images={"a_he": image_element(RGB, maps(A=1.0)), "b_he": image_element(RGB, maps(B=2.0))},
        shapes={"a": spots(XY, maps(A=1.0)), "b": spots(other, maps(B=1.0))},
        tables={"table": annotation},
    )
    by_name = {section.name: section for section in sections(data, mpp={"a": 0.5, "b_he": 0.25})}
    assert by_name["a"].rows.tolist() == [1, 3]
    assert by_name["b"].rows.tolist() == [0, 2]
    assert np.allclose(by_name["b"].xy_px, other[[0, 2]] / 2)
    assert (by_name["a"].mpp, by_name["b"].mpp) == (0.5, 0.25)
    assert by_name["b"].image.name == "b_he"


def test_labels_in_a_scaled_system() -> None:
    from spatialdata.models import Labels2DModel

    pixels = np.zeros((30, 50), np.int64)
    pixels[4:8, 10:14] = 3
    pixels[20:22, 40:44] = 9
    labels = Labels2DModel.parse(pixels, dims=("y", "x"), transformations=maps(S=2.0))
    data = sdata(
        images={"he": image_element(RGB, maps(S=1.0))},
        labels={"cells": labels},
        tables={"table": table({"cells": [9, 3]})},
    )
    (section,) = sections(data, mpp=1)
    assert section.xy_px.tolist() == [[84, 42], [24, 12]]


def test_what_is_ambiguous_or_missing_is_said() -> None:
    he = image_element(RGB, maps(S=1.0))
    cases = [
        (one(images={"he": he, "again": image_element(RGB, maps(S=1.0))}), {}, ValueError, "Several images share"),
        (one(images={"he": image_element(RGB, maps(T=1.0))}), {}, KeyError, "no H&E image"),
        (
            one(images={"he": image_element(RGB, maps(T=1.0))}),
            {"image_key": "he"},
            ValueError,
            "share no coordinate system",
        ),
        (one(), {"coordinate_system": "T", "image_key": "he"}, ValueError, "coordinate_system='T' is not shared"),
        (one(tables={"table": table({"spots": ["i0", "gone"]})}), {}, KeyError, "such as gone"),
        (one(tables={"table": table({"else": ["i0"]})}), {}, KeyError, "annotates 'else'"),
        (one(tables={"table": ad.AnnData(np.zeros((2, 1), np.float32))}), {}, ValueError, "annotates no element"),
        (
            one(images={"he": image_element(RGB, maps(S=1.0, T=3.0))}, shapes={"spots": spots(XY, maps(S=1.0, T=1.0))}),
            {},
            ValueError,
            "matched differently",
        ),
    ]
    for data, arguments, error, text in cases:
        with pytest.raises(error, match=text):
            sections(data, mpp=1.0, **arguments)
    (section,) = sections(cases[-1][0], mpp=1.0, coordinate_system="T")
    assert np.allclose(section.xy_px, XY / 3)
    (blind,) = sections(one(images={}), need_image=False, need_mpp=False)
    assert blind.image is None
    assert np.isnan(blind.xy_px).all()


def test_libraries_of_an_anndata() -> None:
    adata = ad.AnnData(np.zeros((4, 1), np.float32), obs=pd.DataFrame(index=list("abcd")))
    adata.obsm["spatial"] = np.arange(8.0).reshape(4, 2)
    entry = {"images": {"fullres": np.moveaxis(RGB, 0, -1)}, "scalefactors": {"microns_per_pixel": 0.3}}
    adata.uns["spatial"] = {"A": entry, "B": {**entry, "scalefactors": {}}}
    with pytest.raises(ValueError, match="library_key"):
        sections(adata, mpp=1)
    adata.obs["slide"] = pd.Categorical(["B", "A", "B", "A"])
    with pytest.raises(ValueError, match="section 'B' are not known"):
        sections(adata, library_key="slide")
    got = {s.name: s for s in sections(adata, library_key="slide", mpp={"B": 2.0})}
    assert (got["A"].mpp, got["B"].mpp) == (0.3, 2.0)
    assert got["B"].rows.tolist() == [0, 2]
    with pytest.raises(KeyError, match="library_key='nope'"):
        sections(adata, library_key="nope", mpp=1)
    adata.obs["sample"] = adata.obs["slide"]
    assert {s.name for s in sections(adata, mpp=1)} == {"A", "B"}
    assert _access.section_codes(adata).tolist() == ["B", "A", "B", "A"]
    del adata.obsm["spatial"]
    with pytest.raises(KeyError, match="'spatial' not in .obsm"):
        sections(adata, mpp=1)


# ------------------------------------------------------------------------------------------------- scale


def test_scale_from_a_system_of_microns() -> None:
    for name, expected in (("microns", 0.25), ("S_um", 0.25), ("museum", None), ("S.micron", 0.25)):
        data = one(images={"he": image_element(RGB, maps(S=1.0, **{name: 0.25}))})
        got = sections(data, need_mpp=False)[0].mpp
        assert got == (pytest.approx(expected) if expected else None), name
        assert image_mpp(data, "he") == got
    # registered to microns are the shapes alone, and the image has another resolution
    data = one(images={"he": image_element(RGB, maps(S=2.0))}, shapes={"spots": spots(XY, maps(S=1.0, microns=0.5))})
    assert sections(data)[0].mpp == pytest.approx(1.0)
    assert sections(data, mpp=3.0)[0].mpp == 3.0
    assert image_mpp(data, "he") is None


def test_a_stretched_image_is_said() -> None:
    shear = np.array([[0.5, 0.2, 0], [0, 0.5, 0], [0, 0, 1.0]])
    with pytest.warns(SpatialWhispererWarning, match="stretched or sheared"):
        image_mpp(one(images={"he": image_element(RGB, maps(microns=shear))}), "he")


def test_pitch_of_regular_and_jittered_lattices() -> None:
    rng = np.random.default_rng(0)
    square = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), -1).reshape(-1, 2) * 80
    hexagonal = square * [1, np.sqrt(3) / 2] + np.where(square[:, 1:] / 80 % 2 == 1, 40, 0) * [1, 0]
    for lattice in (square, hexagonal):
        some = lattice[rng.permutation(400)[:300]]
        assert _access.mpp.spot_pitch_px("S", some) == pytest.approx(80)
        assert _access.mpp.spot_pitch_px("S", some + rng.normal(0, 4, some.shape)) == pytest.approx(80, rel=0.02)
    with pytest.raises(ValueError, match="too few"):
        _access.mpp.spot_pitch_px("S", square[:2])


# ------------------------------------------------------------------------------------------------- writing


def test_instances_table_and_grid_refuse_taken_names() -> None:
    data = one()
    with pytest.raises(ValueError, match="already has an element named 'he'"):
        _access.add_instances_table(data, "spots", "he")
    with pytest.raises(KeyError, match="no shapes 'nope'"):
        _access.add_instances_table(data, "nope", "new")
    made = _access.add_instances_table(data, "spots", "new")
    assert made.obs["instance_id"].tolist() == ["i0", "i1", "i2"]
    assert sections(data, table_key="new", mpp=1)[0].xy_px.tolist() == XY.tolist()
    with pytest.raises(ValueError, match="already has"):
        _access.add_tile_grid(data, {"he": _access.Grid(XY, 4.0)}, "new")
    assert "he_tiles" not in data.shapes
