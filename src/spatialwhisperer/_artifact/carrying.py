"""What else lies in the folder of an artifact, such as a README or a Git repository: it stays when the artifact is replaced."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from spatialwhisperer._artifact.layout import CONFIG, names_listed
from spatialwhisperer._artifact.verify import identity, in_the_way
from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_ATTEMPTS = 50


def carry_over(old: Path, new: Path, *, replaced: Collection[str]) -> None:
    """Bring everything that the configuration in a folder does not list into the one that is to take its place.

    Files are linked where the file system can: the old folder stays as it is until it is exchanged, and nothing is copied.

    Parameters
    ----------
    old
        Folder of an artifact; nothing is done where it is not there or empty.
    new
        Folder of the artifact that is to take its place.
    replaced
        Names of texts in the new folder that take the place of those in the old one.

    Raises
    ------
    FileExistsError
        If the new artifact could not be read beside one of them, or needs its name.
    """
    for left in reversed(range(_ATTEMPTS)):
        begun = identity(old)
        if begun is None:
            return
        made: list[Path] = []
        try:
            for name in _others(old, new, replaced):
                made.append(new / name)
                _bring(old / name, new / name)
            if identity(old) == begun:
                return
        except (OSError, ValueError):
            # another process may have put another artifact there meanwhile
            if not left or identity(old) == begun:
                raise
        for path in made:
            _remove(path)
    raise FileExistsError(f"{old} is replaced again and again. Write to it when whatever writes to it has finished.")


def _others(old: Path, new: Path, replaced: Collection[str]) -> list[str]:
    """Names in a folder that its configuration does not list."""
    files, parts = names_listed(old)
    listed = {CONFIG, *files, *parts}
    others = sorted(path.name for path in old.iterdir() if path.name not in {*listed, *replaced})
    refused = sorted({*in_the_way(old, listed), *(name for name in others if os.path.lexists(new / name))})
    if refused:
        raise FileExistsError(
            f"{old} holds {listing(refused, 4)}, which does not belong to what is there and would be in the way of what is written. "
            "Move it elsewhere, or choose another name."
        )
    return others


def _bring(source: Path, target: Path) -> None:
    if source.is_symlink():
        os.symlink(os.readlink(source), target)
    elif source.is_dir():
        shutil.copytree(source, target, symlinks=True, copy_function=_link)
    else:
        _link(source, target)


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        # some file systems know no second name of a file
        shutil.copy2(source, target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
