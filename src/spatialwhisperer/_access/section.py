"""One section of a slide: rows, image, centres and scale."""

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
        Indices of its rows in the table, ascending.
    xy_px
        x and y of each row in full-resolution pixels of the image, shape (len(rows), 2). NaN for a region of a SpatialData without
        an image.
    image
        Its image, or ``None``.
    scale
        Microns per full-resolution pixel and the rule that states them, or ``None`` where they are not known.
    coordinate_system
        Coordinate system through which shapes and image were aligned (SpatialData only).
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

    def pixel_um(self, mpp: float) -> tuple[float, float]:
        """Width and height of a pixel in microns, where ``mpp`` are those of a square pixel of the same area."""
        stretch = 1.0 if self.scale is None else self.scale.stretch
        return mpp * stretch**0.5, mpp / stretch**0.5


@dataclass(frozen=True)
class Found:
    """A section without its scale, every scale that the object states for it, and the width of its pixels divided by their height."""

    section: Section
    scales: tuple[Scale, ...]
    stretch: float = 1.0
