"""Where tiles are and how they are read, as it is stored beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from spatialwhisperer._frozen import frozen
from spatialwhisperer._schema import Stored

At = Literal["spots", "cells", "grid"]
OffSlide = Literal["raise", "nan"]
LowRes = Literal["warn", "error", "allow"]


@dataclass(frozen=True)
class Where(Stored):
    """Which image each section was read from, and at which scale.

    Attributes
    ----------
    mpp, rule
        Microns per full-resolution pixel, and what stated them, by section.
    image
        Image by section.
    coordinate_system, library_key
        As the caller chose them.
    """

    mpp: Mapping[str, float] = field(default_factory=frozen)
    rule: Mapping[str, str] = field(default_factory=frozen)
    image: Mapping[str, str] = field(default_factory=frozen)
    coordinate_system: str | None = None
    library_key: str | None = None

    def agrees(self, other: Where) -> bool:
        """Whether both name the same image and scale wherever both name one."""
        same_image = all(self.image[s] == other.image[s] for s in self.image.keys() & other.image.keys())
        shared = self.mpp.keys() & other.mpp.keys()
        return same_image and all(abs(self.mpp[s] - other.mpp[s]) <= 1e-6 * other.mpp[s] for s in shared)


@dataclass(frozen=True)
class TilesRecord(Stored):
    """What :func:`spatialwhisperer.pp.tiles` stated. Sizes are in microns and pixels."""

    tile_um: float
    tile_px: int | None
    at: At
    off_slide: OffSlide
    on_low_res: LowRes
    where: Where
    stride_um: float | None = None
    tissue: str | None = None
    min_tissue: float | None = None
