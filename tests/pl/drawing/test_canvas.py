from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw


def test_a_grid_is_drawn_as_squares(simulated: Any, model: Any, labels: dict[str, str]) -> None:
    import spatialdata as sd

    slide = sd.SpatialData(images=dict(simulated.sections["P3"].images))
    sw.pp.tiles(slide, at="grid", tile_um=160)
    sw.tl.zero_shot_annotate(slide, labels, model=model)
    (ax,) = sw.pl.annotation(slide, with_image=False)
    marks: Any = ax.collections[0]
    assert marks.diameter == pytest.approx(320)
    assert len(marks.get_paths()[0]) == 5


def test_a_section_without_an_image(adata: Any) -> None:
    del adata.uns["spatial"]
    with pytest.raises(KeyError, match="no H&E image"):
        sw.pl.annotation(adata, key="cell_type")


@pytest.fixture
def striped(simulated: Any) -> Any:
    """A grid of tiles that overlap by a half, with a label each."""
    import spatialdata as sd

    slide = sd.SpatialData(images=dict(simulated.sections["P3"].images))
    sw.pp.tiles(slide, at="grid", tile_um=160, stride_um=80)
    table = slide["sw_tiles"]
    table.obs["column"] = pd.Categorical([f"{x:g}" for x in table.obsm["sw_tiles"][:, 0]])
    return slide


def test_tiles_that_overlap_do_not_hide_each_other(striped: Any) -> None:
    (ax,) = sw.pl.annotation(striped, key="column", with_image=False)
    marks: Any = ax.collections[0]
    assert marks.diameter == pytest.approx(160)


def test_a_long_legend_stays_on_the_figure(section: Any) -> None:
    import matplotlib.pyplot as plt

    table = section["table"]
    table.obs["many"] = pd.Categorical([f"cells of the kind number {i % 45}" for i in range(table.n_obs)])
    for axes in (sw.pl.annotation(section, key="many"), sw.pl.domains(section, key="many", truth="cell_type")):
        figure: Any = axes[0].figure
        figure.canvas.draw()
        legend: Any = axes[-1].get_legend()
        box = legend.get_window_extent()
        assert box.x0 > axes[-1].bbox.x1
        assert box.x1 <= figure.bbox.x1
        assert box.y0 >= 0
        assert box.y1 <= figure.bbox.y1
        plt.close(figure)


def test_a_table_without_rows_and_no_section_are_refused(adata: Any) -> None:
    with pytest.raises(ValueError, match="no rows, so there is nothing to draw"):
        sw.pl.annotation(adata[:0].copy(), key="cell_type")
    with pytest.raises(KeyError, match=r"There are no sections none \(found: P3\)"):
        sw.pl.annotation(adata, key="cell_type", sections=[])


def test_rows_off_the_image_are_refused(adata: Any) -> None:
    adata.obsm["spatial"] += 1e5
    with pytest.raises(ValueError, match="No row of section 'P3' lies on image 'P3'"):
        sw.pl.annotation(adata, key="cell_type")


@pytest.mark.parametrize("axis", [0, 1])
def test_rows_beside_the_image_in_one_direction_are_refused(axis: int) -> None:
    scale = {"microns_per_pixel": 1.0}
    picture: Any = {"images": {"fullres": np.full((60, 60, 3), 200, np.uint8)}, "scalefactors": scale}
    rows = ad.AnnData(
        obs=pd.DataFrame({"kind": pd.Categorical(["a", "b"])}, index=["r0", "r1"]),
        uns={"spatial": {"P": picture}},
    )
    rows.obsm["spatial"] = np.array([[10.0, 20.0], [40.0, 30.0]])
    assert len(sw.pl.annotation(rows, key="kind", diameter_um=10)) == 2
    rows.obsm["spatial"][:, axis] += 1e5
    with pytest.raises(ValueError, match="No row of section 'P' lies on image 'P'"):
        sw.pl.annotation(rows, key="kind", diameter_um=10)
