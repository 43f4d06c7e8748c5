"""Download files that a source names by their git blob SHA-1, and keep only those that match."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from spatialwhisperer._messages import listing
from spatialwhisperer.settings import settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pooch


def git_blob_sha1(path: str | Path) -> str:
    """Hash a file the way git does: SHA-1 of the word blob, the length, a zero byte, and the content."""
    import os

    digest = hashlib.sha1(b"blob %d\x00" % os.path.getsize(path), usedforsecurity=False)
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class _VerifiedDownload:
    """A pooch downloader that refuses a file before pooch moves it into the cache."""

    def __init__(self, blob_sha1: str) -> None:
        self.blob_sha1 = blob_sha1

    def __call__(self, url: str, output_file: str, _pooch: pooch.Pooch) -> None:
        import pooch

        pooch.HTTPDownloader(progressbar=False, timeout=60)(url, output_file, _pooch)
        actual = git_blob_sha1(output_file)
        if actual != self.blob_sha1:
            raise ValueError(
                f"{url} is not the file that was published: its git blob SHA-1 is {actual}, expected {self.blob_sha1}. "
                "Nothing was kept; try again, or check the connection and the base URL."
            )


def fetch(files: Mapping[str, str], *, base_url: str, folder: Path) -> None:
    """Make sure that every file (path -> git blob SHA-1) lies intact under ``folder``; download what does not.

    Raises
    ------
    FileNotFoundError
        A file is missing or damaged and ``settings.offline`` is set.
    ConnectionError
        The server does not answer, or not with the file.
    ValueError
        The server's file is not the published one.
    """
    missing = [path for path, sha1 in files.items() if not _intact(folder / path, sha1)]
    if not missing:
        return
    if settings.offline:
        raise FileNotFoundError(
            f"settings.offline is set and {listing(missing)} is not (intact) in {folder}. Put it there from "
            f"{base_url}, or set spatialwhisperer.settings.offline = False to download it."
        )
    import pooch
    import requests

    level = pooch.get_logger().level
    pooch.get_logger().setLevel("WARNING")  # at INFO it prints the hash of every file
    try:
        for path in missing:
            target = folder / path
            target.unlink(missing_ok=True)
            pooch.retrieve(
                f"{base_url.rstrip('/')}/{path}",
                known_hash=None,
                fname=target.name,
                path=target.parent,
                downloader=_VerifiedDownload(files[path]),
            )
    except requests.RequestException as error:
        raise ConnectionError(
            f"Cannot download {path} from {base_url} ({error}). Check the connection, or put the file into {folder} yourself."
        ) from error
    finally:
        pooch.get_logger().setLevel(level)


def _intact(path: Path, sha1: str) -> bool:
    return path.is_file() and git_blob_sha1(path) == sha1
