"""Telling whether a slide is the one that a result was made from."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BLOCK = 2**20
_BLOCKS = 64
_MOST_FILES = 1000


def content_digest(path: Path) -> str | None:
    """Digest of the content of a slide; ``None`` where it does not exist. A copy has the same one.

    It takes the names and sizes of all files of a zarr store, and reads small files as a whole: the smallest 1,000, up to 64 MiB
    together. Of larger ones it reads 64 blocks of 1 MiB, from the first to the last. The time therefore hardly grows with the slide.

    Parameters
    ----------
    path
        File, or folder of a zarr store.
    """
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    sizes = {file: file.stat().st_size for file in files if file.name != ".DS_Store"}
    if not sizes:
        return None
    digest = hashlib.sha256()
    smallest = sorted(sizes, key=lambda file: (sizes[file], file))
    for file in smallest:
        digest.update(f"{file.relative_to(path)}\0{sizes[file]}\0".encode("utf-8", "surrogateescape"))
    for file, start, length in _parts(smallest, sizes):
        with file.open("rb") as stream:
            stream.seek(start)
            digest.update(stream.read(length))
    return digest.hexdigest()


def _parts(smallest: list[Path], sizes: dict[Path, int]) -> Iterator[tuple[Path, int, int]]:
    """What is read: file, first byte, number of bytes."""
    left, whole = _BLOCK * _BLOCKS, 0
    while whole < min(len(smallest), _MOST_FILES) and sizes[smallest[whole]] <= left:
        left -= sizes[smallest[whole]]
        yield smallest[whole], 0, sizes[smallest[whole]]
        whole += 1
    others = smallest[whole:]
    chosen = [others[i] for i in _even(len(others) - 1, min(len(others), _BLOCKS))]
    for file in chosen:
        for start in _even(max(sizes[file] - _BLOCK, 0), max(_BLOCKS // len(chosen), 1)):
            yield file, start, _BLOCK


def _even(last: int, n: int) -> list[int]:
    """``n`` numbers from 0 to ``last``."""
    return [round(i * last / max(n - 1, 1)) for i in range(n)]
