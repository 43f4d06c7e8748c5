"""Putting a finished folder into its place, so that at no moment there is none, and finding what a killed process left."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_OLD = "-old"
_STALE_AFTER = 24 * 3600
_LONGEST = 180
_LOOKS, _ATTEMPTS = 5, 50
_TAKEN = {errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY}
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def beside(folder: Path) -> Path:
    """Make a hidden folder beside one, which is filled and then put into its place by `put`.

    Its name tells whose it is and which process made it, so that `sweep` recognises what a killed process left.
    """
    return Path(tempfile.mkdtemp(prefix=f".{_label(folder)}-{_here()}-{os.getpid()}-", dir=folder.parent))


def put(temporary: Path, folder: Path) -> None:
    """Move a finished folder into place. What was there lies in ``temporary`` afterwards, or is gone.

    Linux exchanges both in one step. Elsewhere the old one is moved away first, where `present` finds it if the process dies before the
    second step; it comes back after an error.
    """
    for left in reversed(range(_ATTEMPTS)):
        try:
            if not folder.exists():
                os.replace(temporary, folder)
            elif not _exchanged(temporary, folder):
                _move_twice(temporary, folder)
            break
        except OSError as error:
            # another process moved its own at the same moment
            if not left or error.errno not in _TAKEN or not temporary.is_dir():
                raise
    sync(folder.parent)


def _move_twice(temporary: Path, folder: Path) -> None:
    old = temporary.with_name(temporary.name + _OLD)
    os.replace(folder, old)
    try:
        os.replace(temporary, folder)
    except BaseException:
        try:
            os.replace(old, folder)
        except OSError:
            # what another process put there meanwhile is newer
            if not folder.is_dir():
                raise
            shutil.rmtree(old, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def present(folder: Path, marker: str) -> Path | None:
    """Return a folder, or the one that a killed process moved away before it put another into its place.

    Parameters
    ----------
    folder
        Where it should be.
    marker
        Name of a file that a whole one holds.

    Returns
    -------
    The place, or ``None`` where there is none.
    """
    for look in range(_LOOKS):
        # os.path answers for names that no file system takes too
        if os.path.isdir(folder):
            return folder
        if not folder.name or not os.path.isdir(folder.parent):
            return None
        around = _leftovers(folder)
        left = [p for p in around if p.name.endswith(_OLD) and (p / marker).is_file()]
        # whoever was writing may have finished meanwhile
        if os.path.isdir(folder):
            return folder
        if left:
            return max(left, key=_modified)
        # and may have begun again: between two looks a whole replacement can pass
        if look and not around:
            return None
    return None


def sweep(folder: Path) -> None:
    """Remove what killed processes left beside a folder that is in its place: theirs by name, and not alive or of yesterday."""
    for path in _leftovers(folder):
        if _is_stale(path):
            shutil.rmtree(path, ignore_errors=True)


def of_this_process(name: str, parent: Path) -> Path:
    """Make a folder in another, with a name that tells which process made it, so that `left_in` recognises what it left."""
    return Path(tempfile.mkdtemp(prefix=f"{name}-{_here()}-{os.getpid()}-", dir=parent))


def left_in(parent: Path, name: str) -> list[Path]:
    """Folders that `of_this_process` made in processes of this machine that are gone."""
    pattern = re.compile(rf"{re.escape(name)}-{_here()}-([0-9]+)-[a-z0-9_]{{8}}")
    found = [(pattern.fullmatch(path.name), path) for path in parent.glob(f"{name}-*") if not path.is_symlink()]
    return [path for match, path in found if match and not _alive(int(match[1]))]


def make_durable(folder: Path) -> None:
    """Write files and folders through to the disk."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


# ------------------------------------------------------------------------------------------------- the exchange


def _exchanged(a: Path, b: Path) -> bool:
    """Whether two folders could be exchanged in one step."""
    rename = _renameat2()
    return rename is not None and rename(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0


@cache
def _renameat2() -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    function.restype = ctypes.c_int
    return function


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk, where the system can."""
    # Windows cannot open a folder, and syncs no file that is open for reading
    if os.name != "posix":
        return
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        # some file systems know no fsync of a folder
        if not path.is_dir():
            raise
    finally:
        os.close(handle)


# ------------------------------------------------------------------------------------------------- leftovers


def _leftovers(folder: Path) -> list[Path]:
    pattern = re.compile(rf"\.{re.escape(_label(folder))}-[0-9a-f]{{12}}-[0-9]+-[a-z0-9_]{{8}}({_OLD})?")
    try:
        there = list(folder.parent.iterdir())
    except OSError:
        return []
    return [p for p in there if pattern.fullmatch(p.name) and p.is_dir() and not p.is_symlink()]


def _is_stale(path: Path) -> bool:
    here, process = path.name.removesuffix(_OLD).split("-")[-3:-1]
    if here == _here():
        return not _alive(int(process))
    # of another machine, whose processes cannot be asked for
    return time.time() - _modified(path) > _STALE_AFTER


def _alive(process: int) -> bool:
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


def _label(folder: Path) -> str:
    """Name of a folder, short enough for something to be added to it."""
    if len(os.fsencode(folder.name)) <= _LONGEST:
        return folder.name
    return hashlib.sha256(os.fsencode(folder.name)).hexdigest()[:16]


@cache
def _here() -> str:
    """Digest of what the number of a process belongs to: this machine since it was started, and its container."""
    parts = [socket.gethostname()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        try:
            parts.append(read())
        except OSError:
            parts.append("")
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]
