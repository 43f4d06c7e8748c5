"""Finding published files in a folder, as they were packed or unpacked."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spatialwhisperer._messages import inform, listing
from spatialwhisperer._storage.files import cannot_write
from spatialwhisperer._storage.untrusted import opening

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKED = ".gz"
_HERE = ("", "*/")
"""The folder itself, and the folders in it."""


@dataclass(frozen=True)
class PublishedFiles:
    """A folder with files of a data set.

    Attributes
    ----------
    folder
        The folder.
    page
        Where the files are published, for messages.
    """

    folder: Path
    page: str

    @classmethod
    def of(cls, folder: str | Path, page: str) -> PublishedFiles:
        """Open a folder.

        Raises
        ------
        FileNotFoundError
            If it is not one.
        """
        where = Path(folder).expanduser()
        if not os.path.isdir(where):
            raise FileNotFoundError(f"{where} is not a folder. The files are published at {page}.")
        return cls(where, page)

    def find(self, patterns: Sequence[str]) -> Path | None:
        """The file of a name, in the folder or a folder in it; the unpacked one where both are there.

        Parameters
        ----------
        patterns
            Names, where ``*`` stands for anything; the first that is found counts. ``.gz`` may follow each.

        Raises
        ------
        ValueError
            If several files have such a name.
        """
        for pattern in patterns:
            for name in (pattern, pattern + PACKED):
                found = sorted({p for place in _HERE for p in self.folder.glob(place + name) if p.is_file()})
                if len(found) > 1:
                    raise ValueError(
                        f"{self.folder} holds {len(found)} files {name}: {listing(found, 4)}. Leave one, and move the others away."
                    )
                if found:
                    return found[0]
        return None

    def need(self, section: str, what: str, patterns: Sequence[str]) -> Path:
        """The file of a name.

        Raises
        ------
        FileNotFoundError
            If there is none; the message names it and where it is published.
        """
        found = self.find(patterns)
        if found is None:
            raise FileNotFoundError(
                f"Section {section} needs {patterns[0]} (or {patterns[0]}{PACKED}), {what}, in {self.folder} or a folder in it. "
                f"It is published at {self.page}."
            )
        return found

    def nothing(self, expected: str) -> FileNotFoundError:
        """The error for a folder without any section of the data set."""
        held = listing(sorted(p.name for p in self.folder.iterdir()), 8)
        return FileNotFoundError(
            f"{self.folder} holds no file {expected}, so it is not this data set; it holds {held}. The files are published at {self.page}; unpack "
            "an archive (.tar) first."
        )


def unpacked(path: Path, folder: Path) -> Path:
    """An image as a file that can be read in parts.

    Parameters
    ----------
    path
        The image; one that is not packed is returned as it is.
    folder
        Where a packed one is unpacked to, once for each path, size and time of change, each into a folder of its own.
    """
    if path.suffix != PACKED:
        return path
    state = path.stat()
    packing = f"{path.absolute()}\0{state.st_size}\0{state.st_mtime_ns}"
    folder = folder / hashlib.sha256(os.fsencode(packing)).hexdigest()[:16]
    target = folder / path.stem
    if not target.is_file():
        inform(f"unpacking {path.name} into {folder}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            remedy = "Name another cache with sw.settings.cache_dir = …, or unpack the image beside the packed one."
            raise cannot_write(folder, error, remedy) from error
        part = target.with_name(f".{target.name}-{os.getpid()}")
        try:
            with opening(f"The image {path}"), gzip.open(path) as packed, part.open("wb") as out:
                shutil.copyfileobj(packed, out, 1 << 20)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    return target
