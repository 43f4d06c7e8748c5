"""Download zip archives, check them, and unpack what a reader needs."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from spatialwhisperer._messages import inform, listing
from spatialwhisperer._settings import settings
from spatialwhisperer._storage.files import cannot_write
from spatialwhisperer._storage.folders import beside, put, sweep
from spatialwhisperer._storage.permissions import as_usual
from spatialwhisperer.datasets._files.download import ELSEWHERE, download, of_the_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


def fetch_archives(
    archives: Mapping[str, str], *, base_url: str, folder: Path, suffixes: tuple[str, ...], page: str
) -> None:
    """Make sure that every archive (name -> SHA-256) is unpacked in ``folder / <name without suffix>``.

    Parameters
    ----------
    archives
        What to download.
    base_url
        Where from.
    folder
        Where to.
    suffixes
        Endings of the members that are unpacked; others stay packed.
    page
        Where a person gets the files.

    Raises
    ------
    FileNotFoundError
        An archive is not there and ``settings.offline`` is set.
    ConnectionError
        The server does not answer, or not with the file.
    OSError
        The folder is full or read-only.
    ValueError
        The server's file is not the published one, or names a place outside the folder.
    """
    places = {name: folder / name.removesuffix(".zip") for name in archives}
    missing = [name for name, place in places.items() if not (place / _DONE).is_file()]
    if missing and settings.offline:
        raise FileNotFoundError(
            f"settings.offline is set and {listing(missing)} is not in {folder}. Get it from {page} and pass data_dir=…, or "
            "set spatialwhisperer.settings.offline = False to download it."
        )
    for name, place in places.items():
        path = folder / name
        for target in (path, place):
            sweep(target)
        if name in missing:
            with _locked(path):
                # another process may have unpacked it meanwhile
                if not (place / _DONE).is_file():
                    check = _known(f"{base_url.rstrip('/')}/{name}", archives[name])
                    if not _passes(path, check):
                        inform(f"downloading {name} from {base_url}")
                        _download(name, check, base_url, folder, page)
                    _unpack(path, place, suffixes)
        # also that of a process which was killed after it had unpacked it
        path.unlink(missing_ok=True)


_DONE = ".unpacked"


@contextmanager
def _locked(archive: Path) -> Iterator[None]:
    """Let one process at a time download and unpack an archive. The lock ends with the process, however it ends."""
    from filelock import FileLock

    file = archive.with_name(f".{archive.name}.lock")
    lock = FileLock(file)
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise cannot_write(archive.parent, error, ELSEWHERE) from error
    try:
        yield
    finally:
        lock.release()
        # a process that waits for it looks again whether the archive was unpacked, so that no two have to see the same file
        with suppress(OSError):
            file.unlink()


def _download(name: str, check: Callable[[Path], None], base_url: str, folder: Path, page: str) -> None:
    url = f"{base_url.rstrip('/')}/{name}"
    try:
        download(url, folder / name, check)
    except (OSError, ValueError) as error:
        if of_the_server(error):
            raise ConnectionError(
                f"Cannot download {name} from {base_url} ({error}). Get it from {page} and pass data_dir=…."
            ) from error
        if isinstance(error, OSError):
            raise cannot_write(folder, error, ELSEWHERE) from error
        raise ValueError(f"{error} Nothing was kept. Try again, or get it from {page} and pass data_dir=….") from error


def _known(url: str, sha256: str) -> Callable[[Path], None]:
    def check(path: Path) -> None:
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != sha256:
            raise ValueError(f"{url} is not the file that is known: its SHA-256 is {actual}, expected {sha256}.")

    return check


def _passes(path: Path, check: Callable[[Path], None]) -> bool:
    """Whether a whole archive is there, which a process that was killed had no time to unpack."""
    try:
        check(path)
    except (FileNotFoundError, ValueError):
        return False
    return True


def _unpack(path: Path, target: Path, suffixes: tuple[str, ...]) -> None:
    with zipfile.ZipFile(path) as archive:
        members = [
            m for m in archive.infolist() if m.filename.lower().endswith(suffixes) and "__MACOSX" not in m.filename
        ]
        outside = [
            m.filename for m in members if PurePosixPath(m.filename).is_absolute() or ".." in m.filename.split("/")
        ]
        if outside or not members:
            raise ValueError(
                f"{path.name} names files outside its folder: {listing(outside)}."
                if outside
                else f"{path.name} holds no {listing(suffixes)}; it holds {listing(archive.namelist())}."
            )
        temporary = beside(target)
        try:
            archive.extractall(temporary, members)
            (temporary / _DONE).touch()
            as_usual(temporary, [temporary])
            put(temporary, target)
        except OSError as error:
            raise cannot_write(target.parent, error, ELSEWHERE) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
