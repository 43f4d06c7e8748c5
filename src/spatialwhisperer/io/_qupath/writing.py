"""Writing objects for QuPath, a few thousand at a time."""

from __future__ import annotations

import gzip
import json
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._storage.files import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from spatialwhisperer._access.elements.outlines import Outlines
    from spatialwhisperer.io._qupath.pixels import Pixels

ROWS_AT_A_TIME = 4096
_DECIMALS = 2
_NAMES = uuid.UUID("6f9d5d1e-6c53-4f0a-9a44-8d2f0b8f7c11")


@dataclass(frozen=True)
class Content:
    """What is written of the rows of one section.

    Attributes
    ----------
    outlines
        Their polygons.
    pixels
        The pixels in which they are written.
    names
        Their names, shape (n,).
    codes
        Class of each row, shape (n,); -1 where it has none.
    classes
        Name of each class.
    colours
        Colour of each class, ``#rrggbb``.
    measurements
        Numbers by name, each of shape (n,).
    kind
        Type of object in QuPath.
    """

    outlines: Outlines
    pixels: Pixels
    names: np.ndarray
    codes: np.ndarray
    classes: Sequence[str]
    colours: Sequence[str]
    measurements: Mapping[str, np.ndarray]
    kind: str


def write_features(content: Content, path: Path, *, stated: Mapping[str, Any]) -> None:
    """Write a FeatureCollection. The file is there as a whole, or not at all.

    Parameters
    ----------
    content
        Its objects.
    path
        The file.
    stated
        Further members, as JSON. QuPath and others that read GeoJSON pass over them.
    """
    further = "".join(f"{json.dumps(name)}:{json.dumps(value)}," for name, value in stated.items())
    repeats = _repeats(content.names)
    with _whole(path) as file:
        file.write(f'{{"type":"FeatureCollection",{further}"features":[')
        for start in range(0, len(content.names), ROWS_AT_A_TIME):
            rows = np.arange(start, min(start + ROWS_AT_A_TIME, len(content.names)))
            lines = _lines(content, rows, repeats[rows])
            file.write(("\n" if start == 0 else ",\n") + ",\n".join(lines))
        file.write("\n]}\n")


def _lines(content: Content, rows: np.ndarray, repeats: np.ndarray) -> Iterator[str]:
    """The features of some rows as JSON."""
    import shapely

    polygons = shapely.transform(content.outlines.of(rows), lambda xy: np.round(content.pixels.of_image(xy), _DECIMALS))
    geometries = shapely.to_geojson(polygons)
    kind = json.dumps(content.kind)
    classes = [
        f'"classification":{json.dumps({"name": name, "color": _rgb(colour)}, ensure_ascii=False)},'
        for name, colour in zip(content.classes, content.colours, strict=True)
    ] + [""]
    names = [json.dumps(name, ensure_ascii=False) for name in content.measurements]
    # the shortest text that is read as the same number
    values = [
        [str(number) if finite else None for number, finite in zip(part, np.isfinite(part), strict=True)]
        for part in (numbers[rows] for numbers in content.measurements.values())
    ]
    for i, row in enumerate(rows):
        measured = ",".join(f"{name}:{texts[i]}" for name, texts in zip(names, values, strict=True) if texts[i])
        name = str(content.names[row])
        yield (
            f'{{"type":"Feature","id":"{_id(name, repeats[i])}","geometry":{geometries[i]},"properties":{{"objectType":{kind},'
            f'"name":{json.dumps(name, ensure_ascii=False)},{classes[content.codes[row]]}"measurements":{{{measured}}}}}}}'
        )


def _repeats(names: np.ndarray) -> np.ndarray:
    """How many rows before each one have its name, shape (n,)."""
    import pandas as pd

    column = pd.Series(names.astype(str), dtype=object)
    return column.groupby(column).cumcount().to_numpy()


def _id(name: str, repeat: int) -> uuid.UUID:
    """Id of an object: the same in each file of a slide, and another one for each row of a name."""
    one = uuid.uuid5(_NAMES, name)
    return uuid.uuid5(one, str(repeat)) if repeat else one


def _rgb(colour: str) -> list[int]:
    from matplotlib.colors import to_rgb

    return [round(255 * part) for part in to_rgb(colour)]


@contextmanager
def _whole(path: Path) -> Iterator[IO[str]]:
    """A file that takes the place of another one when it is finished; compressed where its name ends with ``.gz``."""
    with whole_file(path) as temporary:
        opened: Any = gzip.open if path.suffix == ".gz" else open
        with opened(temporary, "wt", encoding="utf-8") as file:
            yield file
