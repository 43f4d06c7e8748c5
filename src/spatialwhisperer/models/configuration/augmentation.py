"""How tiles are changed at random while an image encoder is trained, as plain frozen values; nothing here computes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spatialwhisperer._storage.schema import Stored

_AT_MOST_ONE = ("stain_scale", "brightness", "contrast", "saturation", "colour_probability")


@dataclass(frozen=True)
class Augmentation(Stored):
    """Random changes of tiles while an image encoder is trained.

    They apply in the order of the attributes: the tile is mirrored and turned, its stains change, then its colours. What a tile gets
    depends on the seed, the epoch and the tile alone. Validation, frozen features and inference see tiles as they are.

    Attributes
    ----------
    flips
        Mirror the tile left to right, and top to bottom, each with probability 1/2.
    right_angles
        Turn the tile by 0, 90, 180 or 270 degrees. With ``flips`` each of the eight symmetric images of a square is as likely.
    rotation
        Turn the tile by an angle between minus and plus this many degrees, with bilinear interpolation; 0 does not.
    fill
        Value, 0 to 255, of the pixels that a rotation moves in from outside the tile.
    stain_scale, stain_shift
        Multiply the concentrations of haematoxylin and of eosin by a factor of ``1 ± stain_scale``, and add a number of
        ``± stain_shift``, in units of optical density (base 10). Each stain has its own numbers.
    brightness, contrast, saturation
        Multiply intensities, differences to the mean grey of the tile, and differences to the grey of the pixel, by a factor of
        ``1 ± value``.
    hue
        Turn colours around the axis of greys by up to this fraction of a full turn, at most 0.5.
    colour_probability
        Fraction of the tiles whose brightness, contrast, saturation and hue change.

    Raises
    ------
    ValueError
        If a value is out of its range.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> flips = sw.models.Augmentation(stain_scale=0, stain_shift=0, brightness=0, contrast=0, saturation=0)
    >>> sw.models.get_preset("bleep").replace(locking="LLU", augmentation=flips).augmentation.right_angles
    True

    Notes
    -----
    Stains are unmixed with the fixed vectors of Ruifrok & Johnston (Anal Quant Cytol Histol 2001) and changed as in Tellez et al.
    (IEEE Trans Med Imaging 2018), who call a scale and shift of 0.05 light and of 0.2 strong.
    """

    flips: bool = True
    right_angles: bool = True
    rotation: float = 0.0
    fill: int = 255
    stain_scale: float = 0.1
    stain_shift: float = 0.02
    brightness: float = 0.1
    contrast: float = 0.1
    saturation: float = 0.1
    hue: float = 0.0
    colour_probability: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in _AT_MOST_ONE:
            _check(name, getattr(self, name), 1)
        _check("rotation", self.rotation, 180)
        _check("fill", self.fill, 255)
        _check("hue", self.hue, 0.5)
        _check("stain_shift", self.stain_shift, math.inf)

    @property
    def changes_stains(self) -> bool:
        """Whether concentrations of stains change."""
        return bool(self.stain_scale or self.stain_shift)

    @property
    def changes_colours(self) -> bool:
        """Whether brightness, contrast, saturation or hue change."""
        return bool(self.colour_probability and (self.brightness or self.contrast or self.saturation or self.hue))


def _check(name: str, value: float, most: float) -> None:
    if isinstance(value, bool) or not 0 <= value <= most or value == math.inf:
        limit = "0 or more" if most == math.inf else f"between 0 and {most:g}"
        raise ValueError(f"{name} of an augmentation must be {limit}, not {value!r}.")
