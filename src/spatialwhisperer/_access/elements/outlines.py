"""The outline of each row in pixels of its image, and shapes that are drawn in such pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.contract import libraries_of, link_of, scale_factor
from spatialwhisperer._access.elements.circles import radii_of
from spatialwhisperer._access.sections.regions import region_outlines

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData

    from spatialwhisperer._access.sections.section import Section
    from spatialwhisperer._access.slide import Slide

_QUARTER = 8
_PART_OF_PITCH = 0.8


class Outlines:
    """Polygons of the rows of a section, made for a few rows at a time.

    Circles become polygons of 32 corners. Rows without a shape of their own (an AnnData, labels) are circles of the size of a spot, or
    of most of the distance between neighbours; those of a grid are squares.
    """

    def __init__(self, slide: Slide, section: Section) -> None:
        self.section = section
        self._shapes: Any = None
        self._matrix = np.eye(3)
        self._places: np.ndarray | None = None
        if slide.is_spatialdata and section.image is not None:
            found = region_outlines(slide.data, section.name, section.image.name, section.coordinate_system)
            link = link_of(slide.table)
            if found is not None and link is not None:
                self._shapes, self._matrix = found
                instances = slide.table.obs[link.instance_key].to_numpy()[section.rows]
                self._places = self._shapes.index.get_indexer(instances)
        self._square = _edge_px(slide, section)
        self._radius = _radius_px(slide, section) if self._places is None else 0.0

    def of(self, positions: np.ndarray) -> np.ndarray:
        """Polygons of rows, given by their positions in the section; an array of shapely geometries."""
        import shapely

        if self._places is None:
            xy = self.section.xy_px[positions]
            if self._square is not None:
                half = self._square / 2
                return shapely.box(*(xy - half).T, *(xy + half).T)
            return shapely.buffer(shapely.points(xy), self._radius, quad_segs=_QUARTER)
        shapes = self._shapes.iloc[self._places[positions]]
        radii, polygons = radii_of(shapes), shapes.geometry.to_numpy()
        if radii is not None:
            # a circle on the slide is an ellipse in pixels that are not square
            polygons = shapely.buffer(polygons, radii, quad_segs=_QUARTER)
        linear, shift = self._matrix[:2, :2], self._matrix[:2, 2]
        return shapely.transform(polygons, lambda c: c @ linear.T + shift)


def _edge_px(slide: Slide, section: Section) -> float | None:
    """Edge of the tiles of a grid in pixels; ``None`` where the rows are not a grid."""
    if slide.tiles is None or slide.tiles.at != "grid" or section.mpp is None:
        return None
    return slide.tiles.tile_um / section.mpp


def _radius_px(slide: Slide, section: Section) -> float:
    """Half the size of a spot, else most of half the distance between neighbours."""
    from scipy.spatial import cKDTree

    if not slide.is_spatialdata and section.image is not None:
        stated = scale_factor(libraries_of(slide.table)[section.image.name], "spot_diameter_fullres")
        if stated:
            return float(stated) / 2
    places = np.unique(section.xy_px[np.isfinite(section.xy_px).all(axis=1)], axis=0)
    if len(places) < 2:
        return 10.0
    return float(np.median(cKDTree(places).query(places, k=2)[0][:, 1])) * _PART_OF_PITCH / 2


def shapes_on_image(sdata: SpatialData, image: str, frame: GeoDataFrame) -> Any:
    """Shapes that are given in pixels of an image, registered like it."""
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import get_transformation

    return ShapesModel.parse(frame, transformations=dict(get_transformation(sdata.images[image], get_all=True)))
