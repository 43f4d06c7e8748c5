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
_FEATURES = re.compile(r'"features"\s*:\s*\[')
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
        A shapely geometry in pixels of the full resolution.
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
    opened: Any = gzip.open(path, "rt", encoding="utf-8") if packed else path.open(encoding="utf-8")
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


def _features(text: IO[str]) -> Iterator[dict[str, Any]]:
    """Features in the order of the file."""
    decoder = json.JSONDecoder()
    buffer = text.read(_BLOCK)
    start = buffer.lstrip()[:1]
    if start == "[":
        position = buffer.index("[") + 1
    elif start == "{":
        found = _FEATURES.search(buffer)
        if found is None:
            whole = json.loads(buffer + text.read())
            if whole.get("type") != "Feature":
                raise ValueError("it holds neither a FeatureCollection nor a Feature")
            yield whole
            return
        position = found.end()
    else:
        raise ValueError("it is not JSON")
    while True:
        gap = _BETWEEN.match(buffer, position)
        position = position if gap is None else gap.end()
        if position < len(buffer) and buffer[position] == "]":
            return
        try:
            feature, position = decoder.raw_decode(buffer, position)
        except ValueError:
            more = text.read(_BLOCK + len(buffer) - position)
            if not more:
                raise ValueError("it ends within an object: the file is truncated") from None
            buffer, position = buffer[position:] + more, 0
            continue
        yield feature
        if position > _BLOCK:
            buffer, position = buffer[position:], 0


def _object(feature: dict[str, Any]) -> QuPathObject:
    from shapely.geometry import shape

    if feature.get("type") != "Feature":
        raise ValueError(f"found a {feature.get('type')!r} where a Feature should be")
    properties = feature.get("properties") or {}
    kind = (
        properties.get("objectType")
        or properties.get("object_type")
        or _OLD_KINDS.get(str(feature.get("id")), "annotation")
    )
    label, colour = _class(properties.get("classification"))
    name = properties.get("name")
    return QuPathObject(str(kind), shape(feature["geometry"]), label, colour, None if name is None else str(name))


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
