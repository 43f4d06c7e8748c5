"""Files of a run that a killed process leaves whole or not at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from spatialwhisperer._storage.folders import sync

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_TEMPORARY = ".tmp"


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file under a temporary name, wait until it is on the disk, and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def leftovers(folder: Path) -> Iterable[Path]:
    """Temporary files in a folder whose process was killed before it renamed them."""
    return folder.glob(f".*{_TEMPORARY}")
