"""What this machine remembers of repositories of the hub: the commit that was opened first, and the files that a commit has."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from spatialwhisperer._messages import warn
from spatialwhisperer._settings import settings
from spatialwhisperer._storage.files import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_FIRST, _FILES = "first_commit", "files"


def record_file(repository: str) -> Path:
    """Where a repository is remembered."""
    return settings.cache_dir / "hub" / f"{repository.replace('/', '--')}.json"


def note_files(repository: str, commit: str, names: Iterable[str]) -> None:
    """Remember which files a commit has, before any of them is downloaded: half of them are not taken for all of them then."""
    held = _read(repository)
    files = {key: value for key, value in _files(held).items() if key != commit}
    _write(repository, {**held, _FILES: {**files, commit: sorted(names)}})


def files_of_commit(repository: str, commit: str) -> list[str] | None:
    """Files that a commit has; ``None`` where it was downloaded by something else."""
    names = _files(_read(repository)).get(commit)
    return [str(name) for name in names] if isinstance(names, list) else None


def say_if_moved(what: str, repository: str, commit: str, pin: str) -> None:
    """Compare a commit with the one that was opened first on this machine, and warn where it is another one.

    Parameters
    ----------
    what
        What the repository holds, for the message.
    repository, commit
        What was opened now.
    pin
        How to open the commit of before, with ``{commit}`` in its place.
    """
    held = _read(repository)
    before = held.get(_FIRST)
    if not isinstance(before, str):
        _write(repository, {**held, _FIRST: commit})
    elif before != commit:
        warn(
            f"{what} is not the one that was opened first on this machine: {repository} has moved on the hub, from commit {before} to "
            f"{commit}. Results of both are not those of one model. The one of before: {pin.format(commit=before)}. To take the new "
            f"one without this warning, remove {record_file(repository)}."
        )


def _files(held: dict[str, Any]) -> dict[str, Any]:
    files = held.get(_FILES)
    return files if isinstance(files, dict) else {}


def _read(repository: str) -> dict[str, Any]:
    try:
        held = json.loads(record_file(repository).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def _write(repository: str, held: dict[str, Any]) -> None:
    path = record_file(repository)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(held, indent=1), encoding="utf-8")
    except OSError:
        # a machine whose cache cannot be written to remembers nothing
        return
