"""Areas of a file of QuPath, and the rows that lie in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialwhisperer._access.elements.colours import unlike
from spatialwhisperer._access.result import Result
from spatialwhisperer._messages import inform, listing
from spatialwhisperer.io._qupath.reading import read_objects

if TYPE_CHECKING:
    from pathlib import Path

    from geopandas import GeoDataFrame

    from spatialwhisperer._access.sections.section import Section
    from spatialwhisperer._access.slide import Slide
    from spatialwhisperer.io._qupath.pixels import Pixels

_POLYGON, _MULTIPOLYGON, _COLLECTION = 3, 6, 7
_LEAST_ON_IMAGE = 0.5
_AREA_DECIMALS = 3


def areas_of(place: Path, pixels: Pixels) -> GeoDataFrame:
    """The objects of a file that have an area, in pixels of the image.

    Parameters
    ----------
    place
        The file.
    pixels
        What its coordinates are.

    Raises
    ------
    ValueError
        If it is not GeoJSON of QuPath, or no object has an area.
    """
    import geopandas as gpd

    found = list(read_objects(place))
    shapes = np.empty(len(found), dtype=object)
    shapes[:] = [one.geometry for one in found]
    shapes, n_crossed = _areal(shapes)
    areas = np.array([shape is not None for shape in shapes], dtype=bool)
    if not areas.any():
        raise ValueError(f"{place} holds no area: {len(found)} object(s), all of them points, lines or empty.")
    if not areas.all():
        inform(f"{int((~areas).sum())} objects of {place.name} are points, lines or empty, and were left out.")
    if n_crossed:
        inform(f"The outlines of {n_crossed} objects of {place.name} cross themselves. All that they enclose was kept.")
    kept = [one for one, keep in zip(found, areas, strict=True) if keep]
    columns = {
        "object_type": [one.kind for one in kept],
        "classification": [one.label for one in kept],
        "name": [one.name for one in kept],
        "color": [one.colour for one in kept],
    }
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
    return gpd.GeoDataFrame(frame, geometry=pixels.on_image(shapes[areas]))


def _areal(shapes: np.ndarray) -> tuple[np.ndarray, int]:
    """The polygons of each geometry, ``None`` where it has none, and how many had outlines that cross themselves."""
    import shapely

    crossed = ~shapely.is_valid(shapes)
    # what a hand-drawn outline runs around twice is no hole, as it would be by the method "linework"
    shapes[crossed] = shapely.make_valid(shapes[crossed], method="structure", keep_collapsed=False)
    kinds = shapely.get_type_id(shapes)
    for i in np.flatnonzero(kinds == _COLLECTION):
        shapes[i] = shapely.union_all([part for part in _parts(shapes[i]) if part.geom_type == "Polygon"])
    kinds = shapely.get_type_id(shapes)
    areal = np.isin(kinds, (_POLYGON, _MULTIPOLYGON)) & ~shapely.is_empty(shapes)
    shapes[~areal] = None
    return shapes, int((crossed & areal).sum())


def _parts(geometry: Any) -> list[Any]:
    """The simple geometries within a collection and the collections in it."""
    inner = getattr(geometry, "geoms", None)
    return [geometry] if inner is None else [part for one in inner for part in _parts(one)]


def check_slide(objects: GeoDataFrame, size: tuple[float, float], place: Path, pixels: Pixels) -> None:
    """Refuse the objects of another slide.

    Parameters
    ----------
    objects
        Areas in pixels of the image.
    size
        Width and height of the image.
    place
        The file.
    pixels
        What its coordinates are.

    Raises
    ------
    ValueError
        If most of them lie outside the image.
    """
    centres = objects.geometry.centroid
    on = (centres.x.to_numpy() >= 0) & (centres.x.to_numpy() <= size[0])
    on &= (centres.y.to_numpy() >= 0) & (centres.y.to_numpy() <= size[1])
    if on.mean() < _LEAST_ON_IMAGE:
        left, top, right, bottom = objects.total_bounds
        raise ValueError(
            f"{place.name} belongs to another slide: {int((~on).sum())} of {len(on)} objects lie outside the image of {size[0]:.0f} x "
            f"{size[1]:.0f} pixels (they reach from x {left:.0f} to {right:.0f}, y {top:.0f} to {bottom:.0f}). Its coordinates were read as "
            f"{pixels.words}: pass pixel_system=… where they are those of another coordinate system. Else export the objects of this "
            "slide, or read the image from which they were drawn: sw.io.read_slide(path)."
        )


def labels_in(slide: Slide, section: Section, regions: GeoDataFrame, key: str, place: Path) -> Result:
    """Class of the smallest region around each row; of equally large regions that of the class whose name comes first."""
    named = regions[regions["classification"].notna()]
    classes = list(dict.fromkeys(named["classification"]))
    codes = np.full(slide.n_rows, -1)
    if len(named):
        codes[section.rows] = _smallest(named, classes, section.xy_px, place)
    own = pd.Categorical.from_codes(codes, categories=pd.Index(classes)).remove_unused_categories()
    shown = _colours(named, list(own.categories))
    uns = {f"{key}_colors": shown} if shown else {}
    record = {"file": place.name, "section": section.name, "n_regions": len(regions)}
    return Result(key, record, obs={key: own}, uns=uns, gone=() if uns else (f"{key}_colors",))


def _smallest(named: GeoDataFrame, classes: list[str], points: np.ndarray, place: Path) -> np.ndarray:
    """Code of the class of each point, shape (n,), -1 where no region lies around it; a line tells of points in several classes."""
    import shapely

    # one outline that starts at another corner has another sum of rounding errors
    area = named.geometry.area.to_numpy().round(_AREA_DECIMALS)
    code = np.array([classes.index(one) for one in named["classification"]])
    by_name = np.argsort(np.argsort(classes))
    # the largest first, so that a smaller region within it has the last word; the order in the file decides nothing
    order = np.lexsort([-by_name[code], -area])
    code, area = code[order], area[order]
    tree = shapely.STRtree(named.geometry.to_numpy()[order])
    row, region = tree.query(shapely.points(points), predicate="intersects")
    sequence = np.lexsort([region])
    out = np.full(len(points), -1)
    out[row[sequence]] = code[region[sequence]]
    around = pd.DataFrame({"row": row, "class": code[region], "area": area[region]})
    _say_several(around, [classes[i] for i in out], place)
    return out


def _say_several(around: pd.DataFrame, given: list[str], place: Path) -> None:
    """Say how many rows lie in regions of several classes, and which class they got.

    Parameters
    ----------
    around
        Row, class and area of each region around a row.
    given
        Class of each row.
    place
        The file.
    """
    rows = _in_several(around)
    if not len(rows):
        return
    smallest = around[around["area"] == around.groupby("row")["area"].transform("min")]
    n_equal = len(_in_several(smallest))
    counts = pd.Series([given[row] for row in rows]).value_counts()
    got = listing([f"{name} ({n})" for name, n in counts.items()], 5)
    equal = (
        f" Around {n_equal} of them the smallest regions are equally large, and the class whose name comes first was taken."
        if n_equal
        else ""
    )
    inform(
        f"{len(rows)} rows lie in regions of several classes of {place.name}, and got that of the smallest one: {got}.{equal}"
    )


def _in_several(around: pd.DataFrame) -> np.ndarray:
    """Rows with regions of several classes around them."""
    n_classes = around.groupby("row")["class"].nunique()
    return n_classes.index[n_classes > 1].to_numpy()


def _colours(named: GeoDataFrame, classes: list[str]) -> list[str]:
    """Colour of each class: the first that a region of it has, else one of its own; none at all where no region has one."""
    coloured = named[named["color"].notna()].drop_duplicates("classification")
    stated = dict(zip(coloured["classification"], coloured["color"], strict=True))
    bare = [name for name in classes if name not in stated]
    if len(bare) == len(classes):
        return []
    stated |= dict(zip(bare, unlike(list(stated.values()), len(bare)), strict=True))
    return [stated[name] for name in classes]
