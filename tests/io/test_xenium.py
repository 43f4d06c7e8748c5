"""The H&E image lies on the cells of the Xenium section once the matrix of Xenium Explorer is applied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import spatialwhisperer as sw
from tests.io.conftest import mpp_of

if TYPE_CHECKING:
    from pathlib import Path

FACTOR = 0.5 / 0.2125
TURNED = np.array([[0, FACTOR, -100.0], [-FACTOR, 0, 2900.0], [0, 0, 1]])
"""A quarter turn and the ratio of the pixels of 0.5 and 0.2125 µm."""


def written(path: Path, matrix: np.ndarray = TURNED) -> Path:
    np.savetxt(path / "matrix.csv", matrix, delimiter=",")
    return path / "matrix.csv"


def test_the_matrix_is_read_as_it_stands(tmp_path: Path) -> None:
    np.testing.assert_array_equal(sw.io.read_xenium_alignment(written(tmp_path)), TURNED)
    path = tmp_path / "matrix.csv"
    path.write_text("\ufeff" + path.read_text())
    np.testing.assert_array_equal(sw.io.read_xenium_alignment(path), TURNED)


def test_cells_of_xenium_lie_on_the_aligned_image(slide_file: Path, tmp_path: Path) -> None:
    import anndata as ad
    import geopandas as gpd
    import pandas as pd
    import shapely
    from spatialdata import SpatialData
    from spatialdata.models import ShapesModel, TableModel
    from spatialdata.transformations import Scale

    slide = sw.io.read_slide(slide_file)
    sw.io.align_xenium(slide, written(tmp_path))
    assert mpp_of(slide) == pytest.approx(0.5)
    # as spatialdata-io reads cells: microns, and global for the pixels of the Xenium image
    on_image = np.array([[300.0, 200.0], [800.0, 500.0]])
    microns = (on_image @ TURNED[:2, :2].T + TURNED[:2, 2]) * 0.2125
    circles = gpd.GeoDataFrame({"radius": [5.0, 5.0]}, geometry=shapely.points(microns))
    pixels = Scale([1 / 0.2125, 1 / 0.2125], axes=("x", "y"))
    table = ad.AnnData(np.zeros((2, 0), np.float32))
    table.obs["region"] = pd.Categorical(["cells"] * 2)
    table.obs["id"] = [0, 1]
    xenium = SpatialData(
        shapes={"cells": ShapesModel.parse(circles, transformations={"global": pixels})},
        tables={"table": TableModel.parse(table, region="cells", region_key="region", instance_key="id")},
    )
    xenium.images["he"] = slide["slide"]
    sw.pp.tiles(xenium, tile_um=40, at="cells")
    np.testing.assert_allclose(xenium["table"].obsm["sw_tiles"], on_image, atol=1e-6)


def test_a_matrix_of_another_scale_is_refused_and_the_inverse_named(slide_file: Path, tmp_path: Path) -> None:
    slide = sw.io.read_slide(slide_file)
    before = dict(slide["slide"].attrs)
    with pytest.raises(ValueError, match=r"has 1 µm per pixel; coordinate system 'microns' states 0.5"):
        sw.io.align_xenium(slide, np.diag([2.0, 2.0, 1.0]) @ TURNED)
    with pytest.raises(ValueError, match=r"The inverse fits: pass np.linalg.inv"):
        sw.io.align_xenium(slide, written(tmp_path, np.linalg.inv(TURNED)))
    assert mpp_of(slide) == pytest.approx(0.5)
    assert dict(slide["slide"].attrs) == before


@pytest.mark.parametrize(
    "matrix", [np.eye(2), np.zeros((3, 3)), np.full((3, 3), np.nan), np.diag([1.0, 0, 1]), np.ones((3, 3))], ids=repr
)
def test_what_is_no_alignment_is_refused(matrix: Any, slide_file: Path) -> None:
    with pytest.raises(ValueError, match="must be a matrix of shape|cannot be inverted"):
        sw.io.align_xenium(sw.io.read_slide(slide_file), matrix)


def test_keypoints_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "keypoints.csv"
    path.write_text("fixedX,fixedY,alignmentX,alignmentY\n1,2,3,4\n")
    with pytest.raises(ValueError, match="Export the matrix, not the keypoints"):
        sw.io.read_xenium_alignment(path)
    with pytest.raises(FileNotFoundError):
        sw.io.read_xenium_alignment(tmp_path / "nope.csv")
    with pytest.raises(TypeError, match="sw.io.read_slide"):
        sw.io.align_xenium("slide.tif", path)
