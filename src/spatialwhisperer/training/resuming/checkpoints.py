"""Checkpoints on the disk: written whole, with a digest beside each, and opened without running code.

A folder holds ``step-<number of steps>.ckpt``, and beside it ``step-<number of steps>.ckpt.sha256``, which ``sha256sum -c`` reads. The
digest is written first, so that a checkpoint that has its name also has its digest.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from typing import TYPE_CHECKING, Any

import torch

from spatialwhisperer._messages import warn
from spatialwhisperer.training.resuming.files import leftovers, write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

KEPT = 2
"""Number of checkpoints that stay in a folder: the last one, and the one before it in case the last one is damaged."""

_NAMES = "step-*.ckpt"


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint after some steps lies; names sort by steps."""
    return folder / f"step-{step:010d}.ckpt"


def write_checkpoint(checkpoint: Any, path: Path) -> None:
    """Write a checkpoint and its digest."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    content = buffer.getbuffer()
    write_whole(_digest_path(path), f"{hashlib.sha256(content).hexdigest()}  {path.name}\n".encode())
    write_whole(path, content)


def read_checkpoint(path: Path, map_location: Any = "cpu") -> Any:
    """Read a checkpoint. The bytes that are verified are the bytes that are read, and only tensors and plain values are.

    Raises
    ------
    ValueError
        If it is cut off or changed, has no digest, or holds anything that could run code.
    """
    content = path.read_bytes()
    actual, stated = hashlib.sha256(content).hexdigest(), _stated(path)
    if actual != stated:
        expected = "it has no digest" if stated is None else f"sha256 {actual[:12]}… and not {stated[:12]}…"
        raise ValueError(
            f"{path} is not the checkpoint that was written: it is cut off or changed ({len(content)} bytes, {expected})."
        )
    try:
        return torch.load(io.BytesIO(content), map_location=map_location, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        # the text of torch explains how to run the code in the file
        raise ValueError(f"{path} holds more than tensors and plain values, or is no checkpoint.") from error


def newest_checkpoint(folder: Path) -> tuple[Path, Any] | None:
    """The last checkpoint in a folder that is intact, and its content; ``None`` where there is no checkpoint.

    A damaged one is passed over with a warning.

    Raises
    ------
    ValueError
        If there are checkpoints and all are damaged.
    """
    damaged = []
    for path in sorted(folder.glob(_NAMES), reverse=True):
        try:
            content = read_checkpoint(path)
        except ValueError as error:
            damaged.append(str(error))
            continue
        if damaged:
            warn(f"{' '.join(damaged)} Training continues from the checkpoint before, {path.name}.")
        return path, content
    if damaged:
        raise ValueError(
            f"No checkpoint in {folder} can be used. {' '.join(damaged)} Remove the folder of the run and train again with "
            "resume=False."
        )
    return None


def keep_only(folder: Path, kept: Iterable[Path]) -> None:
    """Remove all checkpoints but some."""
    names = {path.name for path in kept}
    for path in folder.glob(_NAMES):
        if path.name not in names:
            remove_checkpoint(path)


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint and its digest."""
    path.unlink(missing_ok=True)
    _digest_path(path).unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what killed runs left in a folder: files without their final name, and digests without a checkpoint."""
    for path in leftovers(folder):
        path.unlink(missing_ok=True)
    for path in folder.glob(f"{_NAMES}.sha256"):
        if not path.with_suffix("").exists():
            path.unlink(missing_ok=True)


def _digest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _stated(path: Path) -> str | None:
    """The digest beside a checkpoint; ``None`` where there is none."""
    try:
        return _digest_path(path).read_text(encoding="ascii").split()[0]
    except (OSError, ValueError, IndexError):
        return None
