"""Objects of a GeoJSON file of QuPath, one after the other, so that memory holds the text of one."""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BLOCK = 2**20
_BETWEEN = re.compile(r"[\s,]*")
_OLD_KINDS = {
    "PathAnnotationObject": "annotation",
    "PathDetectionObject": "detection",
    "PathCellObject": "cell",
    "PathTileObject": "tile",
}
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class QuPathObject:
    """One object of QuPath.

    Attributes
    ----------
    kind
        "annotation", "detection", "cell", "tile" or another type of QuPath.
    geometry
        A shapely geometry in the coordinates of the file; an empty one where there is none.
    label
        Name of its class, or ``None``.
    colour
        Colour of its class as ``#rrggbb``, or ``None``.
    name
        Name of the object, or ``None``.
    """

    kind: str
    geometry: Any
    label: str | None
    colour: str | None
    name: str | None


def read_objects(path: Path) -> Iterator[QuPathObject]:
    """Objects of a file: a FeatureCollection, a list of features or one feature, plain or compressed with gzip.

    Raises
    ------
    ValueError
        If it is damaged, or not GeoJSON.
    """
    import shapely

    with path.open("rb") as raw:
        packed = raw.read(2) == _GZIP
    opened: Any = gzip.open(path, "rt", encoding="utf-8-sig") if packed else path.open(encoding="utf-8-sig")
    number = 0
    try:
        with opened as text:
            for feature in _features(text):
                number += 1
                yield _object(feature)
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, OSError, shapely.errors.ShapelyError) as error:
        raise ValueError(
            f"{path} could not be read as GeoJSON of QuPath (object {max(number, 1)}): {type(error).__name__}: {error}. Export it again: "
            "File > Export objects as GeoJSON, as a FeatureCollection."
        ) from error


class _Source:
    """Values of a JSON text, one after the other."""

    def __init__(self, text: IO[str]) -> None:
        self._text, self._buffer, self._position = text, "", 0
        self._decoder = json.JSONDecoder()

    def ahead(self) -> str:
        """The sign with which the next value starts, or that stands in its place; empty at the end."""
        while True:
            gap = _BETWEEN.match(self._buffer, self._position)
            self._position = self._position if gap is None else gap.end()
            if self._position < len(self._buffer):
                return self._buffer[self._position]
            if not self._more():
                return ""

    def skip(self, sign: str) -> None:
        """Pass a sign that is expected."""
        if self.ahead() != sign:
            raise ValueError(f"expected {sign!r}, found {self.ahead()!r}")
        self._position += 1

    def value(self) -> Any:
        """The next value."""
        self.ahead()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._position)
            except ValueError:
                if not self._more():
                    raise ValueError("it ends within an object: the file is truncated") from None
                continue
            # a number may go on in the next block
            if end < len(self._buffer) or isinstance(value, str | list | dict) or not self._more():
                self._position = end
                return value

    def _more(self) -> bool:
        # as much again as is held, so that a large value is not decoded many times
        more = self._text.read(_BLOCK + len(self._buffer) - self._position)
        self._buffer, self._position = self._buffer[self._position :] + more, 0
        return bool(more)


def _features(text: IO[str]) -> Iterator[dict[str, Any]]:
    """Features in the order of the file."""
    source = _Source(text)
    if source.ahead() == "[":
        yield from _listed(source)
        return
    if source.ahead() != "{":
        raise ValueError("it is not JSON")
    source.skip("{")
    members: dict[str, Any] = {}
    while source.ahead() != "}":
        name = source.value()
        source.skip(":")
        if name == "features" and source.ahead() == "[":
            yield from _listed(source)
            return
        members[name] = source.value()
    if members.get("type") != "Feature":
        raise ValueError("it holds neither a FeatureCollection nor a Feature")
    yield members


def _listed(source: _Source) -> Iterator[Any]:
    source.skip("[")
    while source.ahead() != "]":
        yield source.value()


def _object(feature: dict[str, Any]) -> QuPathObject:
    from shapely.geometry import GeometryCollection, shape

    if feature.get("type") != "Feature":
        raise ValueError(f"found a {feature.get('type')!r} where a Feature should be")
    properties = feature.get("properties") or {}
    kind = (
        properties.get("objectType")
        or properties.get("object_type")
        or _OLD_KINDS.get(str(feature.get("id")), "annotation")
    )
    label, colour = _class(properties.get("classification"))
    name, stated = properties.get("name"), feature["geometry"]
    geometry = GeometryCollection() if stated is None else shape(stated)
    return QuPathObject(str(kind), geometry, label, colour, None if name is None else str(name))


def _class(stated: Any) -> tuple[str | None, str | None]:
    """Name and colour of a class; derived classes of QuPath are joined as it shows them."""
    if not stated:
        return None, None
    if isinstance(stated, str):
        return stated, None
    names = stated.get("names") or ([stated["name"]] if stated.get("name") else [])
    colour = stated.get("color")
    if isinstance(colour, list) and len(colour) >= 3:
        rgb = [int(value) for value in colour[:3]]
    elif isinstance(packed := stated.get("colorRGB", colour), int):
        rgb = [(packed >> shift) & 255 for shift in (16, 8, 0)]
    else:
        rgb = []
    return ": ".join(str(n) for n in names) or None, "#{:02x}{:02x}{:02x}".format(*rgb) if rgb else None
