"""The arrays of a shard: a zarr store in the layout of AnnData, which is read without AnnData, block by block."""

from __future__ import annotations

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._messages import listing
from spatialwhisperer._storage.untrusted import opening
from spatialwhisperer.training.corpus.manifest import open_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from spatialwhisperer.training.corpus.manifest import Manifest, ShardRecord

BLOCK_ROWS = 256
"""Rows of one chunk, the least that is read at a time."""

CAPTIONS = "sw_captions"
"""``.uns[CAPTIONS]``: the distinct captions and their features."""

ROWS = "sw_rows"
"""``.obsm[ROWS]``: of each row the position of its section in ``.uns[SECTIONS]``; a number that is the same for rows with the same
captions, in every shard; and its captions as positions in ``.uns[CAPTIONS]``, -1 where there are fewer."""

SECTIONS = "sw_sections"
"""``.uns[SECTIONS]``: mean and standard deviation of the features of each section."""

_READ_BYTES = 2**22
_READERS = 2
_DENSE = 4


SectionStatistics = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Mean and standard deviation of the features of each section, both (sections, d), and its number of rows, shape (sections,)."""


def feature_key(modality: str) -> str:
    """Key of ``.obsm`` with the features of a modality."""
    return f"X_{modality}"


@dataclass(frozen=True)
class Block:
    """Rows of a shard that follow each other.

    Attributes
    ----------
    features
        Modality to features as they are stored, shape (n, d); of text one row for each caption in ``captions``.
    section
        Section of each row, as a position in the statistics of the shard, shape (n,).
    captions
        Rows of ``features["text"]`` of each row, -1 where there are fewer, shape (n, wordings); ``None`` without text.
    caption_id
        Number of the captions of each row, shape (n,); ``None`` without text.
    """

    features: dict[str, np.ndarray]
    section: np.ndarray
    captions: np.ndarray | None = None
    caption_id: np.ndarray | None = None


class Shard:
    """A shard that is opened when it is first read.

    Parameters
    ----------
    folder
        Folder of the corpus.
    record
        What the manifest states about it.
    """

    def __init__(self, folder: Path, record: ShardRecord) -> None:
        self.record, self.path = record, folder / record.path
        self._arrays: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        # another process opens it for itself
        return {**self.__dict__, "_arrays": {}}

    async def _array(self, path: str) -> Any:
        """An array of the store. Opening one takes longer than reading a block of it."""
        if path not in self._arrays:
            from zarr.api.asynchronous import open_array

            self._arrays[path] = await open_array(store=self.path / path, mode="r")
        return self._arrays[path]

    async def _part(self, path: str, start: int, stop: int) -> np.ndarray:
        return np.asarray(await (await self._array(path)).getitem(slice(start, stop)))

    async def read(self, start: int, stop: int) -> Block:
        """Read some rows."""
        modalities = [m for m in self.record.modalities if m != "text"]
        rows, *found = await asyncio.gather(
            *(
                self._part(path, start, stop)
                for path in (f"obsm/{ROWS}", *(f"obsm/{feature_key(m)}" for m in modalities))
            )
        )
        features = dict(zip(modalities, found, strict=True))
        if "text" not in self.record.modalities:
            return Block(features, rows[:, 0])
        captions = rows[:, 2:]
        used = np.unique(captions[captions >= 0])
        features["text"] = await self._texts(used)
        captions = np.where(captions >= 0, np.searchsorted(used, captions), -1)
        return Block(features, rows[:, 0], captions, rows[:, 1])

    async def _texts(self, used: np.ndarray) -> np.ndarray:
        """Features of captions by their positions, which increase."""
        path = f"uns/{CAPTIONS}/features"
        if not len(used):
            return await self._part(path, 0, 0)
        first, last = int(used[0]), int(used[-1]) + 1
        if last - first <= _DENSE * len(used):
            return (await self._part(path, first, last))[used - first]
        # blocks that hold none of them are not read
        starts = np.unique(used // BLOCK_ROWS) * BLOCK_ROWS
        parts = await asyncio.gather(*(self._part(path, int(s), int(s) + BLOCK_ROWS) for s in starts))
        own = [part[used[used // BLOCK_ROWS * BLOCK_ROWS == s] - s] for s, part in zip(starts, parts, strict=True)]
        return np.concatenate(own)

    def block(self, start: int, stop: int) -> Block:
        """Read some rows.

        Raises
        ------
        ValueError
            If the shard is damaged.
        """
        (found,) = read_blocks([(self, start, stop)])
        return found

    def statistics(self, modality: str) -> SectionStatistics:
        """Statistics of the features of a modality in each whole section, of which the shard may hold a part."""
        with opening(f"The shard {self.path}"):
            mean, std, rows = (
                _whole(self.path / "uns" / SECTIONS / f"{modality}_{w}") for w in ("mean", "std", "rows")
            )
        return mean, std, rows

    def first_captions(self, start: int, stop: int) -> list[str | None]:
        """The first caption of some rows, ``None`` where there is none."""
        if "text" not in self.record.modalities:
            return [None] * (stop - start)
        with opening(f"The shard {self.path}"):
            captions = _whole(self.path / "obsm" / ROWS)[start:stop, 2:]
        texts = self.caption_texts()
        stated = [row[row >= 0] for row in captions]
        return [texts[int(row[0])] if len(row) else None for row in stated]

    def patients(self, start: int, stop: int) -> np.ndarray:
        """Patient of some rows."""
        names, begins = zip(*self.record.patients, strict=True)
        return np.array(names, dtype=object)[np.searchsorted(begins, np.arange(start, stop), side="right") - 1]

    def caption_texts(self) -> list[str]:
        """The distinct captions."""
        with opening(f"The shard {self.path}"):
            return _strings(self.path / "uns" / CAPTIONS / "text")

    def section_codes(self) -> np.ndarray:
        """Section of each row, as a position in the statistics, shape (n,)."""
        with opening(f"The shard {self.path}"):
            return _whole(self.path / "obsm" / ROWS)[:, 0]

    def section_names(self) -> list[str]:
        """Names of the sections, in the order of the statistics."""
        with opening(f"The shard {self.path}"):
            return _strings(self.path / "uns" / SECTIONS / "names")


def read_blocks(
    blocks: Sequence[tuple[Shard, int, int]], each: Callable[[int, Block], None] | None = None
) -> list[Block]:
    """Read rows of several shards at the same time, in a thread of its own: a notebook has an event loop in the first one.

    Parameters
    ----------
    blocks
        Shard, first row and last row (exclusive) of each block.
    each
        Function of the number of a block and the block, which takes it instead of the list that is returned.

    Raises
    ------
    ValueError
        If a shard is damaged.
    """
    out: list[Block] = []

    async def one(number: int, shard: Shard, start: int, stop: int) -> Block | None:
        with opening(f"The shard {shard.path}"):
            block = await shard.read(start, stop)
        if each is None:
            return block
        each(number, block)
        return None

    async def everything() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_READERS))
        found = await asyncio.gather(*(one(i, *block) for i, block in enumerate(blocks)))
        out.extend(block for block in found if block is not None)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(everything())).result()
    return out


def _whole(path: Path) -> np.ndarray:
    import zarr

    return np.asarray(zarr.open_array(path, mode="r")[:])


def _strings(path: Path) -> list[str]:
    return [str(text) for text in _whole(path)]


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Refuse a corpus with a file that is missing or cut off. No file is read.

    Raises
    ------
    ValueError
        If there is one; the text names the shards.
    """
    _refuse(folder, [f"{shard.path} ({why})" for shard in manifest.shards if (why := _wrong_size(folder, shard))])


def check_digests(folder: Path, shards: Iterable[ShardRecord]) -> None:
    """Refuse shards whose files are not those that were written. Every byte is read.

    Raises
    ------
    ValueError
        If a file is missing, cut off or changed; the text names the shards.
    """
    _refuse(folder, [f"{shard.path} ({why})" for shard in shards if (why := wrong_content(folder, shard))])


def wrong_content(folder: Path, shard: ShardRecord) -> str:
    """What is wrong with the files of a shard, as text; empty where they are those that were written."""
    if why := _wrong_size(folder, shard):
        return why
    for name, (_, sha256) in shard.files.items():
        if file_digest(folder / shard.path / name) != sha256:
            return f"{name} was changed: its checksum is another one"
    return ""


def _refuse(folder: Path, wrong: list[str]) -> None:
    if wrong:
        raise ValueError(
            f"{len(wrong)} shards of {folder} are damaged: {listing(wrong, 5)}. Copy them again, or remove their folders and build them "
            "again with sw.pp.build_corpus; the other shards stay."
        )


def _wrong_size(folder: Path, shard: ShardRecord) -> str:
    for name, (size, _) in shard.files.items():
        path = folder / shard.path / name
        found = path.stat().st_size if path.is_file() else None
        if found is None:
            return f"{name} is missing"
        if found != size:
            return f"{name} is cut off or changed: {found} bytes instead of {size}"
    return ""


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_READ_BYTES):
            sha.update(part)
    return sha.hexdigest()


@dataclass(frozen=True)
class Corpus:
    """A corpus that can be read.

    Attributes
    ----------
    folder
        Its folder.
    manifest
        What it states about itself.
    shards
        Its shards.
    """

    folder: Path
    manifest: Manifest
    shards: tuple[Shard, ...]

    @classmethod
    def open(cls, folder: Path) -> Corpus:
        """Open a corpus after a look at the sizes of all files.

        Raises
        ------
        FileNotFoundError
            If the folder holds none.
        ValueError
            If it is empty or damaged.
        """
        manifest = open_manifest(folder)
        if not manifest.shards:
            raise ValueError(f"The corpus {folder} holds no row with two modalities yet; nothing can be trained on it.")
        check_sizes(folder, manifest)
        return cls(folder, manifest, tuple(Shard(folder, record) for record in manifest.shards))
