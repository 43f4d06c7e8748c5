"""What is stored beside tiles and features about where they were read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from spatialwhisperer._access.sections.scale import is_measured
from spatialwhisperer._frozen import frozen
from spatialwhisperer._storage.schema import Stored, from_plain

At = Literal["spots", "cells", "grid"]
OffSlide = Literal["raise", "nan"]
LowRes = Literal["warn", "error", "allow"]

_ALIKE = 1e-6
"""Scales with a smaller relative difference are the same."""

_MEASURED = 0.01
"""The same for scales measured on the spots, which differ slightly when only some of the rows are there."""


@dataclass(frozen=True)
class Where(Stored):
    """Which image each section was read from, and at which scale.

    Attributes
    ----------
    mpp, rule
        Microns per pixel of the image of each section (of the full resolution in an AnnData), and the rule that stated them.
    image
        Image of each section.
    coordinate_system, library_key
        As the caller passed them.
    """

    mpp: Mapping[str, float] = field(default_factory=frozen)
    rule: Mapping[str, str] = field(default_factory=frozen)
    image: Mapping[str, str] = field(default_factory=frozen)
    coordinate_system: str | None = None
    library_key: str | None = None

    def differs(self, asked: Where) -> str:
        """How what was read differs from what is asked for, as text; empty where it holds all of it, and perhaps more."""
        new = [section for section in asked.image if section not in self.image]
        if new:
            return f"was computed without section {new[0]!r}"
        same_image = all(self.image[section] == image for section, image in asked.image.items())
        if same_image and all(self.same_scale(asked, section) for section in self.mpp.keys() & asked.mpp.keys()):
            return ""
        return "was computed from another image or at another scale than is asked for"

    def same_scale(self, other: Where, section: str) -> bool:
        """Whether both, which state the scale of a section, state the same."""
        measured = all(is_measured(where.rule.get(section, "")) for where in (self, other))
        return abs(self.mpp[section] - other.mpp[section]) <= (_MEASURED if measured else _ALIKE) * other.mpp[section]


def places_of(records: Iterable[Mapping[str, Any] | None]) -> tuple[Where, ...]:
    """The `Where` of each record that holds one that this version reads."""
    out = []
    for record in records:
        if record is None or "where" not in record:
            continue
        try:
            out.append(from_plain(Where, record["where"], "a record"))
        except ValueError:
            continue
    return tuple(out)


def agreed(places: Sequence[Where]) -> Where:
    """What several records say alike; what two of them say differently is left out."""
    scales = {s: [p for p in places if s in p.mpp] for s in dict.fromkeys(s for p in places for s in p.mpp)}
    images = {s: _one(p.image.get(s) for p in places) for s in dict.fromkeys(s for p in places for s in p.image)}
    return Where(
        mpp={s: own[0].mpp[s] for s, own in scales.items() if all(p.same_scale(own[0], s) for p in own)},
        image={s: name for s, name in images.items() if name is not None},
        coordinate_system=_one(p.coordinate_system for p in places),
        library_key=_one(p.library_key for p in places),
    )


def _one(values: Iterable[str | None]) -> str | None:
    """The one value that is stated, if there is but one."""
    stated = {value for value in values if value is not None}
    return stated.pop() if len(stated) == 1 else None


@dataclass(frozen=True)
class TilesRecord(Stored):
    """What a call of :func:`spatialwhisperer.pp.tiles` recorded: its arguments, and scale and image of each section.

    ``implied`` says that nobody chose the grid: a function laid it over a slide without a table, for its model.
    """

    tile_um: float
    tile_px: int | None
    at: At
    off_slide: OffSlide
    on_low_res: LowRes
    where: Where
    stride_um: float | None = None
    tissue: str | None = None
    min_tissue: float | None = None
    implied: bool = False
