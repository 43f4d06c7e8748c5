"""Whether stored features still show what they were computed from: some rows with their places, and the pixels there."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._access.images import read_boxes
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

_TELLING = 3
"""Rows at least whose pixels are of several colours, before a section that was moved is taken for the same."""

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
            here: dict[str, tuple[float, float]] = {}
            for i in _some(named if by_name else at, most):
                key = _by_name(section, own[i]) if by_name else _by_position(section, int(i))
                x, y = (round(float(v), 2) for v in section.xy_px[i])
                here[key] = x, y
            places |= here
            pixels |= zip(here, map(_checksum, _around(section, [*here.values()])), strict=True)
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
            if known and (why := self._differs(section, known, names[section.rows], max(1, _LOOKS // len(sections)))):
                return why
        return "" if some_known else "was computed of rows with other names"

    def _differs(self, section: Section, known: Mapping[str, int], own: pd.Index, most: int) -> str:
        """What has changed in a section, as text; pixels around so many rows at most are compared where no row moved."""
        moves = np.array([section.xy_px[i] - self.places[key] for key, i in known.items()])
        far = np.abs(moves).max(axis=1)
        if far.max() > SAME_PX:
            row = own[[*known.values()][int(far.argmax())]]
            together = self._moved_together(section, known, moves)
            return "" if together else f"was computed while row {row!r} lay elsewhere on the image"
        looked = _some(np.array([*known], object), most).tolist()
        boxes = _around(section, [self.places[key] for key in looked])
        other = [key for key, box in zip(looked, boxes, strict=True) if self.pixels.get(key) != _checksum(box)]
        return f"was computed from other pixels than those of row {own[known[other[0]]]!r} now" if other else ""

    def _moved_together(self, section: Section, known: Mapping[str, int], moves: np.ndarray) -> bool:
        """Whether rows and pixels moved by the same whole pixels, as in a part that was cut out of a slide."""
        shift = np.rint(np.median(moves, axis=0))
        if np.abs(moves - shift).max() > SAME_PX / 5:
            return False
        # of what is cut off nothing is seen
        seen = [key for key, i in known.items() if _on_image(section, i)]
        looked = _some(np.array(seen, object), _LOOKS).tolist()
        places = [(x + shift[0], y + shift[1]) for x, y in (self.places[key] for key in looked)]
        boxes = _around(section, places)
        if any(self.pixels.get(key) != _checksum(box) for key, box in zip(looked, boxes, strict=True)):
            return False
        # pixels of one colour are the same in many places
        return sum(np.ptp(box) > 0 for box in boxes) >= min(_TELLING, len(known))

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


def _on_image(section: Section, i: int) -> bool:
    """Whether the pixels around a row lie on the image, and not across its edge."""
    assert section.image is not None
    level, size = section.image.levels[0], np.array(section.image.size_px)
    reach = (_REACH_PX + 1) * np.array([level.scale_x, level.scale_y])
    return bool(((section.xy_px[i] >= reach) & (section.xy_px[i] <= size - reach)).all())


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


def _around(section: Section, places: Sequence[tuple[float, float]]) -> list[np.ndarray]:
    """The pixels around places, uint8, each of shape (3, y, x)."""
    assert section.image is not None
    level = section.image.levels[0]
    at = [(int(x / level.scale_x), int(y / level.scale_y)) for x, y in places]
    reach = _REACH_PX
    return read_boxes(level, [(x - reach, y - reach, x + reach + 1, y + reach + 1) for x, y in at])


def _checksum(pixels: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(pixels).data)
