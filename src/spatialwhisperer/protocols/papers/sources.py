"""The data sets of the papers in one folder: which of their sections are there, opening them, and how to get the others."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import spatialwhisperer as sw
from spatialwhisperer.datasets.papers import cscc, dlpfc, liver
from spatialwhisperer.protocols.benchmarks.folder.slides import her2st_names
from spatialwhisperer.protocols.papers.rows import EACH_PATIENT, EACH_SECTION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.protocols.papers.rows import Row

HOW_TO_GET = {
    "her2st": "clone https://github.com/almaan/her2st as FOLDER/her2st, or let sw.datasets.her2st download it",
    "cscc": f"unpack the archive into FOLDER/cscc: {cscc.PAGE}",
    "dlpfc": f"put the files into FOLDER/dlpfc: {dlpfc.PAGE}",
    "liver": f"unpack the archives into FOLDER/liver: {liver.PAGE}",
    "alex10x": "this package has no reader of it: sections of https://doi.org/10.48610/4fb74a9 and of 10x Genomics",
    "lizard": "put the files of sw.datasets.lizard into FOLDER/lizard",
    "pannuke": "put the files of sw.datasets.pannuke into FOLDER/pannuke",
    "pathocell": "put the files of sw.datasets.pathocell into FOLDER/pathocell (gated)",
}
"""How a person gets each data set."""


@dataclass(frozen=True)
class Source:
    """Sections of a data set that are there.

    Attributes
    ----------
    patients
        Patient of each section of the row.
    read
        Opens a section by name.
    """

    patients: Mapping[str, str]
    read: Callable[[str], SpatialData]


def open_source(row: Row, data: Path) -> Source | None:
    """Sections of a row in a folder; ``None`` where they form no fold.

    A row that leaves out section after section, or patient after patient, takes all sections of its data set where those of the paper form none.

    Raises
    ------
    FileNotFoundError, ValueError
        If files of a section are missing or damaged.
    """
    found = _her2st(data) if row.dataset == "her2st" else _published(row, data)
    if found is None:
        return None
    own = {name: patient for name, patient in found.patients.items() if name in row.sections}
    if any(row.splits(own)):
        return Source(own, found.read)
    if row.test in (EACH_SECTION, EACH_PATIENT) and any(row.splits(found.patients)):
        return found
    return None


def place_of(dataset: str, data: Path) -> Path | None:
    """Folder of a data set: the one of its name in the folder, or the folder itself where that one is called so."""
    for place in (data / dataset, data):
        if place.name == dataset and os.path.isdir(place):
            return place
    return None


def microns_per_pixel(table: AnnData, dataset: str, section: str) -> float:
    """Microns per pixel of the image of a section."""
    record = json.loads(str(table.uns[dataset][section]))
    return float(record.get("um_per_px") or record["um_per_px_orig_image"])


def _her2st(data: Path) -> Source | None:
    names = [name for name in her2st_names(data) if _has_image(data, name)]
    read = partial(_read_her2st, data)
    return Source({name: name[0] for name in names}, read) if names else None


def _read_her2st(data: Path, name: str) -> SpatialData:
    return sw.datasets.her2st(name, data_dir=data)


def _has_image(data: Path, name: str) -> bool:
    for root in (data, data / "her2st"):
        meta = root / name / "meta.json"
        if os.path.isfile(meta):
            return bool(json.loads(meta.read_text()).get("image"))
        for clone in (root, root / "data"):
            if any((clone / "ST-imgs" / name[0] / name).glob("*.jpg")):
                return True
    return False


def _published(row: Row, data: Path) -> Source | None:
    place = place_of(row.dataset, data)
    if place is None or row.dataset not in sw.datasets.__all__:
        return None
    options: dict[str, Any] = {}
    if row.dataset == "liver":
        # the published code takes all spots of the array
        options["off_tissue"] = any(name.startswith("PSC011") for name in row.sections)
    sections = getattr(sw.datasets, row.dataset)(place, **options)
    return Source(sections.patients, sections.__getitem__)
