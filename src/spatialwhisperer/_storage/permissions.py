"""Permissions of what is put into its place: those of what it replaces, else those that the user's umask allows."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def check_writable(*places: Path, remedy: str) -> None:
    """Raise an error where a file or folder may not be changed, before anything is computed for it.

    Parameters
    ----------
    *places
        Files and folders; those that are not there are passed over.
    remedy
        What to do instead, for the message.

    Raises
    ------
    PermissionError
        If one may not be changed.
    """
    for place in places:
        needed = os.W_OK | os.X_OK if place.is_dir() else os.W_OK
        if place.exists() and not os.access(place, needed):
            raise PermissionError(f"{place} cannot be written: you have no permission to change it. {remedy}")


def as_usual(place: Path, paths: Iterable[Path]) -> None:
    """Give files and folders the permissions that the user's umask allows.

    safetensors and temporary folders keep them to the user alone, so that colleagues could not open a model on a shared disk.

    Parameters
    ----------
    place
        A folder in which a file can be made.
    paths
        The files and folders.
    """
    # what a new file gets; asking for the umask would change it for the whole process
    with tempfile.TemporaryDirectory(dir=place) as within:
        probe = Path(within) / "probe"
        probe.touch()
        mode = probe.stat().st_mode & 0o666
    for path in paths:
        path.chmod(_of_folder(mode) if path.is_dir() else mode)


def take_over(old: Path, new: Path) -> None:
    """Give a file, or a folder with all that it holds, the permissions of the one that it is to replace.

    Parameters
    ----------
    old
        A file or folder; nothing is done where it is not there.
    new
        Of the same kind.
    """
    try:
        of = old.stat()
    except FileNotFoundError:
        return
    is_folder, mode = new.is_dir(), stat.S_IMODE(of.st_mode)
    # a folder may hand its group on to what is made in it; its files are not to be run
    of_folders, of_files = 0o2777, 0o666 if is_folder else 0o777
    for path in (*(new.rglob("*") if is_folder else ()), new):
        # the permissions of the group are those of another one, if the file does not stay with it
        if hasattr(os, "chown"):
            with suppress(OSError):
                os.chown(path, -1, of.st_gid)
        path.chmod(mode & (of_folders if path.is_dir() else of_files))


def _of_folder(mode: int) -> int:
    """A folder that may be read must be entered too."""
    return mode | (mode & 0o444) >> 2
