"""Where tiles are and how they are read, as it is stored beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import eq
from typing import Any, Literal, TypeVar

from spatialwhisperer._access.scale import is_measured
from spatialwhisperer._frozen import frozen
from spatialwhisperer._schema import Stored, from_plain

V = TypeVar("V")

At = Literal["spots", "cells", "grid"]
OffSlide = Literal["raise", "nan"]
LowRes = Literal["warn", "error", "allow"]

_ALIKE = 1e-6
"""Scales that differ by less, relative to the scale, are the same."""

_MEASURED = 0.01
"""The same for scales that were measured on the spots: on some of the rows they differ in the last digits."""


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
        return same_image and all(self._same_scale(other, s) for s in self.mpp.keys() & other.mpp.keys())

    def _same_scale(self, other: Where, section: str) -> bool:
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
    return Where(
        mpp=_same((p.mpp for p in places), lambda a, b: abs(a - b) <= _ALIKE * b),
        image=_same(p.image for p in places),
        coordinate_system=_one(p.coordinate_system for p in places),
        library_key=_one(p.library_key for p in places),
    )


def _same(mappings: Iterable[Mapping[str, V]], alike: Callable[[V, V], bool] = eq) -> dict[str, V]:
    """Entries that every mapping which has them gives the same value."""
    first: dict[str, V] = {}
    differ = set()
    for mapping in mappings:
        for name, value in mapping.items():
            if not alike(first.setdefault(name, value), value):
                differ.add(name)
    return {name: value for name, value in first.items() if name not in differ}


def _one(values: Iterable[str | None]) -> str | None:
    """The one value that is stated, if there is but one."""
    stated = {value for value in values if value is not None}
    return stated.pop() if len(stated) == 1 else None


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
