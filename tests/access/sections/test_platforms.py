"""Every kind of object from which a scale follows without a word of the caller, and those from which none does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer._access.sections.platforms import full_resolution_system, of_bins
from spatialwhisperer._access.slide import Slide

if TYPE_CHECKING:
    from pathlib import Path

PIXELS = np.full((3, 60, 100), 220, np.uint8)
XY = np.array([[50.0, 20.0], [30.5, 41.2], [77.0, 22.0]])


def hd(build: Any, *, squares: bool, image_scale: float = 1.0, suffix: str = "") -> Any:
    """Bins of 8 µm as the reader of Visium HD makes them: 29.2 pixels wide, and registered to nothing but pixels."""
    from geopandas import GeoDataFrame
    from spatialdata.models import ShapesModel

    name = f"sample_square_008um{suffix}"
    maps = build.maps(sample=1.0)
    circles = ShapesModel.parse(XY, geometry=0, radius=14.6, index=np.array(["i0", "i1", "i2"]), transformations=maps)
    boxes = GeoDataFrame(geometry=circles.buffer(14.6, cap_style=3))
    bins = ShapesModel.parse(boxes, transformations=maps) if squares else circles
    return build.sdata(
        images={"he": build.image(PIXELS, build.maps(sample=image_scale))},
        shapes={name: bins},
        tables={"table": build.table({name: ["i0", "i1", "i2"]})},
    )


def xenium(build: Any, *, region: str = "cell_circles", unit: float = 1 / 0.2125) -> Any:
    """Cells in microns, as the reader of Xenium places them in pixels of 0.2125 µm, beside an aligned H&E image."""
    cells = build.spots(XY, build.maps(**{"global": unit}))
    return build.sdata(
        images={"he": build.image(PIXELS, build.maps(**{"global": 1.7}))},
        shapes={region: cells},
        tables={"table": build.table({region: ["i0", "i1", "i2"]})},
    )


def merscope(build: Any) -> Any:
    """Cells in microns, and an image whose pixels are mapped to them."""
    return build.one(
        images={"he": build.image(PIXELS, build.maps(microns=0.108))},
        shapes={"spots": build.spots(XY, build.maps(microns=1.0))},
    )


def scale_of(data: Any, **options: Any) -> Any:
    (section,) = Slide.open(data, **options).scaled()
    return section.scale


@pytest.mark.parametrize("squares", [True, False])
@pytest.mark.parametrize("suffix", ["", "-s1"])
def test_bins_of_visium_hd_state_the_scale_by_their_name(build: Any, squares: bool, suffix: str) -> None:
    found = scale_of(hd(build, squares=squares, suffix=suffix))
    assert found.mpp == pytest.approx(8 / 29.2)
    assert found.rule == "bins of 8 µm"
    # pixels of the image are two of the full resolution
    assert scale_of(hd(build, squares=squares, image_scale=2.0)).mpp == pytest.approx(16 / 29.2)
    with pytest.raises(ValueError, match=r"disagree: 0\.5 .* by mpp=…, 0\.274 by bins of 8 µm"):
        scale_of(hd(build, squares=squares), mpp=0.5)


def test_cells_of_xenium_state_the_scale_of_an_aligned_image(build: Any) -> None:
    for region in ("cell_circles", "cell_boundaries"):
        found = scale_of(xenium(build, region=region))
        assert found.mpp == pytest.approx(1.7 * 0.2125)
        assert found.rule == "Xenium pixels of 0.2125 µm"
    with pytest.raises(ValueError, match=r"disagree: 0\.5 .* by mpp=…, 0\.3612 by Xenium"):
        scale_of(xenium(build), mpp=0.5)


def test_what_platforms_state_is_compared_with_microns(build: Any) -> None:
    bins, cells = hd(build, squares=True), xenium(build)
    bins.images["he"] = build.image(PIXELS, build.maps(sample=1.0, microns=0.25))
    with pytest.raises(ValueError, match=r"disagree: 0\.25 .*'microns', 0\.274 by bins of 8 µm"):
        scale_of(bins)
    cells.images["he"] = build.image(PIXELS, build.maps(**{"global": 1.7, "microns": 0.5}))
    with pytest.raises(ValueError, match=r"disagree: 0\.5 .*'microns', 0\.3612 by Xenium pixels"):
        scale_of(cells)


@pytest.mark.parametrize("changes", [{"region": "my_cells"}, {"unit": 1.0}, {"unit": 1 / 0.25}])
def test_other_cells_state_nothing(build: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="microns per pixel of section .* are not known"):
        scale_of(xenium(build, **changes))


def test_cells_in_microns_state_the_scale_of_the_image(build: Any) -> None:
    assert scale_of(merscope(build)).mpp == pytest.approx(0.108)


def cytassist(folder: Path, *, array: bool) -> Any:
    place = folder / "visium_cytassist" / "spatial"
    spots = pd.read_csv(place / "tissue_positions.csv", index_col="barcode").query("in_tissue == 1")
    obs = spots[["array_row", "array_col"]] if array else spots[[]]
    adata = ad.AnnData(np.zeros((len(spots), 1), np.float32), obs=obs)
    adata.obsm["spatial"] = spots[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(float)
    factors = json.loads((place / "scalefactors_json.json").read_text())
    adata.uns["spatial"] = {"L": {"images": {"lowres": np.zeros((600, 600, 3), np.uint8)}, "scalefactors": factors}}
    return adata


@pytest.mark.parametrize("array", [True, False])
def test_a_real_visium_section_states_its_scale_also_without_array_indices(data_folder: Path, array: bool) -> None:
    data = cytassist(data_folder, array=array)
    found = scale_of(data)
    assert found.mpp == pytest.approx(4.678, rel=0.01)
    assert found.rule == "the 100 µm pitch of the Visium array"
    # never by the diameter of the spots, which is 70 µm here and 65 µm elsewhere
    data.uns["spatial"]["L"]["scalefactors"]["spot_diameter_fullres"] *= 65 / 70
    assert scale_of(data).mpp == found.mpp
    data.uns["spatial"]["L"]["scalefactors"]["fiducial_diameter_fullres"] *= 1.08
    with pytest.raises(ValueError, match=r"disagree: 4\..* by the 100 µm pitch .*, 4\.\d+ by its fiducial diameter"):
        scale_of(data)


@pytest.mark.parametrize("mpp", [20, 40])
def test_a_magnification_is_named_where_a_slide_is_opened(build: Any, mpp: float) -> None:
    with pytest.raises(ValueError, match=f"mpp={mpp} looks like the magnification of an objective"):
        scale_of(build.library(XY), mpp=mpp)


def test_the_rule_is_said_once_and_recorded(build: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import spatialwhisperer as sw
    from spatialwhisperer._access.records import TilesRecord
    from spatialwhisperer._provenance import recorded_as

    data = hd(build, squares=True)
    sw.pp.tiles(data, tile_um=4, tile_px=16)
    assert capsys.readouterr().err.count("0.274 µm per pixel by bins of 8 µm") == 1
    record = recorded_as(data["table"], "sw_tiles", TilesRecord)
    assert record is not None
    assert record.where.rule == {"sample_square_008um": "bins of 8 µm"}
    sw.pp.embed_images(data)
    assert "bins of 8 µm" not in capsys.readouterr().err


def test_a_column_of_squares_does_not_change_their_size() -> None:
    from geopandas import GeoDataFrame, points_from_xy

    boxes = GeoDataFrame({"radius": [1.0] * 3}, geometry=points_from_xy(*XY.T).buffer(14.6, cap_style=3))
    (scale,) = of_bins("sample_square_008um", boxes, np.eye(3))
    assert scale.mpp == pytest.approx(8 / 29.2)


@pytest.mark.parametrize(
    ("systems", "found"),
    [
        (["V1_downscaled_hires", "V1"], "V1"),
        (["V1", "global", "V1_downscaled_lowres"], "V1"),
        (["global", "downscaled_hires"], "global"),
        (["V1_downscaled_hires", "global"], None),
        (["V1"], None),
        ([], None),
    ],
)
def test_a_smaller_copy_names_the_system_of_the_full_resolution(systems: list[str], found: str | None) -> None:
    assert full_resolution_system(systems) == found
