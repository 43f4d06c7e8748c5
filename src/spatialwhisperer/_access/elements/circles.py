"""Circles among the shapes of a SpatialData."""

from __future__ import annotations

from typing import Any

import numpy as np


def radii_of(element: Any) -> np.ndarray | None:
    """Radius of each circle of an element, in its intrinsic unit; ``None`` where it holds no circles.

    Circles are points with a radius. Polygons may have a column of that name too, as a measure of a cell.
    """
    if "radius" not in getattr(element, "columns", ()) or not hasattr(element, "geometry") or not len(element):
        return None
    if element.geometry.iloc[0].geom_type != "Point":
        return None
    return np.asarray(element["radius"], dtype=float)
