"""The arrays of a shard: a zarr store in the layout of AnnData, which is read without AnnData, block by block."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._messages import listing
from spatialwhisperer._storage.untrusted import opening
from spatialwhisperer.training.corpus.manifest import open_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from spatialwhisperer.training.corpus.manifest import Manifest, ShardRecord

CAPTIONS = "sw_captions"
"""``.obsm[CAPTIONS]``: captions of each row, as positions in ``.uns[CAPTIONS]``, -1 where there are fewer."""

CAPTION_ID = "sw_caption_id"
"""Column of ``.obs``: the same number for rows with the same captions, in every shard."""

SECTIONS = "sw_sections"
"""``.uns[SECTIONS]``: mean and standard deviation of the features of each section."""

_READ_BYTES = 2**22
_DENSE = 4


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
        self._store: Any = None
        self._sections: dict[str, np.ndarray] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # another process opens it for itself
        return {**self.__dict__, "_store": None}

    @property
    def store(self) -> Any:
        """The zarr group."""
        if self._store is None:
            import zarr

            with opening(f"The shard {self.path}"):
                self._store = zarr.open_group(self.path, mode="r")
        return self._store

    def block(self, start: int, stop: int) -> Block:
        """Read some rows.

        Raises
        ------
        ValueError
            If the shard is damaged.
        """
        with opening(f"The shard {self.path}"):
            obsm, obs = self.store["obsm"], self.store["obs"]
            features = {
                m: np.asarray(obsm[feature_key(m)][start:stop]) for m in self.record.modalities if m != "text"
            }
            section = np.asarray(obs["section"]["codes"][start:stop]).astype(np.int64)
            if "text" not in self.record.modalities:
                return Block(features, section)
            captions = np.asarray(obsm[CAPTIONS][start:stop])
            features["text"], captions = _texts(self.store["uns"][CAPTIONS]["features"], captions)
            return Block(features, section, captions, np.asarray(obs[CAPTION_ID][start:stop]))

    def statistics(self, modality: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean and standard deviation of each section, both (sections, d), and its number of rows, shape (sections,)."""
        with opening(f"The shard {self.path}"):
            group = self.store["uns"][SECTIONS]
            return tuple(np.asarray(group[f"{modality}_{what}"]) for what in ("mean", "std", "rows"))  # type: ignore[return-value]

    def first_captions(self, start: int, stop: int) -> list[str | None]:
        """The first caption of some rows, ``None`` where there is none."""
        if "text" not in self.record.modalities:
            return [None] * (stop - start)
        with opening(f"The shard {self.path}"):
            captions = np.asarray(self.store["obsm"][CAPTIONS][start:stop])
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
            return [str(text) for text in self.store["uns"][CAPTIONS]["text"][:]]

    def section_names(self) -> list[str]:
        """Names of the sections, in the order of the statistics."""
        with opening(f"The shard {self.path}"):
            return [str(name) for name in _values(self.store["obs"]["section"]["categories"])]


def _values(stored: Any) -> Any:
    # texts of pandas 3 are a group of values and a mask
    return stored["values"][:] if "values" in getattr(stored, "keys", tuple)() else stored[:]


def _texts(features: Any, captions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features of the captions that occur, and the position of each caption among them."""
    used = np.unique(captions[captions >= 0])
    if not len(used):
        return np.empty((0, features.shape[1]), np.float32), captions.astype(np.int64)
    first, last = int(used[0]), int(used[-1]) + 1
    if last - first <= _DENSE * len(used):
        found = np.asarray(features[first:last])[used - first]
    else:
        found = np.asarray(features.oindex[used, slice(None)])
    return found, np.where(captions >= 0, np.searchsorted(used, captions), -1)


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
