"""Putting a finished file into its place."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from spatialwhisperer._storage.folders import sync
from spatialwhisperer._storage.permissions import take_over

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def cannot_write(folder: Path, error: OSError, remedy: str) -> OSError:
    """The same kind of error, of a folder that is full or read-only, with what helps."""
    why = error.strerror or str(error)
    return OSError(error.errno or errno.EIO, f"Cannot write into {folder} ({why}). {remedy}")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Lend the path of a temporary file, which takes the place of another one when the block is left without an error.

    It gets the permissions of the file that it replaces, else those that the umask allows. Through a symbolic link the file that the
    link points to is replaced.
    """
    path = path.resolve()
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}.part")
    mode = _reserve(temporary)
    try:
        yield temporary
        temporary.chmod(mode)
        take_over(path, temporary)
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _reserve(path: Path) -> int:
    """Make a file that the user alone can read until it is finished; returns the permissions that the umask allows."""
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return stat.S_IMODE(os.fstat(handle).st_mode)
    finally:
        os.close(handle)
        path.chmod(0o600)
