"""Elements, transformations, centres and scales that are odd or damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tests.torture.damage.kinds import Damage
from tests.torture.objects import GRID, SDATA, VISIUM, table_of

if TYPE_CHECKING:
    from collections.abc import Callable

LINKED = (SDATA, GRID)


def _spots(data: Any) -> str:
    return next(iter(data.shapes))


# ------------------------------------------------------------------------------------------------- transformations


def affine(matrix: Any, *, image: bool = False) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        from spatialdata.transformations import Affine, set_transformation

        element = data.images["P1_image"] if image else data.shapes[_spots(data)]
        for system in ("P1", "microns"):
            made = Affine(np.array(matrix, float), input_axes=("x", "y"), output_axes=("x", "y"))
            set_transformation(element, made, system)

    return change


def _sequence(data: Any) -> None:
    from spatialdata.transformations import Identity, Scale, Sequence, get_transformation, set_transformation

    element = data.shapes[_spots(data)]
    for system, old in get_transformation(element, get_all=True).items():
        there, back = Scale([2.0, 2.0], ("x", "y")), Scale([0.5, 0.5], ("x", "y"))
        set_transformation(element, Sequence([Identity(), there, back, old]), system)


def _placed_elsewhere(data: Any) -> None:
    from spatialdata.transformations import Identity, set_transformation

    set_transformation(data.shapes[_spots(data)], {"elsewhere": Identity()}, set_all=True)


def _three_axes(data: Any) -> None:
    from spatialdata.transformations import Scale, set_transformation

    set_transformation(data.shapes[_spots(data)], Scale([1.0, 1.0, 1.0], ("x", "y", "z")), "P1")


def _system_named_oddly(data: Any) -> None:
    from spatialdata.transformations import Identity, set_transformation

    set_transformation(data.images["P1_image"], Identity(), " ")


TRANSFORMATIONS = [
    Damage("spots: flat map", affine([[1, 1, 0], [1, 1, 0], [0, 0, 1]]), LINKED),
    Damage("spots: zero map", affine([[0, 0, 0], [0, 0, 0], [0, 0, 1]]), LINKED),
    Damage("spots: NaN map", affine([[np.nan, 0, 0], [0, 1, 0], [0, 0, 1]]), LINKED),
    Damage("spots: infinite shift", affine([[1, 0, np.inf], [0, 1, 0], [0, 0, 1]]), LINKED),
    Damage("spots: huge map", affine([[1e12, 0, 0], [0, 1e12, 0], [0, 0, 1]]), LINKED),
    Damage("spots: tiny map", affine([[1e-12, 0, 0], [0, 1e-12, 0], [0, 0, 1]]), LINKED),
    Damage("spots: mirrored", affine([[-1, 0, 800], [0, 1, 0], [0, 0, 1]]), LINKED),
    Damage("spots: sheared", affine([[1, 0.5, 0], [0, 1, 0], [0, 0, 1]]), LINKED),
    Damage("spots: far away", affine([[1, 0, 1e6], [0, 1, 1e6], [0, 0, 1]]), LINKED),
    Damage("image: flat map", affine([[1, 0, 0], [1, 0, 0], [0, 0, 1]], image=True), LINKED),
    Damage("image: NaN map", affine([[1, 0, np.nan], [0, 1, 0], [0, 0, 1]], image=True), LINKED),
    Damage("image: mirrored", affine([[1, 0, 0], [0, -1, 800], [0, 0, 1]], image=True), LINKED),
    Damage("image: unequal scales", affine([[1, 0, 0], [0, 3, 0], [0, 0, 1]], image=True), LINKED),
    Damage("spots: a sequence of maps", _sequence, LINKED, harmless=True),
    Damage("spots: in another system", _placed_elsewhere, LINKED),
    Damage("spots: three axes", _three_axes, LINKED),
    Damage("image: a system named by a blank", _system_named_oddly, LINKED),
]

# ------------------------------------------------------------------------------------------------- elements


def shapes(made: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Replace the frame of the spots behind the back of SpatialData, as files of others do."""

    def change(data: Any) -> None:
        name = _spots(data)
        old = data.shapes[name]
        new = made(old.copy())
        new.attrs = old.attrs
        data.shapes.data[name] = new

    return change


def _geometry(value: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def made(frame: Any) -> Any:
        frame["geometry"] = [value(g) if i % 5 == 0 else g for i, g in enumerate(frame["geometry"])]
        return frame

    return made


def _point(x: float, y: float) -> Any:
    from shapely import Point

    return Point(x, y)


def _holed(geometry: Any) -> Any:
    outer = geometry.centroid.buffer(20)
    return outer.difference(geometry.centroid.buffer(10))


def _empty_polygon(_: Any) -> Any:
    from shapely import Polygon

    return Polygon()


def _as_line(geometry: Any) -> Any:
    from shapely import LineString

    return LineString([geometry.centroid, (0, 0)])


def _with_radius(value: Any) -> Callable[[Any], Any]:
    def made(frame: Any) -> Any:
        frame["radius"] = value
        return frame

    return made


def _indexed(made: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def change(frame: Any) -> Any:
        frame.index = made(frame.index)
        return frame

    return change


def _no_shapes(data: Any) -> None:
    del data.shapes[_spots(data)]


def _points_instead(data: Any) -> None:
    from spatialdata.models import PointsModel
    from spatialdata.transformations import Identity

    name, old = _spots(data), data.shapes[_spots(data)]
    del data.shapes[name]
    centres = old.geometry.centroid
    frame = pd.DataFrame({"x": np.asarray(centres.x), "y": np.asarray(centres.y)})
    data.points[name] = PointsModel.parse(frame, transformations={"P1": Identity()})


def _labels_instead(data: Any) -> None:
    from spatialdata.models import Labels2DModel
    from spatialdata.transformations import Identity

    name = _spots(data)
    del data.shapes[name]
    data.labels[name] = Labels2DModel.parse(
        np.zeros((60, 60), np.int64), dims=("y", "x"), transformations={"P1": Identity()}
    )


def _further_elements(data: Any) -> None:
    import geopandas as gpd
    from shapely import Polygon
    from spatialdata.models import ShapesModel

    data.shapes["stray"] = ShapesModel.parse(gpd.GeoDataFrame(geometry=[Polygon([(0, 0), (1, 0), (1, 1)])]))


ELEMENTS = [
    Damage("spots: none", _no_shapes, LINKED),
    Damage("spots: empty frame", shapes(lambda f: f.iloc[:0]), LINKED),
    Damage("spots: half of them", shapes(lambda f: f.iloc[::2]), LINKED),
    Damage("spots: reversed", shapes(lambda f: f.iloc[::-1]), LINKED, harmless=True),
    Damage("spots: NaN places", shapes(_geometry(lambda _: _point(np.nan, np.nan))), LINKED),
    Damage("spots: infinite places", shapes(_geometry(lambda _: _point(np.inf, 0))), LINKED),
    Damage("spots: no geometry", shapes(_geometry(lambda _: None)), LINKED),
    Damage("spots: empty polygons", shapes(_geometry(_empty_polygon)), LINKED),
    Damage("spots: polygons with holes", shapes(_geometry(_holed)), LINKED),
    Damage("spots: lines", shapes(_geometry(_as_line)), LINKED),
    Damage("spots: no radius", shapes(lambda f: f.drop(columns="radius", errors="ignore")), LINKED),
    Damage("spots: radius NaN", shapes(_with_radius(np.nan)), LINKED),
    Damage("spots: radius 0", shapes(_with_radius(0.0)), LINKED),
    Damage("spots: radius negative", shapes(_with_radius(-5.0)), LINKED),
    Damage("spots: radius text", shapes(_with_radius("x")), LINKED),
    Damage("spots: ids of text", shapes(_indexed(lambda i: i.astype(str))), LINKED),
    Damage("spots: ids repeated", shapes(_indexed(lambda i: i[[0] * len(i)])), LINKED),
    Damage("spots: ids of floats", shapes(_indexed(lambda i: pd.Index(np.arange(len(i), dtype=float)))), (SDATA,)),
    Damage("spots: ids NaN", shapes(_indexed(lambda i: pd.Index([np.nan] * len(i)))), LINKED),
    Damage("spots: several levels of ids", shapes(_indexed(lambda i: pd.MultiIndex.from_arrays([i, i]))), LINKED),
    Damage("spots: points instead", _points_instead, LINKED),
    Damage("spots: labels instead", _labels_instead, LINKED),
    Damage("elements: stray shapes", _further_elements, LINKED, harmless=True),
]

# ------------------------------------------------------------------------------------------------- centres and scales


def spatial(made: Callable[[np.ndarray], Any]) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        table = table_of(data)
        table.obsm["spatial"] = made(np.asarray(table.obsm["spatial"], float))

    return change


def library(change: Callable[[dict[str, Any]], Any]) -> Callable[[Any], None]:
    def apply(data: Any) -> None:
        change(data.uns["spatial"]["P1"])

    return apply


def scale_factor(name: str, value: Any) -> Callable[[Any], None]:
    return library(lambda entry: entry["scalefactors"].__setitem__(name, value))


def uns_spatial(value: Any) -> Callable[[Any], None]:
    return lambda data: data.uns.__setitem__("spatial", value)


def _two_libraries(data: Any) -> None:
    data.uns["spatial"]["P2"] = data.uns["spatial"]["P1"]


def array_column(value: Any) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        data.obs["array_row"] = value
        data.obs["array_col"] = value

    return change


CENTRES = [
    Damage("centres: none", lambda d: d.obsm.__delitem__("spatial"), (VISIUM,)),
    Damage("centres: a NaN", spatial(lambda x: np.where(np.arange(len(x))[:, None] == 3, np.nan, x)), (VISIUM, SDATA)),
    Damage("centres: far away", spatial(lambda x: x + 1e9), (VISIUM,)),
    Damage("centres: negative", spatial(lambda x: -x), (VISIUM,)),
    Damage("centres: all the same", spatial(lambda x: np.ones_like(x) * 400), (VISIUM, SDATA)),
    Damage("centres: on one line", spatial(lambda x: x * [1, 0] + [0, 400]), (VISIUM, SDATA)),
    Damage("centres: three columns", spatial(lambda x: np.hstack([x, x[:, :1]])), (VISIUM, SDATA), harmless=True),
    Damage("centres: numbers as text", spatial(lambda x: x.astype(str)), (VISIUM, SDATA)),
    Damage("centres: huge", spatial(lambda x: x * 1e300), (VISIUM, SDATA)),
    Damage("scale: none", library(lambda e: e["scalefactors"].clear()), (VISIUM,)),
    Damage("scale: no factors", library(lambda e: e.__delitem__("scalefactors")), (VISIUM,)),
    Damage("scale: NaN", scale_factor("microns_per_pixel", np.nan), (VISIUM,)),
    Damage("scale: text", scale_factor("microns_per_pixel", "1.0 um"), (VISIUM,)),
    Damage("scale: negative", scale_factor("microns_per_pixel", -1.0), (VISIUM,)),
    Damage("scale: a list", scale_factor("microns_per_pixel", [1.0]), (VISIUM,)),
    Damage("scale: huge", scale_factor("microns_per_pixel", 1e12), (VISIUM,)),
    Damage("scale: two contradict", scale_factor("spot_diameter_fullres", 900.0), (VISIUM,)),
    Damage("scale: diameter 0", scale_factor("spot_diameter_fullres", 0.0), (VISIUM,)),
    Damage("scale: diameter text", scale_factor("spot_diameter_fullres", "x"), (VISIUM,)),
    Damage("scale: hires 0", scale_factor("tissue_hires_scalef", 0.0), (VISIUM,)),
    Damage("scale: hires text", scale_factor("tissue_hires_scalef", "x"), (VISIUM,)),
    Damage("scale: hires 7", scale_factor("tissue_hires_scalef", 7.0), (VISIUM,)),
    Damage("library: text", uns_spatial("x"), (VISIUM,)),
    Damage("library: None", uns_spatial(None), (VISIUM,)),
    Damage("library: empty", uns_spatial({}), (VISIUM,)),
    Damage("library: a flag", uns_spatial({"P1": True}), (VISIUM,)),
    Damage("library: images are a list", library(lambda e: e.__setitem__("images", [1])), (VISIUM,)),
    Damage("library: images None", library(lambda e: e.__setitem__("images", None)), (VISIUM,)),
    Damage("library: images text", library(lambda e: e.__setitem__("images", {"hires": "x.png"})), (VISIUM,)),
    Damage("library: two", _two_libraries, (VISIUM,)),
    Damage("array: NaN", array_column(np.nan), (VISIUM,)),
    Damage("array: text", array_column("x"), (VISIUM,)),
    Damage("array: one place", array_column(1), (VISIUM,)),
]

DAMAGES = [*TRANSFORMATIONS, *ELEMENTS, *CENTRES]
