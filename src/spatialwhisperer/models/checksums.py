"""Checksums of the files of a model: what was written is what is read."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from spatialwhisperer._messages import found

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_READ = {".json", ".safetensors"}
_CURE = "Copy or download the model again, or save it again with model.save(folder)."


def model_files(folder: Path, configuration: str, parts: Iterable[str]) -> dict[str, Path]:
    """Files of a model by relative path: weights and JSON anywhere, and all in the folders of its parts.

    The configuration holds the checksums and has none. Other files, such as a README, and hidden ones are not read with the
    model and may come and go.
    """
    parts = set(parts)
    out = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(name.startswith(".") for name in relative.parts)
        ours = path.suffix.lower() in _READ or (len(relative.parts) > 1 and relative.parts[0] in parts)
        if ours and not hidden and relative.as_posix() != configuration and path.is_file():
            out[relative.as_posix()] = path
    return out


def checksums(files: dict[str, Path]) -> dict[str, str]:
    """Digest (SHA-256) of each file."""
    return {name: _sha256(path) for name, path in files.items()}


def verify(folder: Path, files: dict[str, Path], expected: object) -> None:
    """Compare the files of a model with the checksums in its configuration.

    Raises
    ------
    ValueError
        If a file is missing, was added, or holds something else than what was written.
    """
    if not isinstance(expected, dict) or not expected:
        raise ValueError(f"The configuration in {folder} lists no checksums of its files. {_CURE}")
    missing = sorted(set(expected) - set(files))
    if missing:
        raise ValueError(f"{folder} lacks {found(missing, 4)}, which its configuration lists. {_CURE}")
    added = sorted(set(files) - set(expected))
    if added:
        raise ValueError(
            f"{folder} holds {found(added, 4)}, which its configuration does not list. Remove what does not belong to the "
            f"model, or save the model to a new folder with model.save(folder)."
        )
    for name, path in files.items():
        actual = _sha256(path)
        if actual != expected[name]:
            raise ValueError(
                f"{path} is not the file that was written with this model: it is cut off or changed ({path.stat().st_size} "
                f"bytes, sha256 {actual[:12]}… and not {str(expected[name])[:12]}…). {_CURE}"
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
