"""Download files whose checksums are known, and keep only those that match."""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import TYPE_CHECKING

from spatialwhisperer._messages import listing
from spatialwhisperer._settings import settings
from spatialwhisperer._storage.files import cannot_write
from spatialwhisperer._storage.folders import beside, sweep, sync

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import BinaryIO

ELSEWHERE = "Name another folder with sw.settings.cache_dir = …, or pass data_dir=…, a folder that holds the files."
"""What helps where a download cannot be written."""

_TIMEOUT = 60
_LARGEST = 8 * 2**30
_BLOCK = 2**18


def git_blob_sha1(path: str | Path) -> str:
    """Hash a file the way git does: SHA-1 of the word blob, the length, a zero byte, and the content."""
    digest = hashlib.sha1(b"blob %d\x00" % os.path.getsize(path), usedforsecurity=False)
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def download(url: str, target: Path, check: Callable[[Path], None]) -> None:
    """Download a file, and put it into place once it was checked.

    What is not whole lies in a hidden folder beside its place; `sweep` removes what a killed process left of it.

    Parameters
    ----------
    url
        Where from.
    target
        Where to. Folders above it are made.
    check
        Takes the path of the finished file, and raises ValueError where it is another one.

    Raises
    ------
    OSError
        The server does not answer, or stops in the middle. (Errors of requests are of this kind.)
    ValueError
        What it sends is not the file, or has no end.
    """
    import pooch

    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(target)
    try:
        part = temporary / "part"
        with part.open("wb") as file:
            try:
                pooch.HTTPDownloader(progressbar=False, timeout=_TIMEOUT, chunk_size=_BLOCK)(url, _Bounded(file), None)
            except ValueError as error:
                if of_the_server(error):
                    raise
                raise ValueError(f"What {url} sends cannot be read ({error}).") from error
        check(part)
        sync(part)
        os.replace(part, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _Bounded:
    """A file that refuses to grow beyond all files that are known: a server may send for ever."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.left = file, _LARGEST

    def write(self, block: bytes) -> int:
        self.left -= len(block)
        if self.left < 0:
            raise ValueError(f"more than {_LARGEST} bytes, which no file of a data set has")
        return self.file.write(block)

    def flush(self) -> None:
        """Let the file decide when it writes."""


def fetch(files: Mapping[str, str], *, base_url: str, folder: Path) -> None:
    """Make sure that every file lies intact under ``folder``; download what does not.

    Parameters
    ----------
    files
        Path to checksum: a git blob SHA-1 (40 digits) or a SHA-256 (64 digits).
    base_url
        Where the paths are served.
    folder
        Where to keep them.

    Raises
    ------
    FileNotFoundError
        A file is missing or damaged and ``settings.offline`` is set.
    ConnectionError
        The server does not answer, or not with the file.
    OSError
        The folder is full or read-only.
    ValueError
        The server's file is not the published one.
    """
    for path in files:
        sweep(folder / path)
    missing = [path for path, checksum in files.items() if not _intact(folder / path, checksum)]
    if missing and settings.offline:
        raise FileNotFoundError(
            f"settings.offline is set and {listing(missing)} is not (intact) in {folder}. Put it there from "
            f"{base_url}, or set spatialwhisperer.settings.offline = False to download it."
        )
    for path in missing:
        url = f"{base_url.rstrip('/')}/{path}"
        try:
            download(url, folder / path, _published(url, files[path]))
        except (OSError, ValueError) as error:
            if of_the_server(error):
                raise ConnectionError(
                    f"Cannot download {path} from {base_url} ({error}). Check the connection, or put the file into {folder} yourself."
                ) from error
            if isinstance(error, OSError):
                raise cannot_write(folder, error, ELSEWHERE) from error
            raise ValueError(
                f"{error} Nothing was kept; try again, or check the connection and the base URL."
            ) from error


def of_the_server(error: Exception) -> bool:
    """Whether an error is about the connection, and not about the disk."""
    import requests

    return isinstance(error, requests.RequestException)


def _published(url: str, checksum: str) -> Callable[[Path], None]:
    def check(path: Path) -> None:
        kind, actual = _checksum(path, checksum)
        if actual != checksum:
            raise ValueError(f"{url} is not the file that was published: its {kind} is {actual}, expected {checksum}.")

    return check


def _intact(path: Path, checksum: str) -> bool:
    return path.is_file() and _checksum(path, checksum)[1] == checksum


def _checksum(path: Path, like: str) -> tuple[str, str]:
    """Name and value of the checksum of a file, of the kind that another one is."""
    if len(like) == 40:
        return "git blob SHA-1", git_blob_sha1(path)
    with path.open("rb") as file:
        return "SHA-256", hashlib.file_digest(file, "sha256").hexdigest()
