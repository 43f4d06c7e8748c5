"""The one place that knows how AnnData and SpatialData differ.

Everything else asks here for the table, the image, the tile centres, the microns per pixel and the row order.
"""

from __future__ import annotations

from spatialwhisperer._access.grid import Grid, add_instances_table, add_tile_grid, check_grid_names, grid_table
from spatialwhisperer._access.images import Level, RasterImage, find_image, raster_images, read_pixels, rgb_names
from spatialwhisperer._access.mpp import image_mpp, missing_mpp
from spatialwhisperer._access.positions import ARRAY_COLUMNS, positions
from spatialwhisperer._access.sections import Section, section_codes, sections
from spatialwhisperer._access.tables import add_annotating_table, check_name, get_table, is_spatialdata, table_name
from spatialwhisperer._checks import positive

__all__ = [
    "ARRAY_COLUMNS",
    "Grid",
    "Level",
    "RasterImage",
    "Section",
    "add_annotating_table",
    "add_instances_table",
    "add_tile_grid",
    "check_grid_names",
    "check_name",
    "find_image",
    "get_table",
    "grid_table",
    "image_mpp",
    "is_spatialdata",
    "missing_mpp",
    "positions",
    "positive",
    "raster_images",
    "read_pixels",
    "rgb_names",
    "section_codes",
    "sections",
    "table_name",
]
