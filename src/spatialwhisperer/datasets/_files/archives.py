"""Download zip archives, check them, and unpack what a reader needs."""

from __future__ import annotations

import zipfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from spatialwhisperer._messages import inform, listing
from spatialwhisperer.settings import settings

if TYPE_CHECKING:
    from collections.abc import Mapping
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
    ValueError
        The server's file is not the published one, or names a place outside the folder.
    """
    missing = [name for name in archives if not (folder / name.removesuffix(".zip") / _DONE).is_file()]
    if missing and settings.offline:
        raise FileNotFoundError(
            f"settings.offline is set and {listing(missing)} is not in {folder}. Get it from {page} and pass data_dir=…, or "
            "set spatialwhisperer.settings.offline = False to download it."
        )
    for name in missing:
        inform(f"downloading {name} from {base_url}")
        path = _download(name, archives[name], base_url, folder, page)
        _unpack(path, folder / name.removesuffix(".zip"), suffixes)
        path.unlink()


_DONE = ".unpacked"


def _download(name: str, sha256: str, base_url: str, folder: Path, page: str) -> Path:
    import pooch
    import requests

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")
    (folder / name).unlink(missing_ok=True)
    try:
        path = pooch.retrieve(
            f"{base_url.rstrip('/')}/{name}", known_hash=f"sha256:{sha256}", fname=name, path=folder, progressbar=False
        )
    except requests.RequestException as error:
        raise ConnectionError(
            f"Cannot download {name} from {base_url} ({error}). Get it from {page} and pass data_dir=…."
        ) from error
    except ValueError as error:
        raise ValueError(f"{base_url}/{name} is not the file that is known ({error}). Nothing was kept.") from error
    finally:
        logger.setLevel(level)
    return folder / name if path is None else type(folder)(path)


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
        archive.extractall(target, members)
    (target / _DONE).touch()
