"""One section of a slide: rows, image, centres and scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    import numpy as np

    from spatialwhisperer._access.images import RasterImage
    from spatialwhisperer._access.sections.scale import Scale


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


def check_named(argument: str, given: object, sections: Mapping[str, str | None]) -> None:
    """Refuse a mapping that leaves a section out and names what is no section and no image. Names beside those of all sections do no harm.

    Parameters
    ----------
    argument
        Its name.
    given
        What was passed; anything but a mapping is fine.
    sections
        The image of each section; ``None`` where it has none, and needs no entry.

    Raises
    ------
    KeyError
        If there is such a name.
    """
    if not isinstance(given, Mapping):
        return
    images = {image for image in sections.values() if image is not None}
    unknown = [name for name in given if name not in sections and name not in images]
    bare = [name for name, image in sections.items() if image is not None and not {name, image} & set(given)]
    if unknown and bare:
        others = images - set(sections)
        raise KeyError(
            f"{argument} names {listing(map(repr, unknown), 3)}, which is no section of this object, and says nothing of {listing(bare, 3)} "
            f"(sections: {listing(sections)}{f'; images: {listing(sorted(others))}' if others else ''}). Correct the name."
        )
