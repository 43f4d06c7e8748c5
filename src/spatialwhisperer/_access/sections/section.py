"""One section of a slide: rows, image, centres and scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spatialwhisperer._access.sections.scale import GivenPixel, is_given, of_caller
from spatialwhisperer._messages import inform, listing

if TYPE_CHECKING:
    from collections.abc import Iterable

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
    pixel
        The pixel that an ``mpp`` of the caller is about.
    """

    name: str
    rows: np.ndarray
    xy_px: np.ndarray
    image: RasterImage | None
    scale: Scale | None
    coordinate_system: str | None = None
    pixel: GivenPixel = GivenPixel()

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


def say_scales(sections: Iterable[Section]) -> None:
    """Tell the user which scale of each section was taken from the object and by which rule, and of which image's pixels an ``mpp`` is."""
    taken = [
        f"{one.name}: {one.scale.mpp:.4g} µm per pixel{_whose(one.pixel, one.scale)} by {one.scale.rule}{_said(one.scale.stretch)}"
        for one in sections
        if one.scale is not None and (not of_caller(one.scale) or (is_given(one.scale) and one.pixel.image))
    ]
    if taken:
        inform(f"Scale of {listing(taken, 3)}.")


def _whose(pixel: GivenPixel, scale: Scale) -> str:
    return f" of {pixel.image}" if is_given(scale) else ""


def _said(stretch: float) -> str:
    return "" if stretch == 1 else f" (a pixel is {stretch:.3g} times as wide as high; tiles are resampled to squares)"


def missing_mpp(section: Section, factor: float | None = None) -> str:
    """Message of the error for a section whose scale is not known; ``factor`` is that by which a recorded one was outdated."""
    if factor is not None:
        return (
            f"The rows of section {section.name!r} lie {factor:.3g} times as far apart as when sw.pp.tiles recorded its microns per pixel, as "
            f"of an image that was made larger or smaller since. Run sw.pp.tiles again, or pass mpp=…, the microns per {section.pixel.words} "
            "that it has now."
        )
    return (
        f"The microns per pixel of section {section.name!r} are not known. Pass mpp=…, the microns per {section.pixel.words} (or a "
        "mapping from section to it), or spot_pitch_um=…, the centre-to-centre distance of the spots (100 for Visium, 200 for the "
        "first Spatial Transcriptomics arrays). sw.pp.tiles(data, tile_um=…, mpp=…) states it once for all later calls. Or "
        "register the image to a coordinate system named 'microns'."
    )


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
