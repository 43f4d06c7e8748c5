"""Finding the slides that were named, and reading one."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from spatialwhisperer._access.stores.reading import FILE_ENDING, STORE_ENDING, is_named_store, read_object
from spatialwhisperer._messages import listing
from spatialwhisperer.cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

Kind = Literal["image", "spatialdata", "anndata"]


@dataclass(frozen=True)
class Source:
    """A slide that was named.

    Attributes
    ----------
    path
        File, or folder of a zarr store.
    kind
        What it holds, by its name.
    """

    path: Path
    kind: Kind

    @property
    def file(self) -> str:
        """Name of the file. Bytes that are no text are replaced."""
        return os.fsencode(self.path.name).decode("utf-8", "replace")

    @property
    def name(self) -> str:
        """Name of the slide, after which its results are called."""
        stem = Path(self.file.replace("\N{REPLACEMENT CHARACTER}", "_")).stem
        return re.sub(r"\.ome$", "", stem, flags=re.IGNORECASE)

    @property
    def ending(self) -> str:
        """How the name of its result ends."""
        return ".h5ad" if self.kind == "anndata" else ".zarr"


def is_folder(path: Path) -> bool:
    """Whether this is a folder of slides: one that is not, and is not called like, a zarr store."""
    return path.is_dir() and not is_named_store(path)


def find(paths: Sequence[Path]) -> list[Source]:
    """The slides of files and folders, each once. Whether they can be read is not known before they are.

    Raises
    ------
    UsageError
        If a folder holds no slide.
    """
    found: dict[Path, Source] = {}
    for path in paths:
        for one in _within(path) if is_folder(path) else [path]:
            found.setdefault(one.resolve(), Source(one, _kind(one)))
    return list(found.values())


def _within(folder: Path) -> list[Path]:
    from spatialwhisperer.io.slide import slides_in

    others = [
        p for p in folder.iterdir() if not p.name.startswith(".") and (is_named_store(p) or p.suffix == FILE_ENDING)
    ]
    inside = sorted([*slides_in(folder), *others])
    if not inside:
        there = listing(sorted(p.name for p in folder.iterdir()), 5)
        raise UsageError(f"{folder} holds no slide (found: {there}). Folders inside it are not searched.")
    return inside


def _kind(path: Path) -> Kind:
    if is_named_store(path) or path.suffix == STORE_ENDING:
        return "spatialdata"
    return "anndata" if path.suffix == FILE_ENDING else "image"


def read(source: Source, *, mpp: float | None = None, page: int | None = None) -> AnnData | SpatialData:
    """Read a slide.

    Parameters
    ----------
    source
        The slide.
    mpp, page
        Of an image file; see :func:`spatialwhisperer.io.read_slide`.

    Raises
    ------
    FileNotFoundError
        If it does not exist.
    ValueError
        If it cannot be read.
    """
    if source.kind == "image":
        from spatialwhisperer.io import read_slide

        return read_slide(source.path, mpp=mpp, page=page)
    if not source.path.exists():
        raise FileNotFoundError(f"There is no file {str(source.path)!r}.")
    if page is not None:
        raise ValueError(f"--page applies to image files, and {source.path.name} is none. Leave it out.")
    return read_object(source.path)
