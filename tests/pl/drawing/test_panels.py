"""Which sections are drawn, in which order, and in the proportions of the tissue."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer.pl.top_tiles import top_tiles

WIDTH_UM, HEIGHT_UM = 2.0, 0.5


@pytest.fixture
def stretched() -> Any:
    """Rows 20 µm apart on a picture whose pixels are four times as wide as high."""
    import geopandas as gpd
    import spatialdata as sd
    from shapely import points
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Scale

    um = np.stack(np.meshgrid(np.arange(20.0, 190, 20), np.arange(20.0, 90, 20)), -1).reshape(-1, 2)
    pixels = np.random.default_rng(0).integers(120, 240, (3, 200, 100)).astype(np.uint8)
    to_um = {"microns": Scale([WIDTH_UM, HEIGHT_UM], ("x", "y"))}
    image = Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=["r", "g", "b"], transformations=to_um)
    circles = gpd.GeoDataFrame({"radius": np.full(len(um), 5.0)}, geometry=points(um / [WIDTH_UM, HEIGHT_UM]))
    rows = np.arange(len(um))
    obs = pd.DataFrame({"region": pd.Categorical(["spots"] * len(um)), "spot": rows}, index=[f"r{i}" for i in rows])
    obs["kind"], obs["score"] = pd.Categorical(np.array(["a", "b"])[rows % 2]), rows / len(um)
    table = ad.AnnData(np.zeros((len(um), 1), np.float32), obs=obs)
    return sd.SpatialData(
        images={"he": image},
        shapes={"spots": ShapesModel.parse(circles, transformations=to_um)},
        tables={"table": TableModel.parse(table, region="spots", region_key="region", instance_key="spot")},
    )


@pytest.mark.parametrize(
    "draw",
    [
        lambda data: sw.pl.annotation(data, key="kind"),
        lambda data: sw.pl.domains(data, key="kind"),
        lambda data: sw.pl.scores(data, key="score"),
    ],
)
def test_pixels_that_are_no_squares_show_the_tissue_in_its_proportions(stretched: Any, draw: Any) -> None:
    axes = draw(stretched)
    ax: Any = axes[-1]
    ax.figure.canvas.draw()
    x, y = ax.transData.transform([(10, 0), (0, 40), (0, 0)])[:2] - ax.transData.transform((0, 0))
    # 20 µm each
    assert np.hypot(*x) == pytest.approx(np.hypot(*y))
    marks = ax.collections[0]
    assert marks.diameter == pytest.approx(0.8 * 20 / WIDTH_UM)
    for one in axes:
        (text,) = (float(t.get_text().split()[0]) for t in one.texts)
        assert np.ptp(one.lines[-1].get_xdata()) * WIDTH_UM == pytest.approx(text)


def test_a_mark_has_its_size_in_microns_on_pixels_that_are_no_squares(stretched: Any) -> None:
    ax: Any = sw.pl.annotation(stretched, key="kind", with_image=False, diameter_um=10)[0]
    assert ax.collections[0].diameter == pytest.approx(10 / WIDTH_UM)


def test_tiles_on_pixels_that_are_no_squares_overlap_as_they_do_on_the_tissue(stretched: Any) -> None:
    axes = top_tiles(stretched, "score", n=36, tile_um=19)
    assert len(axes) == 36
    # each hides its neighbours in both directions
    assert len(top_tiles(stretched, "score", n=36, tile_um=21)) <= 10


@pytest.fixture
def several() -> ad.AnnData:
    """Two sections of four rows."""
    pixels = np.full((60, 60, 3), 200, np.uint8)
    library: dict[str, Any] = {"images": {"fullres": pixels}, "scalefactors": {"microns_per_pixel": 1.0}}
    obs = pd.DataFrame({"library_id": list("PPPPQQQQ"), "kind": pd.Categorical(list("abababab"))})
    obs["score"] = np.arange(8.0)
    adata = ad.AnnData(obs=obs.set_index(obs.index.astype(str)), uns={"spatial": {"P": library, "Q": library}})
    adata.obsm["spatial"] = np.tile([[10.0, 10], [10, 50], [50, 10], [50, 50]], (2, 1))
    return adata


def test_sections_are_drawn_in_the_order_asked_for(several: ad.AnnData) -> None:
    def titles(axes: list[Any]) -> list[str]:
        return [ax.get_title()[0] for ax in axes]

    assert titles(sw.pl.annotation(several, key="kind", with_image=False)) == ["P", "Q"]
    assert titles(sw.pl.annotation(several, key="kind", with_image=False, sections=["Q", "P"])) == ["Q", "P"]
    assert titles(sw.pl.domains(several, key="kind", sections=["Q", "P"])) == ["Q", "Q", "P", "P"]
    tiles = top_tiles(several, "score", n=1, per_section=True, sections=["Q", "P"], tile_um=10)
    assert [ax.get_ylabel() for ax in tiles] == ["Q", "P"]
    with pytest.raises(ValueError, match="sections names Q more than once"):
        sw.pl.annotation(several, key="kind", sections=["Q", "P", "Q"])


def test_a_picture_of_one_section_says_that_there_are_others(
    several: ad.AnnData, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sw.pl.scores(several, key="score")[0].get_title() == "P: H&E"
    assert "'P' is drawn, the first of 2 sections (P, Q). Draw another one with section=…." in capsys.readouterr().err
    assert sw.pl.scores(several, key="score", section="Q")[0].get_title() == "Q: H&E"
    sw.pl.scores(several[:4].copy(), key="score")
    assert "is drawn" not in capsys.readouterr().err
