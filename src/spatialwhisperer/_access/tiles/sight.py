"""Whether stored features still show what they were computed from: some rows with their places, and the pixels there."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._access.images import read_pixels
from spatialwhisperer._frozen import frozen
from spatialwhisperer._schema import Stored

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from spatialwhisperer._access.section import Section

SAME_PX = 0.5
"""Places that are so near each other are the same."""

_ROWS, _LOOKS = 64, 8
"""Rows that are recorded, and those of them whose pixels a comparison reads, of all sections together; each has four and one at least."""

_REACH_PX = 4


@dataclass(frozen=True)
class Sight(Stored):
    """What is stored beside features of where rows lay and what was there.

    Attributes
    ----------
    places
        x and y of some rows by name, in full-resolution pixels. A table that holds some of its rows only, or in another order, can
        be compared with it.
    pixels
        CRC-32 of the pixels around each of these rows.
    """

    places: Mapping[str, tuple[float, float]] = field(default_factory=frozen)
    pixels: Mapping[str, int] = field(default_factory=frozen)

    @classmethod
    def of(cls, sections: Sequence[Section], names: pd.Index) -> Sight:
        """Look at rows from all over the sections, by their names in the table."""
        places: dict[str, tuple[float, float]] = {}
        pixels: dict[str, int] = {}
        single = ~names.duplicated(keep=False)
        for section, at in _imaged(sections, single):
            for i in _some(at, max(4, _ROWS // len(sections))):
                x, y = (round(float(v), 2) for v in section.xy_px[i])
                name = str(names[section.rows[i]])
                places[name], pixels[name] = (x, y), _around(section, x, y)
        return cls(places, pixels)

    def changed(self, sections: Sequence[Section], names: pd.Index) -> str:
        """What has changed since, as text; empty where nothing has, or nothing can be compared."""
        if not self.places or not any(section.image is not None for section in sections):
            return ""
        known = names.isin(list(self.places))
        known[known] = ~names[known].duplicated(keep=False)
        for section, at in _imaged(sections, known):
            for i in at:
                name = str(names[section.rows[i]])
                if np.abs(section.xy_px[i] - self.places[name]).max() > SAME_PX:
                    return f"was computed while row {name!r} lay elsewhere"
            for i in _some(at, max(1, _LOOKS // len(sections))):
                name = str(names[section.rows[i]])
                if self.pixels.get(name) != _around(section, *self.places[name]):
                    return f"was computed from other pixels than those of row {name!r} now"
        return "" if known.any() else "was computed of rows with other names"


def _imaged(sections: Sequence[Section], wanted: np.ndarray) -> Iterator[tuple[Section, np.ndarray]]:
    """Sections with an image, and which of their wanted rows have a place, as indices into the rows of the section."""
    for section in sections:
        if section.image is not None:
            yield section, np.flatnonzero(wanted[section.rows] & np.isfinite(section.xy_px).all(axis=1))


def _some(values: np.ndarray, most: int) -> np.ndarray:
    """So many values at most, from the first to the last in equal steps."""
    if len(values) <= most:
        return values
    return values[np.linspace(0, len(values) - 1, most).round().astype(int)]


def _around(section: Section, x: float, y: float) -> int:
    assert section.image is not None
    level = section.image.levels[0]
    column, row = int(x / level.scale_x), int(y / level.scale_y)
    box = read_pixels(level, column - _REACH_PX, row - _REACH_PX, column + _REACH_PX + 1, row + _REACH_PX + 1)
    return zlib.crc32(np.ascontiguousarray(box).data)
