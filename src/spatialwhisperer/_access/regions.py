"""Sections of a SpatialData: the regions that a table annotates, aligned with images through coordinate systems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialwhisperer._access.contract import check_affine, instances_of, link_of
from spatialwhisperer._access.elements.lattice import squared
from spatialwhisperer._access.elements.platforms import of_bins, of_xenium
from spatialwhisperer._access.images import XY, find_image, rgb_names
from spatialwhisperer._access.scale import (
    MICRONS,
    Scale,
    of_transformation,
    of_visium_array,
    stretch_of,
    unit_scale,
)
from spatialwhisperer._access.section import Found, Section
from spatialwhisperer._access.tables import obs_of
from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def region_codes(table: AnnData) -> np.ndarray:
    """Region of each row; one for all where the table annotates no element."""
    link = link_of(table)
    if link is None:
        return np.full(table.n_obs, "all", object)
    column = obs_of(table)[link.region_key]
    missing = column.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"{int(missing.sum())} of {table.n_obs} rows name no region in .obs[{link.region_key!r}] (first row "
            f"{int(np.flatnonzero(missing)[0])}). Fill it in, or drop the rows."
        )
    return column.astype(str).to_numpy(dtype=object)


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
    for region, rows, instances in _annotated(table, codes):
        element = _region_element(sdata, region)
        image_name = _choose_image(sdata, region, element, image_key, coordinate_system)
        if image_name is None:
            nan = np.full((len(rows), 2), np.nan)
            out.append(Found(Section(region, rows, nan, None, None), ()))
            continue
        image_element = sdata.images[image_name]
        system, matrix = _to_image(region, element, image_name, image_element, coordinate_system)
        xy = _centroids(element, region, instances)
        xy = xy @ matrix[:2, :2].T + matrix[:2, 2]
        its = _systems(image_element)
        scales = of_transformation(its, image_name)
        if not scales:
            back = np.linalg.inv(matrix)
            scales = of_transformation({name: own @ back for name, own in _systems(element).items()}, region)
        scales = scales or of_bins(region, element, matrix) or of_xenium(sdata, system, its[system], _systems)
        stretch = stretch_of(its[system]) if not scales or scales[0].stretch == 1 else scales[0].stretch
        if not scales:
            diameter = _diameter(element) * unit_scale(matrix)
            square = squared(xy, stretch)
            scales = of_visium_array(obs_of(table).iloc[rows], square, diameter_px=diameter)
        out.append(Found(Section(region, rows, xy, find_image(sdata, image_name), None, system), scales, stretch))
    return out


def region_positions(sdata: SpatialData, table: AnnData, codes: np.ndarray) -> np.ndarray:
    """Centroid of each row in the intrinsic coordinates of its element, shape (n, 2). The unit may differ between sections."""
    xy = np.full((table.n_obs, 2), np.nan)
    for region, rows, instances in _annotated(table, codes):
        xy[rows] = _centroids(_region_element(sdata, region), region, instances)
    return xy


def region_outlines(
    sdata: SpatialData, region: str, image: str, coordinate_system: str | None
) -> tuple[Any, np.ndarray] | None:
    """Shapes of a region, as a GeoDataFrame, and the affine map from them to the pixels of an image; ``None`` for labels and points."""
    element = _region_element(sdata, region)
    if not hasattr(element, "geometry"):
        return None
    _check_unique(region, element.index)
    return element, _to_image(region, element, image, sdata.images[image], coordinate_system)[1]


def image_scales(sdata: SpatialData, image: str) -> tuple[Scale, ...]:
    """The scales that an image states, by its coordinate systems."""
    return of_transformation(_systems(sdata.images[image]), image)


def image_stretch(sdata: SpatialData, image: str, coordinate_system: str | None) -> float:
    """Width of a pixel of an image divided by its height: in microns, else in the system that is named, else in its first one."""
    scales, its = image_scales(sdata, image), _systems(sdata.images[image])
    if scales:
        return scales[0].stretch
    return stretch_of(its[next(iter(its)) if coordinate_system is None else coordinate_system])


def check_image_system(sdata: SpatialData, image: str, coordinate_system: str | None) -> None:
    """Refuse a coordinate system in which an image does not lie."""
    its = _systems(sdata.images[image])
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


def _region_element(sdata: SpatialData, region: str) -> Any:
    for group in (sdata.shapes, sdata.labels, sdata.points):
        if region in group:
            return group[region]
    raise KeyError(
        f"The table annotates {region!r}, which is not in this SpatialData (shapes: {listing(sdata.shapes)}; "
        f"labels: {listing(sdata.labels)})."
    )


def _diameter(element: Any) -> float:
    """Median diameter of circles, in the intrinsic unit of the element; NaN for other shapes."""
    return 2 * float(np.median(element["radius"])) if "radius" in getattr(element, "columns", ()) else float("nan")


def _systems(element: Any) -> dict[str, np.ndarray]:
    from spatialdata.transformations import get_transformation

    return {str(k): t.to_affine_matrix(XY, XY) for k, t in get_transformation(element, get_all=True).items()}


def _choose_image(
    sdata: SpatialData, region: str, element: Any, image_key: Any, coordinate_system: str | None
) -> str | None:
    """The image that is named, else the RGB image that shares most coordinate systems with the region."""
    wanted = image_key.get(region) if isinstance(image_key, Mapping) else image_key
    if wanted is not None:
        if wanted not in sdata.images:
            raise KeyError(
                f"image_key={wanted!r} is not an image of this SpatialData (found: {listing(sdata.images)})."
            )
        return str(wanted)
    own = _placing_systems(element) if coordinate_system is None else {coordinate_system}
    shared = {name: len(own & set(_systems(sdata.images[name]))) for name in rgb_names(sdata)}
    best = max(shared.values(), default=0)
    names = [name for name, count in shared.items() if count == best and count > 0]
    if len(names) > 1:
        raise ValueError(
            f"Several images share a coordinate system with {region!r}: {listing(names)}. Choose one with image_key=… "
            "(a name, or a mapping from region to image)."
        )
    return names[0] if names else None


def _placing_systems(element: Any) -> set[str]:
    """Coordinate systems in which an element is placed. One of microns is left out: it may be shared by unrelated sections."""
    names = set(_systems(element))
    return {name for name in names if not MICRONS.search(name)} or names


def _to_image(
    region: str, element: Any, image_name: str, image: Any, coordinate_system: str | None
) -> tuple[str, np.ndarray]:
    """Coordinate system through which a region and an image are aligned, and the affine map from the region to image pixels."""
    own, its = _systems(element), _systems(image)
    shared = [name for name in own if name in its]
    if coordinate_system is not None:
        if coordinate_system not in shared:
            raise ValueError(
                f"coordinate_system={coordinate_system!r} is not shared by {region!r} (in {listing(own)}) and image "
                f"{image_name!r} (in {listing(its)})."
            )
        shared = [coordinate_system]
    if not shared:
        raise ValueError(
            f"{region!r} (in {listing(own)}) and image {image_name!r} (in {listing(its)}) share no coordinate system. "
            "Align them with spatialdata.transformations.set_transformation."
        )
    for name in shared:
        check_affine(region, name, own[name])
        check_affine(image_name, name, its[name])
    maps = {name: np.linalg.inv(its[name]) @ own[name] for name in shared}
    first = maps[shared[0]]
    if any(not np.allclose(m, first, rtol=1e-4, atol=0.5) for m in maps.values()):
        raise ValueError(
            f"{region!r} and image {image_name!r} are matched differently in the coordinate systems {listing(shared)}. "
            "Choose one with coordinate_system=…."
        )
    return shared[0], first


def _centroids(element: Any, region: str, instances: np.ndarray) -> np.ndarray:
    """Centroids in the intrinsic coordinates of an element, in the order of the rows."""
    if hasattr(element, "geometry"):
        points = element.geometry.centroid
        _check_unique(region, element.index)
        index, xy = element.index, np.column_stack([points.x, points.y])
    else:
        index, xy = _label_or_point_centroids(element, region)
    position = pd.Index(index).get_indexer(pd.Index(instances))
    if (position < 0).any():
        missing = instances[position < 0]
        raise KeyError(
            f"{len(missing)} rows of the table name instances that {region!r} does not hold (such as {listing(missing, 3)}). "
            "Match them with spatialdata.match_element_to_table."
        )
    return np.asarray(xy, dtype=np.float64)[position]


def _check_unique(region: str, index: pd.Index) -> None:
    if not index.is_unique:
        raise ValueError(
            f"Instances of {region!r} have the same name: {listing(index[index.duplicated()].unique(), 3)}. Give each its own index."
        )


def _label_or_point_centroids(element: Any, region: str) -> tuple[Any, np.ndarray]:
    from spatialdata import get_centroids
    from spatialdata.transformations import get_transformation

    system, transformation = next(iter(get_transformation(element, get_all=True).items()))
    centroids = get_centroids(element, coordinate_system=system).compute()
    # get_centroids returns coordinates of the system, and the intrinsic ones are needed
    matrix = transformation.to_affine_matrix(XY, XY)
    check_affine(region, str(system), matrix)
    inverse = np.linalg.inv(matrix)
    xy = centroids[["x", "y"]].to_numpy() @ inverse[:2, :2].T + inverse[:2, 2]
    return centroids.index, xy
