"""A folder of sections, whatever its layout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialwhisperer._messages import inform, listing
from spatialwhisperer.protocols.benchmarks.folder.hest import is_hest, read_hest
from spatialwhisperer.protocols.benchmarks.folder.slides import her2st_names, read_her2st

if TYPE_CHECKING:
    from pathlib import Path

    from spatialwhisperer.protocols.benchmarks.folder.sections import BenchmarkSection, FolderOptions

HEST, HER2ST = "HEST", "her2st"


def layout_of(folder: Path) -> str:
    """Name of the layout of a folder.

    Raises
    ------
    FileNotFoundError
        If it has none that is known.
    """
    if is_hest(folder):
        return HEST
    if her2st_names(folder):
        return HER2ST
    found = listing(sorted(p.name for p in folder.iterdir())) if folder.is_dir() else "no such folder"
    raise FileNotFoundError(
        f"{folder} has no layout that is known (found: {found}). A folder of HEST holds a table of metadata (.csv with id and patient), "
        "st/<id>.h5ad and patches/<id>.h5; one of her2st holds <section>/counts.h5ad, or ST-cnts of its authors."
    )


def read_folder(folder: Path, options: FolderOptions) -> list[BenchmarkSection]:
    """Read the sections of a folder.

    Raises
    ------
    FileNotFoundError, ValueError
        If the layout is not known, or files are missing or damaged.
    """
    return read_hest(folder, options) if layout_of(folder) == HEST else read_her2st(folder, options)


def with_pixels(sections: list[BenchmarkSection]) -> list[BenchmarkSection]:
    """The sections that have an image; a message names the others.

    Raises
    ------
    ValueError
        If there is none.
    """
    if without := [s.name for s in sections if s.pixels is None]:
        inform(f"{len(without)} sections have no image and are left out: {listing(without)}.")
    found = [s for s in sections if s.pixels is not None]
    if not found:
        raise ValueError("No section has an image: patches/<id>.h5 in a folder of HEST, the image in one of her2st.")
    return found
