"""Putting a finished file into its place."""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from spatialwhisperer._storage.folders import sync

if TYPE_CHECKING:
    from collections.abc import Iterator

_MODE = 0o644


def cannot_write(folder: Path, error: OSError, remedy: str) -> OSError:
    """The same kind of error, of a folder that is full or read-only, with what helps."""
    why = error.strerror or str(error)
    return OSError(error.errno or errno.EIO, f"Cannot write into {folder} ({why}). {remedy}")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Lend the path of a temporary file, which takes the place of another one when the block is left without an error."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(_MODE)
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
