"""The table of published image encoders, one row each: who opens them, how tokens are pooled, size, normalisation, licence."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialwhisperer._frozen import frozen
from spatialwhisperer.encoders.hub import HUB
from spatialwhisperer.encoders.spec import EncoderSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE = Path(__file__).with_name("encoders.tsv")
LENT = "lazyslide:"
"""What the architecture of a row starts with whose network another package builds."""
_PYPI = "https://pypi.org/project/"


@dataclass(frozen=True)
class Published:
    """A row of the table.

    Attributes
    ----------
    spec
        Facts that are shown.
    repository
        Id on the Hugging Face hub; empty where the weights come in a package.
    files
        Files with the weights, where these have no usual name; of weights that a package brings, the path in it.
    sha256
        Checksum of that file in a package.
    architecture
        Name of the network in the library that builds it; empty where the repository states it.
    options
        Arguments of the network, as plain values.
    parameters_m
        Parameters in millions; ``None`` where they are not known.
    """

    spec: EncoderSpec
    repository: str
    files: tuple[str, ...]
    sha256: str
    architecture: str
    options: Mapping[str, Any]
    parameters_m: float | None


@cache
def published() -> dict[str, Published]:
    """All rows by name, in the order of the table."""
    with FILE.open(encoding="utf-8", newline="") as file:
        rows = [_row(cells) for cells in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    return {row.spec.name: row for row in rows}


def specs(loader: str, *, lent: bool = False) -> tuple[EncoderSpec, ...]:
    """Facts of the encoders of a loader.

    Parameters
    ----------
    loader
        "timm", "transformers", "open_clip" or "custom".
    lent
        Of the custom ones, those that another package opens instead of those with a network here.
    """
    rows = [row for row in published().values() if row.spec.loader == loader]
    return tuple(row.spec for row in rows if row.architecture.startswith(LENT) == lent)


def paired() -> tuple[EncoderSpec, ...]:
    """Facts of the text towers that belong to image encoders, of those with a network here."""
    none = {"input_px": None, "mpp": None, "tile_um": None, "mean": None, "std": None}
    rows = [spec for spec in (row.spec for row in published().values()) if spec.pooling == "projection"]
    return tuple(replace(spec, modality="text", **none) for spec in rows)  # type: ignore[arg-type]


def row_of(name: str) -> Published | None:
    """Row of a name; ``None`` where the table has none."""
    return published().get(name)


def _row(cells: Mapping[str, str]) -> Published:
    files = tuple(cells["files"].split())
    spec = EncoderSpec(
        name=cells["name"],
        modality="image",
        dim=int(cells["dim"]) if cells["dim"] else None,
        input_px=int(cells["input_px"]),
        mpp=_number(cells["mpp"]),
        tile_um=_number(cells["tile_um"]),
        mean=_three(cells["mean"]),
        std=_three(cells["std"]),
        licence=cells["licence"],
        commercial={"yes": True, "no": False, "unknown": None}[cells["commercial"]],
        gated=cells["gated"] == "yes",
        url=HUB + cells["repository"] if cells["repository"] else _PYPI + files[0].partition("/")[0].replace("_", "-"),
        citation=cells["citation"],
        loader=cells["loader"],
        pooling=cells["pooling"],
    )
    options = frozen(**json.loads(cells["options"] or "{}"))
    return Published(
        spec,
        cells["repository"],
        files,
        cells["sha256"],
        cells["architecture"],
        options,
        _number(cells["parameters_m"]),
    )


def _number(cell: str) -> float | None:
    return float(cell) if cell else None


def _three(cell: str) -> tuple[float, float, float] | None:
    if not cell:
        return None
    red, green, blue = map(float, cell.split(","))
    return red, green, blue
