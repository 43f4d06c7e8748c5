"""Size of a pixel, as the files of microscopes and scanners state it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.sections.scale import Scale

if TYPE_CHECKING:
    from collections.abc import Mapping

_FINEST_UM, _COARSEST_UM = 0.05, 10.0
_LENGTHS_UM = {
    **{"pm": 1e-6, "Å": 1e-4, "nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "mm": 1e3, "cm": 1e4},
    **{"dm": 1e5, "m": 1e6, "in": 25_400.0, "ft": 304_800.0, "thou": 25.4, "mil": 25.4},
}


@dataclass(frozen=True)
class PixelSize:
    """Width and height of a pixel in microns, and the rule that states them."""

    x: float
    y: float
    rule: str

    @property
    def scale(self) -> Scale:
        """The scale of square pixels of the same area."""
        return Scale(float(np.sqrt(self.x * self.y)), self.rule)

    def resized(self, mpp: float, rule: str) -> PixelSize:
        """Pixels of the same proportions with another scale."""
        factor = mpp / self.scale.mpp
        return PixelSize(self.x * factor, self.y * factor, rule)


def of_ome(attributes: Mapping[str, str]) -> PixelSize | None:
    """Pixel size of an OME-TIFF.

    Parameters
    ----------
    attributes
        Attributes of the element ``Pixels``: ``PhysicalSizeX``, ``PhysicalSizeXUnit`` (microns where it is left out), and the same for
        Y. Units that are no length, such as ``pixel``, state no scale.
    """
    sizes = []
    for axis in "XY":
        size = _number(attributes.get(f"PhysicalSize{axis}"))
        unit = _LENGTHS_UM.get(attributes.get(f"PhysicalSize{axis}Unit", "µm").strip())
        if size is not None and unit is not None:
            sizes.append(size * unit)
    return PixelSize(sizes[0], sizes[-1], "OME PhysicalSizeX") if sizes else None


def of_resolution(x: Any, y: Any, unit_um: float, rule: str) -> PixelSize | None:
    """Pixel size by a resolution; ``None`` where no microscope or scanner has it, such as the 72 or 96 dpi of a screen.

    Parameters
    ----------
    x, y
        Pixels per unit.
    unit_um
        The unit in microns.
    rule
        Where it is stated.
    """
    across, down = _number(x), _number(y)
    if across is None or down is None:
        return None
    size = PixelSize(unit_um / across, unit_um / down, rule)
    return size if all(_FINEST_UM <= one <= _COARSEST_UM for one in (size.x, size.y)) else None


def of_openslide(properties: Mapping[str, str]) -> PixelSize | None:
    """Pixel size that openslide finds in the file of a scanner, in its properties ``openslide.mpp-x`` and ``openslide.mpp-y``."""
    x = _number(properties.get("openslide.mpp-x"))
    y = _number(properties.get("openslide.mpp-y"))
    return None if x is None or y is None else PixelSize(x, y, "openslide mpp-x")


def _number(value: Any) -> float | None:
    """A positive finite number, else ``None``."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) and number > 0 else None
