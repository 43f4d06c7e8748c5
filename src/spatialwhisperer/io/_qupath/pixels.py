"""The pixels in which a file of QuPath states its coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.contract import check_affine
from spatialwhisperer._access.sections.platforms import slide_system
from spatialwhisperer._access.sections.systems import moved, systems_of
from spatialwhisperer._access.tables import is_spatialdata
from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer._access.images import RasterImage


@dataclass(frozen=True)
class Pixels:
    """The pixels of a file.

    Attributes
    ----------
    matrix
        Affine map to them from the pixels of the image that is read, shape (3, 3).
    words
        What they are.
    """

    matrix: np.ndarray
    words: str

    @classmethod
    def of(cls, data: AnnData | SpatialData, image: RasterImage | None, system: str | None) -> Pixels:
        """The pixels of a coordinate system, else those of the full resolution as far as the object tells.

        Parameters
        ----------
        data
            The object.
        image
            The image that is read, or ``None``.
        system
            What the caller says: the coordinate system.

        Raises
        ------
        ValueError
            If there is no such system.
        """
        if not is_spatialdata(data) or image is None:
            if system is not None:
                raise ValueError(
                    f"pixel_system={system!r} names a coordinate system of a SpatialData, and the coordinates of an AnnData are pixels "
                    "of the full resolution already. Leave it out."
                )
            return cls(np.eye(3), "pixels of the full resolution")
        its = systems_of(data.images[image.name])
        chosen = slide_system(data, image.name) if system is None else system
        if chosen is None:
            width, height = image.size_px
            return cls(np.eye(3), f"pixels of the image {image.name!r} ({width:.0f} x {height:.0f})")
        if chosen not in its:
            raise ValueError(
                f"pixel_system={chosen!r} does not hold the image {image.name!r} (in {listing(its)}). Choose one of these, or leave it out."
            )
        check_affine(image.name, chosen, its[chosen])
        return cls(its[chosen], f"units of the coordinate system {chosen!r}")

    def of_image(self, xy: np.ndarray) -> np.ndarray:
        """Points that are given in pixels of the image, shape (n, 2)."""
        return moved(xy, self.matrix)

    def on_image(self, geometries: Any) -> Any:
        """Geometries of the file in pixels of the image."""
        import shapely

        back = np.linalg.inv(self.matrix)
        return shapely.transform(geometries, lambda xy: moved(xy, back))
