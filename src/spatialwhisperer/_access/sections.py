"""Sections: for each region of a table its rows, its image, and its tile centres in pixels of that image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialwhisperer._access import mpp as _mpp
from spatialwhisperer._access.images import XY, RasterImage, find_image, rgb_names
from spatialwhisperer._access.tables import get_table, is_spatialdata
from spatialwhisperer._messages import found

if TYPE_CHECKING:
    from anndata import AnnData

_LIBRARY_COLUMNS = ("library_id", "library", "section", "sample", "sample_id", "batch")


@dataclass(frozen=True)
class Section:
    """One region (SpatialData) or library (AnnData) of a table.

    Attributes
    ----------
    name
        Region or library.
    rows
        Positions in the table, ascending.
    xy_px
        Centres, shape (len(rows), 2), x and y in full-resolution pixels of the image; NaN without an image.
    image
        The image under them, or ``None``.
    mpp
        Microns per full-resolution pixel, or ``None`` where nothing states it.
    coordinate_system
        Coordinate system through which shapes and image were matched (SpatialData only).
    """

    name: str
    rows: np.ndarray
    xy_px: np.ndarray
    image: RasterImage | None
    mpp: float | None
    coordinate_system: str | None = None


def sections(
    data: Any,
    *,
    table_key: str | None = None,
    image_key: str | Mapping[str, str] | None = None,
    coordinate_system: str | None = None,
    mpp: float | Mapping[str, float] | None = None,
    spot_pitch_um: float | None = None,
    library_key: str | None = None,
    need_image: bool = True,
    need_mpp: bool = True,
) -> list[Section]:
    """Split a table into sections, each with its image, centres and scale.

    Raises
    ------
    KeyError
        If an image, column or element that is named does not exist, or there is no image and ``need_image``.
    ValueError
        If image or coordinate system is ambiguous, a coordinate is NaN, or ``need_mpp`` and the scale is unknown.
    """
    table = get_table(data, table_key)
    make = _spatialdata_sections if is_spatialdata(data) else _anndata_sections
    out = []
    for section, recorded in make(data, table, image_key, coordinate_system, library_key):
        _check_image(data, section, need_image)
        _check_finite(section, need_image)
        scale = _mpp.resolve_mpp(
            section.name,
            section.image.name if section.image else "",
            mpp=mpp,
            spot_pitch_um=spot_pitch_um,
            xy_px=section.xy_px,
            recorded=recorded,
        )
        if scale is None and need_mpp:
            raise ValueError(_mpp.missing_mpp(section.name))
        out.append(Section(section.name, section.rows, section.xy_px, section.image, scale, section.coordinate_system))
    return out


def section_codes(data: Any, *, table_key: str | None = None, library_key: str | None = None) -> np.ndarray:
    """Section of each row as a string array: the region, or the library; one section where nothing tells them apart."""
    table = get_table(data, table_key)
    if is_spatialdata(data):
        _refuse_library_key(library_key)
        attrs = table.uns.get("spatialdata_attrs")
        return (
            np.full(table.n_obs, "all", object)
            if attrs is None
            else table.obs[attrs["region_key"]].astype(str).to_numpy()
        )
    libraries = [str(name) for name in table.uns.get("spatial", {})]
    if len(libraries) < 2 and library_key is None:
        return np.full(table.n_obs, libraries[0] if libraries else "all", object)
    return table.obs[_library_column(table, libraries, library_key)].astype(str).to_numpy()


def _check_image(data: Any, section: Section, need_image: bool) -> None:
    if need_image and section.image is None:
        place = "image elements" if is_spatialdata(data) else ".uns['spatial'][library]['images']"
        raise KeyError(
            f"Section {section.name!r} has no H&E image ({place} found: {found(rgb_names(data))}). Add one that shares a coordinate "
            "system with the spots (spatialdata.models.Image2DModel.parse(…, transformations=…)), or name it with image_key=…."
        )


def _check_finite(section: Section, need_image: bool) -> None:
    if not need_image:
        return
    bad = ~np.isfinite(section.xy_px).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} of {len(bad)} rows of section {section.name!r} have NaN coordinates (first at row "
            f"{int(section.rows[bad][0])}). Drop them first: adata[np.isfinite(adata.obsm['spatial']).all(axis=1)].copy()."
        )


# ------------------------------------------------------------------------------------------------- AnnData


def _anndata_sections(
    data: AnnData, table: AnnData, image_key: Any, coordinate_system: str | None, library_key: str | None
) -> list[tuple[Section, float | None]]:
    if coordinate_system is not None:
        raise ValueError(
            "coordinate_system applies to SpatialData; an AnnData keeps pixel coordinates in .obsm['spatial']."
        )
    if "spatial" not in table.obsm:
        raise KeyError(
            f"'spatial' not in .obsm (found: {found(table.obsm)}). Tiles need the positions of the rows: x and y in "
            "full-resolution pixels, as sc.read_visium or sq.read.visium store them."
        )
    xy = np.asarray(table.obsm["spatial"], dtype=np.float64)[:, :2]
    images = rgb_names(data)
    codes = section_codes(data, library_key=library_key)
    libraries = table.uns.get("spatial", {})
    out = []
    for name in pd.unique(codes):
        rows = np.flatnonzero(codes == name)
        wanted = image_key.get(name) if isinstance(image_key, Mapping) else image_key
        wanted = name if wanted is None and name in images else wanted
        image = find_image(data, wanted) if wanted is not None else None
        recorded = _mpp.from_library(libraries[image.name]) if image is not None else None
        out.append((Section(name, rows, xy[rows], image, None), recorded))
    return out


def _library_column(table: AnnData, libraries: list[str], library_key: str | None) -> str:
    if library_key is not None:
        if library_key not in table.obs:
            raise KeyError(f"library_key={library_key!r} not in .obs (found: {found(table.obs)}).")
        return library_key
    for column in _LIBRARY_COLUMNS:
        if column in table.obs and set(table.obs[column].astype(str)) <= set(libraries):
            return column
    raise ValueError(
        f".uns['spatial'] holds {len(libraries)} libraries ({found(libraries)}) and no column of .obs names them. "
        "Pass library_key=… with the column that does."
    )


# ------------------------------------------------------------------------------------------------- SpatialData


def _spatialdata_sections(
    data: Any, table: AnnData, image_key: Any, coordinate_system: str | None, library_key: str | None
) -> list[tuple[Section, float | None]]:
    _refuse_library_key(library_key)
    attrs = table.uns.get("spatialdata_attrs")
    if attrs is None:
        raise ValueError(
            "The table annotates no element (no .uns['spatialdata_attrs']). Link it: "
            "spatialdata.models.TableModel.parse(table, region=…, region_key=…, instance_key=…)."
        )
    region_of = table.obs[attrs["region_key"]].astype(str).to_numpy()
    instances = table.obs[attrs["instance_key"]].to_numpy()
    out = []
    for region in pd.unique(region_of):
        rows = np.flatnonzero(region_of == region)
        element = _region_element(data, region)
        image_name = _choose_image(data, region, element, image_key, coordinate_system)
        if image_name is None:
            nan = np.full((len(rows), 2), np.nan)
            out.append((Section(region, rows, nan, None, None), None))
            continue
        image_element = data.images[image_name]
        system, matrix = _to_image(region, element, image_name, image_element, coordinate_system)
        xy = _centroids(element, region, instances[rows])
        xy = xy @ matrix[:2, :2].T + matrix[:2, 2]
        recorded = _mpp.from_element(image_element, image_name)
        if recorded is None and (per_unit := _mpp.from_element(element, region)) is not None:
            recorded = per_unit / _mpp.unit_scale(matrix)
        out.append((Section(region, rows, xy, find_image(data, image_name), None, system), recorded))
    return out


def _refuse_library_key(library_key: str | None) -> None:
    if library_key is not None:
        raise ValueError(
            "library_key applies to AnnData; in a SpatialData the table itself names the region of each row."
        )


def _region_element(data: Any, region: str) -> Any:
    for group in (data.shapes, data.labels, data.points):
        if region in group:
            return group[region]
    raise KeyError(
        f"The table annotates {region!r}, which is not in this SpatialData (shapes: {found(data.shapes)}; "
        f"labels: {found(data.labels)})."
    )


def _systems(element: Any) -> dict[str, np.ndarray]:
    from spatialdata.transformations import get_transformation

    return {str(k): t.to_affine_matrix(XY, XY) for k, t in get_transformation(element, get_all=True).items()}


def _choose_image(data: Any, region: str, element: Any, image_key: Any, coordinate_system: str | None) -> str | None:
    """The image asked for, else the RGB image that shares most coordinate systems with the region."""
    wanted = image_key.get(region) if isinstance(image_key, Mapping) else image_key
    if wanted is not None:
        if wanted not in data.images:
            raise KeyError(f"image_key={wanted!r} is not an image of this SpatialData (found: {found(data.images)}).")
        return str(wanted)
    own = _placing_systems(element) if coordinate_system is None else {coordinate_system}
    shared = {name: len(own & set(_systems(data.images[name]))) for name in rgb_names(data)}
    best = max(shared.values(), default=0)
    names = [name for name, count in shared.items() if count == best and count > 0]
    if len(names) > 1:
        raise ValueError(
            f"Several images share a coordinate system with {region!r}: {found(names)}. Choose one with image_key=… "
            "(a name, or a mapping from region to image)."
        )
    return names[0] if names else None


def _placing_systems(element: Any) -> set[str]:
    """Coordinate systems that say where an element lies; one of microns may be shared by sections that never met."""
    names = set(_systems(element))
    return {name for name in names if not _mpp.MICRONS.search(name)} or names


def _to_image(
    region: str, element: Any, image_name: str, image: Any, coordinate_system: str | None
) -> tuple[str, np.ndarray]:
    """Affine map from the region's own frame to full-resolution pixels of the image."""
    own, its = _systems(element), _systems(image)
    shared = [name for name in own if name in its]
    if coordinate_system is not None:
        if coordinate_system not in shared:
            raise ValueError(
                f"coordinate_system={coordinate_system!r} is not shared by {region!r} (in {found(own)}) and image "
                f"{image_name!r} (in {found(its)})."
            )
        shared = [coordinate_system]
    if not shared:
        raise ValueError(
            f"{region!r} (in {found(own)}) and image {image_name!r} (in {found(its)}) share no coordinate system. "
            "Align them with spatialdata.transformations.set_transformation."
        )
    maps = {name: np.linalg.inv(its[name]) @ own[name] for name in shared}
    first = maps[shared[0]]
    if any(not np.allclose(m, first, rtol=1e-4, atol=0.5) for m in maps.values()):
        raise ValueError(
            f"{region!r} and image {image_name!r} are matched differently in the coordinate systems {found(shared)}. "
            "Choose one with coordinate_system=…."
        )
    return shared[0], first


def _centroids(element: Any, region: str, instances: np.ndarray) -> np.ndarray:
    """Centroids in the element's own frame, in the order of the table's rows."""
    if hasattr(element, "geometry"):
        points = element.geometry.centroid
        index, xy = element.index, np.column_stack([points.x, points.y])
    else:
        index, xy = _label_or_point_centroids(element)
    position = pd.Index(index).get_indexer(pd.Index(instances))
    if (position < 0).any():
        missing = instances[position < 0]
        raise KeyError(
            f"{len(missing)} rows of the table name instances that {region!r} does not hold (such as {found(missing, 3)}). "
            "Match them with spatialdata.match_element_to_table."
        )
    return np.asarray(xy, dtype=np.float64)[position]


def _label_or_point_centroids(element: Any) -> tuple[Any, np.ndarray]:
    from spatialdata import get_centroids
    from spatialdata.transformations import get_transformation

    system, transformation = next(iter(get_transformation(element, get_all=True).items()))
    centroids = get_centroids(element, coordinate_system=system).compute()
    # get_centroids answers in the coordinate system; bring it back to the element's own frame
    inverse = np.linalg.inv(transformation.to_affine_matrix(XY, XY))
    xy = centroids[["x", "y"]].to_numpy() @ inverse[:2, :2].T + inverse[:2, 2]
    return centroids.index, xy
