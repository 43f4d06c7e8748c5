"""Whether stored features still show what they were computed from: some rows with their places, and the pixels there."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._access.images import read_pixels
from spatialwhisperer._frozen import frozen
from spatialwhisperer._storage.schema import Stored

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from spatialwhisperer._access.sections.section import Section

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
        x and y of some rows in full-resolution pixels, by section and name: a table that holds some of its rows only, or in another
        order, can be compared with it. Where names repeat in a section, by section and position in it.
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
        most = max(4, _ROWS // max(1, len(sections)))
        for section in _imaged(sections):
            own = names[section.rows]
            at = np.flatnonzero(np.isfinite(section.xy_px).all(axis=1))
            named = at[~own[at].duplicated(keep=False)]
            by_name = len(named) >= min(most, len(at))
            for i in _some(named if by_name else at, most):
                key = _by_name(section, own[i]) if by_name else _by_position(section, int(i))
                x, y = (round(float(v), 2) for v in section.xy_px[i])
                places[key], pixels[key] = (x, y), _around(section, x, y)
        return cls(places, pixels)

    def changed(self, sections: Sequence[Section], names: pd.Index) -> str:
        """What has changed since, as text; empty where nothing has, or nothing can be compared."""
        imaged = list(_imaged(sections))
        if not self.places or not imaged:
            return ""
        some_known = False
        for section in imaged:
            known = self._known(section, names[section.rows])
            some_known |= bool(known)
            for key, i in known.items():
                if np.abs(section.xy_px[i] - self.places[key]).max() > SAME_PX:
                    return f"was computed while row {names[section.rows[i]]!r} lay elsewhere"
            for key in _some(np.array([*known], object), max(1, _LOOKS // len(sections))):
                if self.pixels.get(key) != _around(section, *self.places[key]):
                    name = names[section.rows[known[key]]]
                    return f"was computed from other pixels than those of row {name!r} now"
        return "" if some_known else "was computed of rows with other names"

    def _known(self, section: Section, own: pd.Index) -> dict[str, int]:
        """Rows of a section that are recorded and have a place, as indices into its rows, in the order of these."""
        at = np.flatnonzero(own.isin(self._after(_by_name(section, ""))))
        at = at[~own[at].duplicated(keep=False)]
        known = {_by_name(section, own[i]): i for i in at.tolist()}
        positions = [int(i) for i in self._after(_by_position(section, "")) if i.isdecimal()]
        known |= {_by_position(section, i): i for i in positions if i < len(own)}
        return {key: i for key, i in known.items() if np.isfinite(section.xy_px[i]).all()}

    def _after(self, prefix: str) -> list[str]:
        """What follows a prefix in the keys that begin with it."""
        return [key.removeprefix(prefix) for key in self.places if key.startswith(prefix)]


def _imaged(sections: Sequence[Section]) -> Iterator[Section]:
    return (section for section in sections if section.image is not None)


def _by_name(section: Section, name: object) -> str:
    return f"row {section.name}/{name}"


def _by_position(section: Section, position: int | str) -> str:
    return f"position {section.name}/{position}"


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
