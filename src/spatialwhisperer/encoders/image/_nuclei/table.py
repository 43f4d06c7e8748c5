"""What is known of each nucleus of a tile. Nothing here is compiled, so that facts about the encoder are read at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

MEASURES = (
    "log_area",
    "axis_ratio",
    "circularity",
    "h",
    "h_sd",
    "h_fine",
    "h_core_rim",
    "e",
    "ring_h",
    "ring_e",
    "ring_e_sd",
    "ring_od",
    "ring_white",
    "contrast",
    "log_nearest",
    "log_sixth",
    "log_within_25um",
)
"""Measurements of a nucleus, in the order of the columns."""

X, Y, AREA = range(3)
"""Columns of the places of nuclei: centroid and area, in pixels."""


class Nuclei(NamedTuple):
    """Nuclei of a tile.

    Attributes
    ----------
    places
        Centroid (x, y, of pixel centres) and area of each in pixels, float64 (n, 3).
    measures
        Their `MEASURES`, float32 (n, 17).
    """

    places: np.ndarray
    measures: np.ndarray
