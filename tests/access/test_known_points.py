"""A point that is known in the pixels of the image is found there, whatever element it lies in and however both are placed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from spatialwhisperer._access.sections.regions import region_codes, region_positions
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.tiles.reader import TileReader

# (x, y) of three cells in their own coordinates: the middles of the squares that `labels` draws
OWN = np.array([[12.0, 6.0], [42.0, 21.0], [30.0, 40.0]])
NAMES = [3, 4, 9]

SCALE = np.array([[2.0, 0, 0], [0, 0.5, 0], [0, 0, 1]])
TRANSLATION = np.array([[1.0, 0, 7.5], [0, 1, -4.25], [0, 0, 1]])
ROTATION = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
OBLIQUE = np.array([[0.8, -0.6, 11.0], [0.6, 0.8, -3.0], [0, 0, 1]])
PLACED = [
    pytest.param(SCALE, id="scale"),
    pytest.param(TRANSLATION, id="translation"),
    pytest.param(ROTATION, id="rotation"),
    pytest.param(OBLIQUE, id="all"),
]


def shapes(build: Any, own: np.ndarray) -> tuple[str, Any]:
    return "shapes", build.spots(OWN, build.maps(S=own), NAMES)


def polygons(build: Any, own: np.ndarray) -> tuple[str, Any]:
    from geopandas import GeoDataFrame
    from shapely.geometry import box
    from spatialdata.models import ShapesModel

    squares = [box(x - 2, y - 2, x + 2, y + 2) for x, y in OWN]
    frame = GeoDataFrame(geometry=squares, index=np.array(NAMES))
    return "shapes", ShapesModel.parse(frame, transformations=build.maps(S=own))


def labels(build: Any, own: np.ndarray) -> tuple[str, Any]:
    from spatialdata.models import Labels2DModel

    pixels = np.zeros((50, 60), np.int64)
    for name, (x, y) in zip(NAMES, OWN.astype(int), strict=True):
        pixels[y - 2 : y + 2, x - 2 : x + 2] = name
    return "labels", Labels2DModel.parse(pixels, dims=("y", "x"), transformations=build.maps(S=own))


def points(build: Any, own: np.ndarray) -> tuple[str, Any]:
    from spatialdata.models import PointsModel

    frame = pd.DataFrame(OWN, columns=["x", "y"], index=np.array(NAMES))
    return "points", PointsModel.parse(frame, transformations=build.maps(S=own))


def moved(matrix: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Points under an affine map, written out."""
    (a, b, tx), (c, d, ty) = matrix[:2]
    return np.array([[a * x + b * y + tx, c * x + d * y + ty] for x, y in xy])


@pytest.mark.parametrize("element", [shapes, polygons, labels, points])
@pytest.mark.parametrize("own", PLACED)
def test_a_known_point_is_found_in_the_image(element: Any, own: np.ndarray, build: Any) -> None:
    """From the element to the common system by its own map, and back into pixels by the map of the image."""
    group, cells = element(build, own)
    its = OBLIQUE @ SCALE
    order = [2, 0, 1]
    data = build.sdata(
        images={"he": build.image(build.RGB, build.maps(S=its))},
        tables={"table": build.table({"cells": [NAMES[k] for k in order]})},
        **{group: {"cells": cells}},
    )
    (section,) = Slide.open(data, mpp=1).scaled()
    assert section.xy_px.shape == (3, 2)
    assert moved(its, section.xy_px) == pytest.approx(moved(own, OWN[order]))
    # and in the element's own coordinates, wherever it is placed
    table = data.tables["table"]
    assert region_positions(data, table, region_codes(table)) == pytest.approx(OWN[order])


@pytest.mark.parametrize("its", PLACED)
def test_tiles_are_cut_around_the_known_point(its: np.ndarray, build: Any) -> None:
    """One bright pixel in the image lies in the middle of the tile of the cell that was placed on it, through all maps."""
    pixels = np.zeros((3, 60, 100), np.uint8)
    pixels[:, 31, 47] = 255
    cell = moved(its, np.array([[47.5, 31.5]]))
    data = build.sdata(
        images={"he": build.image(pixels, build.maps(S=its))},
        shapes={"cells": build.spots(cell, build.maps(S=1.0))},
        tables={"table": build.table({"cells": ["i0"]})},
    )
    (section,) = Slide.open(data, mpp=1.0).scaled()
    ((_, tiles),) = TileReader(section, tile_um=5, tile_px=5).read()
    # where pixels are no squares, it is spread over the cells that it covers
    assert np.argwhere(tiles[0, 0] == tiles.max()).tolist() == [[2, 2]]
    assert tiles[0, 0].astype(float).sum() == pytest.approx(255, abs=3)
