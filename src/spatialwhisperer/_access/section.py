"""One section of a slide: its rows, its image, its centres and its scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from spatialwhisperer._access.images import RasterImage
    from spatialwhisperer._access.scale import Scale


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
    scale
        Microns per full-resolution pixel and what states them, or ``None`` where nothing does.
    coordinate_system
        Coordinate system through which shapes and image were matched (SpatialData only).
    """

    name: str
    rows: np.ndarray
    xy_px: np.ndarray
    image: RasterImage | None
    scale: Scale | None
    coordinate_system: str | None = None

    @property
    def mpp(self) -> float | None:
        """Microns per full-resolution pixel, or ``None``."""
        return None if self.scale is None else self.scale.mpp


@dataclass(frozen=True)
class Found:
    """A section before its scale is settled: everything that the object itself states about its scale."""

    section: Section
    scales: tuple[Scale, ...]
