"""Writing a shard: a zarr store in the layout of AnnData that appears whole or not at all."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialwhisperer._storage.folders import beside, make_durable, put, sweep
from spatialwhisperer._storage.permissions import as_usual
from spatialwhisperer.statistics.standardize import statistics
from spatialwhisperer.training.corpus.manifest import SHARDS, ShardRecord
from spatialwhisperer.training.corpus.shards import BLOCK_ROWS, CAPTIONS, ROWS, SECTIONS, feature_key, file_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from spatialwhisperer.training.corpus.manifest import SlideRecord

_NAME_LENGTH = 60
_OTHER = ".2"


@dataclass(frozen=True)
class Rows:
    """Rows of a slide.

    Attributes
    ----------
    names, patient, section
        Name, patient and section of each row, shape (n,).
    features
        Modality to features, shape (n, d), NaN in rows without; of text one row for each caption.
    captions
        Captions of each row as positions in ``texts``, -1 where there are fewer, shape (n, wordings).
    texts
        The distinct captions.
    """

    names: np.ndarray
    patient: np.ndarray
    section: np.ndarray
    features: Mapping[str, np.ndarray]
    captions: np.ndarray
    texts: Sequence[str]

    def holds(self) -> dict[str, np.ndarray]:
        """Modality to which rows have it, Boolean, shape (n,)."""
        out = {m: np.isfinite(x).all(axis=1) for m, x in self.features.items() if m != "text"}
        if "text" in self.features:
            out["text"] = (self.captions >= 0).any(axis=1)
        return out

    def kinds(self) -> dict[tuple[str, ...], np.ndarray]:
        """Sets of two modalities or more to the rows that hold just these, sorted by patient."""
        holds = self.holds()
        modalities = sorted(holds)
        code = np.sum([holds[m].astype(int) << bit for bit, m in enumerate(modalities)], axis=0)
        order = np.argsort(self.patient.astype(str), kind="stable")
        out = {}
        for value in np.unique(code):
            held = tuple(m for bit, m in enumerate(modalities) if value >> bit & 1)
            if len(held) > 1:
                out[held] = order[code[order] == value]
        return out


def slide_folder(source: str, name: str) -> str:
    """Folder of the shards of a slide, relative to the corpus; different slides have different folders."""
    digest = hashlib.sha256(f"{source}\0{name}".encode()).hexdigest()[:8]
    plain = "".join(c if c.isalnum() or c in "-." else "_" for c in f"{source}-{name}").lstrip(".")
    return f"{SHARDS}/{plain[:_NAME_LENGTH]}-{digest}"


def unnamed_folders(source: str, name: str, record: SlideRecord | None) -> list[str]:
    """Of the two folders that shards of a slide can lie in, those that its record does not name."""
    named = set() if record is None else {shard.path.rpartition("/")[0] for shard in record.shards}
    first = slide_folder(source, name)
    return [path for path in (first, f"{first}{_OTHER}") if path not in named]


def free_folder(source: str, name: str, record: SlideRecord | None) -> str:
    """Folder for new shards of a slide, relative to the corpus, so that those that its record names stay until it names the new ones."""
    return unnamed_folders(source, name, record)[0]


def check_dtype(rows: Rows, dtype: str, what: str) -> None:
    """Refuse features that are too large for the type that they are stored in.

    Raises
    ------
    ValueError
        If a finite value would become infinite.
    """
    for modality, x in rows.features.items():
        complete = np.isfinite(x).all(axis=1)[:, None]
        ends = np.max(x, where=complete, initial=0), np.min(x, where=complete, initial=0)
        largest = max(ends, key=abs)
        with np.errstate(over="ignore"):
            fits = np.isfinite(np.asarray(largest).astype(dtype))
        if not fits:
            raise ValueError(
                f"The {modality} features of {what} reach {largest:g}, and {dtype} ends at {np.finfo(dtype).max:g}. Build the corpus "
                'with dtype="float32" in another folder, or pass features of another scale.'
            )


def write_shards(corpus: Path, folder: str, rows: Rows, *, shard_rows: int, dtype: str) -> tuple[ShardRecord, ...]:
    """Write the shards of a slide.

    Parameters
    ----------
    corpus, folder
        Folder of the corpus, and that of the slide in it.
    rows
        The rows.
    shard_rows
        Largest number of rows of a shard.
    dtype
        Type of the stored features.
    """
    names = [str(name) for name in pd.unique(rows.section)]
    sections = {m: _section_statistics(x, rows.section, names) for m, x in rows.features.items() if m != "text"}
    out = []
    for held, chosen in rows.kinds().items():
        for part, start in enumerate(range(0, len(chosen), shard_rows)):
            path = f"{folder}/{'-'.join(held)}-{part:04d}"
            at = chosen[start : start + shard_rows]
            content = _Content(rows, held, at, names, {m: sections[m] for m in held if m != "text"}, dtype)
            out.append(_write(corpus, path, content))
    return tuple(out)


def _section_statistics(x: np.ndarray, section: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Mean, standard deviation and number of complete rows of each section; where rows are too few, those of the rows that there are."""
    means, stds, rows = [], [], []
    for name in names:
        own = x[section.astype(str) == name]
        n = int(np.isfinite(own).all(axis=1).sum())
        mean, std = statistics(own) if n else (np.zeros(x.shape[1], np.float32), np.ones(x.shape[1], np.float32))
        means.append(mean)
        stds.append(std)
        rows.append(n)
    return {"mean": np.stack(means), "std": np.stack(stds), "rows": np.array(rows)}


@dataclass(frozen=True)
class _Content:
    """What a shard holds.

    Attributes
    ----------
    rows
        The rows of the slide.
    held
        Modalities of the rows of the shard.
    at
        Positions of these rows.
    sections
        Names of the sections.
    statistics
        Modality to the statistics of its features in each section.
    dtype
        Type of the stored features.
    """

    rows: Rows
    held: tuple[str, ...]
    at: np.ndarray
    sections: Sequence[str]
    statistics: Mapping[str, Mapping[str, np.ndarray]]
    dtype: str


def _write(corpus: Path, path: str, content: _Content) -> ShardRecord:
    rows, held, at = content.rows, content.held, content.at
    final = corpus / path
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(final)
    try:
        captions, texts = _captions(rows, at) if "text" in held else (None, [])
        _fill(temporary, content, captions)
        make_durable(temporary)
        files = {
            p.relative_to(temporary).as_posix(): (p.stat().st_size, file_digest(p))
            for p in sorted(temporary.rglob("*"))
            if p.is_file()
        }
        as_usual(temporary, [temporary])
        put(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sweep(final)
    patient = rows.patient[at].astype(str)
    begins = np.flatnonzero(np.r_[True, patient[1:] != patient[:-1]])
    return ShardRecord(
        path,
        held,
        len(at),
        tuple((str(patient[i]), int(i)) for i in begins),
        len(texts),
        0 if captions is None else captions[0].shape[1],
        files,
    )


def _captions(rows: Rows, at: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], list[str]]:
    """Captions of the rows as positions among those that occur, which of all captions these are, and a number for each row's captions."""
    own = rows.captions[at]
    stated = own[own >= 0]
    # in the order of their first row, so that rows that lie together have captions that lie together
    used = pd.unique(stated)
    place = np.full(len(rows.texts), -1)
    place[used] = np.arange(len(used))
    numbers: dict[tuple[int, ...], int] = {}
    ids = np.array([_number(tuple(row[row >= 0].tolist()), rows.texts, numbers) for row in own], np.int64)
    found = np.where(own >= 0, place[own], -1).astype(np.int32)
    return (found, used, ids), [rows.texts[i] for i in used]


def _number(captions: tuple[int, ...], texts: Sequence[str], known: dict[tuple[int, ...], int]) -> int:
    """A number that is the same for the same captions wherever they occur, positive and below 2**62."""
    if captions not in known:
        joined = "\0".join(texts[i] for i in captions).encode()
        known[captions] = int.from_bytes(hashlib.sha256(joined).digest()[:8], "big") >> 2
    return known[captions]


def _fill(folder: Path, content: _Content, captions: tuple[np.ndarray, np.ndarray, np.ndarray] | None) -> None:
    """Write the arrays of a shard."""
    import anndata as ad
    import zarr
    from anndata.io import write_elem

    rows, at, sections, dtype = content.rows, content.at, content.sections, content.dtype
    obs = pd.DataFrame(
        {
            "patient": pd.Categorical(rows.patient[at].astype(str)),
            "section": pd.Categorical(rows.section[at].astype(str), categories=pd.Index(sections)),
        },
        index=pd.Index(rows.names[at].astype(str)),
    )
    group: Any = zarr.open_group(folder, mode="w", zarr_format=3)
    write_elem(group, "/", ad.AnnData(obs=obs))
    for modality in content.held:
        if modality != "text":
            _write_rows(group["obsm"], feature_key(modality), rows.features[modality][at].astype(dtype, copy=False))
    stated: dict[str, Any] = {f"{m}_{what}": x for m, s in content.statistics.items() for what, x in s.items()}
    write_elem(group["uns"], SECTIONS, stated | {"names": np.array(sections, dtype=object)})
    codes = obs["section"].cat.codes.to_numpy(np.int64)[:, None]
    own = [codes] if captions is None else [codes, captions[2][:, None], captions[0].astype(np.int64)]
    _write_rows(group["obsm"], ROWS, np.concatenate(own, axis=1))
    if captions is not None:
        texts = np.array([rows.texts[i] for i in captions[1]], dtype=object)
        write_elem(group["uns"], CAPTIONS, {"text": texts})
        _write_rows(group["uns"][CAPTIONS], "features", rows.features["text"][captions[1]].astype(dtype, copy=False))


def _write_rows(group: Any, key: str, x: np.ndarray) -> None:
    """Write a matrix to one file of chunks of some rows each, every chunk with its own checksum."""
    from anndata.io import write_elem
    from zarr.codecs import Crc32cCodec

    n, width = x.shape
    block = min(BLOCK_ROWS, max(1, n))
    whole = -(-n // block) * block
    options = {"chunks": (block, width), "shards": (whole, width), "compressors": [Crc32cCodec()]}
    write_elem(group, key, np.ascontiguousarray(x), dataset_kwargs=options)
