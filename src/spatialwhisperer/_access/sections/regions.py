"""Sections of a SpatialData: the regions that a table annotates, aligned with images through coordinate systems."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialwhisperer._access.contract import check_affine, instances_of, link_of
from spatialwhisperer._access.elements.circles import radii_of
from spatialwhisperer._access.images import XY, find_image
from spatialwhisperer._access.sections.choice import choose_image
from spatialwhisperer._access.sections.lattice import ARRAY_COLUMNS, squared
from spatialwhisperer._access.sections.platforms import of_bins, of_wsidata, of_xenium, pixel_of
from spatialwhisperer._access.sections.scale import (
    Scale,
    of_transformation,
    of_visium_array,
    stretch_of,
    unit_scale,
)
from spatialwhisperer._access.sections.section import Found, Section
from spatialwhisperer._access.sections.systems import moved, placing_systems, systems_of, to_image
from spatialwhisperer._access.table.groups import check_all_named, group_names
from spatialwhisperer._access.tables import obs_of
from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData


def region_codes(table: AnnData) -> np.ndarray:
    """Region of each row; one for all where the table annotates no element."""
    link = link_of(table)
    if link is None:
        return np.full(table.n_obs, "all", object)
    names = group_names(obs_of(table)[link.region_key])
    check_all_named(names, "region", link.region_key, "Fill it in, or drop the rows.")
    return names


def region_sections(
    sdata: SpatialData,
    table: AnnData,
    codes: np.ndarray,
    *,
    image_key: str | Mapping[str, str] | None,
    coordinate_system: str | None,
) -> list[Found]:
    """Sections of a SpatialData with images, centres and what states their scale.

    Raises
    ------
    KeyError
        If an element or image that is named does not exist.
    ValueError
        If the table annotates no element, or image or coordinate system is ambiguous.
    """
    out = []
    annotated = _annotated(table, codes)
    elements = _region_elements(sdata, table, [region for region, _, _ in annotated])
    placing = placing_systems(elements)
    for region, rows, instances in annotated:
        element = elements[region]
        systems = placing[region] if coordinate_system is None else [{coordinate_system}]
        image_name = choose_image(sdata, region, element, image_key, coordinate_system, systems)
        if image_name is None:
            nan = np.full((len(rows), 2), np.nan)
            out.append(Found(Section(region, rows, nan, None, None), ()))
            continue
        image_element = sdata.images[image_name]
        system, matrix = to_image(region, element, image_name, image_element, coordinate_system)
        xy = _centroids(element, region, instances, _leave_out(sdata, table, list(elements)))
        xy = moved(xy, matrix)
        scales = _stated(sdata, region, element, image_name, system, matrix)
        its = stretch_of(systems_of(image_element)[system])
        stretch = scales[0].stretch if scales and scales[0].stretch != 1 else its
        diameter = _diameter(element) * unit_scale(matrix)
        scales += of_visium_array(_array_columns(table, rows), squared(xy, stretch), diameter_px=diameter)
        image, pixel = find_image(sdata, image_name), pixel_of(sdata, image_name)
        out.append(Found(Section(region, rows, xy, image, None, system, pixel), scales, stretch))
    return out


def _stated(
    sdata: SpatialData, region: str, element: Any, image: str, system: str, matrix: np.ndarray
) -> tuple[Scale, ...]:
    """Every scale that elements and coordinate systems state for the image of a region."""
    its = systems_of(sdata.images[image])
    back = np.linalg.inv(matrix)
    # in a system where both lie, the image itself says how large its pixels are
    own = {name: placed @ back for name, placed in systems_of(element).items() if name not in its}
    return (
        *of_transformation(its, image),
        *of_transformation(own, region),
        *of_wsidata(sdata, image),
        *of_bins(region, element, matrix),
        *of_xenium(sdata, system, its[system], systems_of),
    )


def _array_columns(table: AnnData, rows: np.ndarray) -> pd.DataFrame:
    """The indices of the spots on their array, as far as the table has them."""
    obs = obs_of(table)
    return obs[[column for column in ARRAY_COLUMNS if column in obs]].iloc[rows]


def region_positions(sdata: SpatialData, table: AnnData, codes: np.ndarray) -> np.ndarray:
    """Centroid of each row in the intrinsic coordinates of its element, shape (n, 2). The unit may differ between sections."""
    xy = np.full((table.n_obs, 2), np.nan)
    annotated = _annotated(table, codes)
    elements = _region_elements(sdata, table, [region for region, _, _ in annotated])
    for region, rows, instances in annotated:
        xy[rows] = _centroids(elements[region], region, instances, _leave_out(sdata, table, list(elements)))
    return xy


def region_outlines(
    sdata: SpatialData, region: str, image: str, coordinate_system: str | None
) -> tuple[Any, np.ndarray] | None:
    """Shapes of a region, as a GeoDataFrame, and the affine map from them to the pixels of an image; ``None`` for labels and points."""
    element = sdata[region]
    if not hasattr(element, "geometry"):
        return None
    _check_unique(region, element.index)
    return element, to_image(region, element, image, sdata.images[image], coordinate_system)[1]


def image_scales(sdata: SpatialData, image: str) -> tuple[Scale, ...]:
    """The scales that an image states, by its coordinate systems."""
    return (*of_transformation(systems_of(sdata.images[image]), image), *of_wsidata(sdata, image))


def image_stretch(sdata: SpatialData, image: str, coordinate_system: str | None) -> float:
    """Width of a pixel of an image divided by its height: in microns, else in the system that is named, else in its first one."""
    scales, its = image_scales(sdata, image), systems_of(sdata.images[image])
    if scales:
        return scales[0].stretch
    return stretch_of(its[next(iter(its)) if coordinate_system is None else coordinate_system])


def check_image_system(sdata: SpatialData, image: str, coordinate_system: str | None) -> None:
    """Refuse a coordinate system in which an image does not lie."""
    its = systems_of(sdata.images[image])
    if coordinate_system is not None and coordinate_system not in its:
        raise ValueError(
            f"coordinate_system={coordinate_system!r} does not hold image {image!r} (in {listing(its)}). Leave it out, or align the "
            "image with spatialdata.transformations.set_transformation."
        )


def _annotated(table: AnnData, codes: np.ndarray) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Region, rows and their instances, region by region."""
    link = link_of(table)
    if link is None:
        raise ValueError(
            "The table annotates no element (no .uns['spatialdata_attrs']). Link it: "
            "spatialdata.models.TableModel.parse(table, region=…, region_key=…, instance_key=…)."
        )
    instances = instances_of(table, link)
    return [
        (str(region), rows, instances[rows])
        for region in pd.unique(codes)
        for rows in [np.flatnonzero(codes == region)]
    ]


def _region_elements(sdata: SpatialData, table: AnnData, regions: Sequence[str]) -> dict[str, Any]:
    """The elements that a table annotates, by name.

    Raises
    ------
    KeyError
        If one is not there. The message names the call that leaves its rows out.
    """
    elements = {name: group[name] for group in (sdata.points, sdata.labels, sdata.shapes) for name in group}
    gone = [region for region in regions if region not in elements]
    if gone:
        left = [region for region in regions if region in elements]
        raise KeyError(
            f"The table annotates {listing(map(repr, gone), 3)}, which is not in this SpatialData (shapes: {listing(sdata.shapes)}; "
            f"labels: {listing(sdata.labels)}). {_leave_out(sdata, table, left)}"
        )
    return {region: elements[region] for region in regions}


def _leave_out(sdata: SpatialData, table: AnnData, regions: Sequence[str]) -> str:
    """The call that keeps the rows of the elements that are named; another remedy where there are none."""
    if not regions:
        return "Add it under this name, or leave the table out: del sdata.tables[…]."
    name = next((name for name, own in sdata.tables.items() if own is table), "table")
    link = table.uns["spatialdata_attrs"]
    # an inner join leaves out labels, and older versions keep the names of all regions
    return (
        f"Leave such rows out: sdata[{name!r}] = spatialdata.models.TableModel.parse(spatialdata.join_spatialelement_table(sdata=sdata, "
        f"spatial_element_names={list(regions)!r}, table_name={name!r}, how='left')[1], region={list(regions)!r}, "
        f"region_key={link['region_key']!r}, instance_key={link['instance_key']!r}, overwrite_metadata=True)."
    )


def _diameter(element: Any) -> float:
    """Median diameter of circles, in the intrinsic unit of the element; NaN for other shapes."""
    radii = radii_of(element)
    return float("nan") if radii is None else 2 * float(np.median(radii))


def _centroids(element: Any, region: str, instances: np.ndarray, remedy: str) -> np.ndarray:
    """Centroids in the intrinsic coordinates of an element, in the order of the rows; ``remedy`` is for rows that it does not hold."""
    if hasattr(element, "geometry"):
        points = element.geometry.centroid
        index, xy = element.index, np.column_stack([points.x, points.y])
    else:
        index, xy = _label_or_point_centroids(element, region)
    _check_unique(region, index)
    position = pd.Index(index).get_indexer(pd.Index(instances))
    if (position < 0).any():
        missing = instances[position < 0]
        raise KeyError(
            f"{len(missing)} rows of the table name instances that {region!r} does not hold (such as {listing(missing, 3)}). "
            + (_how_to_convert(pd.Index(missing), pd.Index(index), region) or remedy)
        )
    return np.asarray(xy, dtype=np.float64)[position]


def _how_to_convert(missing: pd.Index, held: pd.Index, region: str) -> str:
    """What to do about instances that were not found where, of the same text, they have another type; else empty."""
    if missing.astype(str).isin(held.astype(str)).any():
        kind = "str" if held.inferred_type == "string" else str(held.dtype)
        return (
            f"They are {missing.inferred_type} ({missing.dtype}) in the table and {held.inferred_type} ({held.dtype}) in {region!r}: convert "
            f"the column of the table with .astype({kind!r})."
        )
    return ""


def _check_unique(region: str, index: pd.Index) -> None:
    if not index.is_unique:
        raise ValueError(
            f"Instances of {region!r} have the same name: {listing(index[index.duplicated()].unique(), 3)}. Give each its own index."
        )


def _label_or_point_centroids(element: Any, region: str) -> tuple[Any, np.ndarray]:
    from spatialdata import get_centroids
    from spatialdata.transformations import get_transformation

    if hasattr(element, "npartitions"):
        # points; some versions of spatialdata end in an error of pandas where a name comes twice
        _check_unique(region, element.index.compute())
    system, transformation = next(iter(get_transformation(element, get_all=True).items()))
    centroids = get_centroids(element, coordinate_system=system).compute()
    # get_centroids returns coordinates of the system, and the intrinsic ones are needed
    matrix = transformation.to_affine_matrix(XY, XY)
    check_affine(region, str(system), matrix)
    inverse = np.linalg.inv(matrix)
    xy = moved(centroids[["x", "y"]].to_numpy(), inverse)
    return centroids.index, xy
