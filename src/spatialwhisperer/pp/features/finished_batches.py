"""Features of batches of tiles, kept on disk until the call that needs them is done: an interrupted call loses what it was computing."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib.metadata import version
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from spatialwhisperer._messages import inform
from spatialwhisperer._settings import settings
from spatialwhisperer._storage.schema import to_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from spatialwhisperer.encoders.recipe import EncoderIdentity

_STALE_SECONDS = 7 * 24 * 3600
_PART, _STALE_PART_SECONDS = ".part", 3600
_USED: ContextVar[set[Path] | None] = ContextVar("files of the calls that are running", default=None)


@contextmanager
def kept_until_done() -> Iterator[None]:
    """Keep finished batches until the outermost such block ends without an error, then remove them."""
    if _USED.get() is not None:
        yield
        return
    used: set[Path] = set()
    token = _USED.set(used)
    try:
        yield
    finally:
        _USED.reset(token)
    _remove(used)
    _remove(_stale())


class FinishedBatches:
    """Features of batches that an earlier, interrupted call had finished.

    A batch is found by the pixels of its tiles, so that features are never those of other pixels, and by everything else that decides
    about the numbers. The result is the same to the last bit as that of a call that was not interrupted.

    Parameters
    ----------
    encoder
        Identity of the encoder.
    mpp
        Microns per pixel of the tiles.
    device
        Torch device of the encoder.
    image
        Digest of what the encoder has seen of the image; ``None`` where it looks at tiles alone.
    """

    def __init__(self, encoder: EncoderIdentity, *, mpp: float, device: str, image: str | None = None) -> None:
        of = {
            "encoder": to_plain(encoder),
            "mpp": float(mpp),
            "device": device,
            "image": image,
            "precision": settings.precision,
            "backend": settings.backend,
            "compile": settings.compile,
        }
        versions = {name: version(name) for name in ("spatialwhisperer", "torch")}
        key = hashlib.sha256(json.dumps(of | versions, sort_keys=True).encode()).hexdigest()
        self.folder: Path | None = _root() / key[:32]

    def features(self, tiles: np.ndarray, encode: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Features of a batch of tiles: those that were kept, else computed and kept.

        Parameters
        ----------
        tiles
            The batch, uint8, shape (k, 3, p, p).
        encode
            Computes the features, float32, shape (k, d).
        """
        if self.folder is None:
            return encode(tiles)
        path = self.folder / f"{_digest(tiles)}.npz"
        out = _read(path, len(tiles))
        if out is None:
            out = encode(tiles)
            self._write(path, out)
        used = _USED.get()
        if used is not None:
            used.add(path)
        return out

    def _write(self, path: Path, features: np.ndarray) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(suffix=_PART, dir=path.parent)
            with os.fdopen(handle, "wb") as file:
                np.savez(file, features=features, sha256=_digest(features))
            os.replace(temporary, path)
        except OSError as error:
            inform(
                f"Finished tiles cannot be kept in {path.parent} ({error}), so that an interrupted call would start again. "
                "sw.settings.cache_dir = … names another folder."
            )
            self.folder = None


def _root() -> Path:
    return settings.cache_dir / "features"


def _digest(tiles: np.ndarray) -> str:
    sha = hashlib.sha256(repr((tiles.shape, tiles.dtype.str)).encode())
    sha.update(np.ascontiguousarray(tiles).data)
    return sha.hexdigest()


def _read(path: Path, n: int) -> np.ndarray | None:
    """Features of ``n`` tiles; ``None`` where there are none, or the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            features, digest = np.asarray(file["features"]), str(file["sha256"])
    except (OSError, ValueError, EOFError, KeyError, TypeError, RuntimeError, BadZipFile):
        return None
    whole = features.dtype == np.float32 and features.ndim == 2 and len(features) == n
    return features if whole and digest == _digest(features) else None


def _stale() -> list[Path]:
    """Files of calls that were interrupted long ago and never made again, and parts of files, which take no time to write."""
    now, out = time.time(), []
    for path in _root().glob("*/*"):
        # another process may remove it at this moment
        with suppress(OSError):
            if now - path.stat().st_mtime > (_STALE_PART_SECONDS if path.suffix == _PART else _STALE_SECONDS):
                out.append(path)
    return out


def _remove(paths: set[Path] | list[Path]) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink()
    for folder in {path.parent for path in paths}:
        # another call may still have files in it
        with suppress(OSError):
            folder.rmdir()
