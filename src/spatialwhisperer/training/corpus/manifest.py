"""What a corpus states about itself: ``manifest.json``, the one file that says which shards belong to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from spatialwhisperer._frozen import frozen
from spatialwhisperer._messages import joined, listing
from spatialwhisperer._storage.files import whole_file
from spatialwhisperer._storage.schema import Stored, from_plain, to_plain
from spatialwhisperer._storage.untrusted import LARGEST_JSON, parse_json, read_bytes
from spatialwhisperer.encoders.recipe import FeatureRecipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "manifest.json"
SHARDS, ENCODERS = "shards", "encoders"
FORMAT, FORMAT_VERSION = "spatialwhisperer corpus", 2

_LOCK = ".manifest.lock"
_REMEDY = "Build it in another folder, or ask for the features that it holds."


@dataclass(frozen=True)
class CorpusFeature(Stored):
    """The features of one modality.

    Attributes
    ----------
    recipe
        How they are made.
    dim
        Number of features.
    licence
        Licence of the encoder; empty where it is not known.
    stored
        Whether ``encoders/<modality>`` holds the encoder, because its name does not define it.
    looks_at_image
        Whether the encoder takes the staining of the whole image into account.
    """

    recipe: FeatureRecipe
    dim: int
    licence: str = ""
    stored: bool = False
    looks_at_image: bool = False


@dataclass(frozen=True)
class SourceRecord(Stored):
    """A source of slides.

    Attributes
    ----------
    licence
        Licence of its data.
    shareable
        Whether the licence allows to pass features of the data on.
    url
        Where the data are from; empty where it is not known.
    """

    licence: str
    shareable: bool
    url: str = ""


@dataclass(frozen=True)
class ShardRecord(Stored):
    """A shard: rows of one slide that hold the same modalities.

    Attributes
    ----------
    path
        Folder, relative to the corpus.
    modalities
        Modalities of every row, sorted.
    rows
        Number of rows.
    patients
        Patients, and the row at which the rows of each begin; rows are sorted by patient.
    captions
        Number of distinct captions.
    wordings
        Largest number of captions of a row.
    files
        Size in bytes and SHA-256 of each file, by its path in the shard.
    """

    path: str
    modalities: tuple[str, ...]
    rows: int
    patients: tuple[tuple[str, int], ...]
    captions: int = 0
    wordings: int = 0
    files: Mapping[str, tuple[int, str]] = field(default_factory=frozen)


@dataclass(frozen=True)
class SlideRecord(Stored):
    """A slide, or another table, that is finished.

    Attributes
    ----------
    source, name
        Its source and its name there.
    stamps
        Digests of its rows and of each modality that was asked for, which tell it from what the slide is later; empty for a
        modality that it does not hold.
    rows
        Its rows. Those that hold fewer than two modalities are in no shard.
    sections
        Names of its sections.
    mpp
        Microns per pixel of its images.
    free, templated
        Rows with captions that somebody wrote, and rows whose captions were made from metadata.
    shards
        Its shards.
    """

    source: str
    name: str
    stamps: Mapping[str, str]
    rows: int
    sections: tuple[str, ...] = ()
    mpp: tuple[float, ...] = ()
    free: int = 0
    templated: int = 0
    shards: tuple[ShardRecord, ...] = ()


@dataclass(frozen=True)
class Manifest(Stored):
    """Everything about a corpus but its rows.

    Attributes
    ----------
    features
        The features of each modality.
    dtype
        Type of the stored features.
    sources
        Source by name.
    slides
        The slides that are finished, sorted by source and name.
    """

    features: Mapping[str, CorpusFeature]
    dtype: str
    sources: Mapping[str, SourceRecord] = field(default_factory=frozen)
    slides: tuple[SlideRecord, ...] = ()

    @property
    def shards(self) -> list[ShardRecord]:
        """All shards. Their order does not depend on which slide was built first."""
        return [shard for slide in self.slides for shard in slide.shards]

    @property
    def digest(self) -> str:
        """SHA-256 of the features, and of the digests of all files."""
        # in which of its folders a slide lies says nothing about its rows
        shards = [to_plain(replace(shard, path="")) for shard in self.shards]
        parts = {"features": to_plain(self.features), "shards": shards}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def rows(self, *modalities: str) -> int:
        """Number of rows that hold all of some modalities."""
        return sum(shard.rows for shard in self.shards if set(modalities) <= set(shard.modalities))

    def patients(self) -> list[str]:
        """Names of all patients, sorted."""
        return sorted({name for shard in self.shards for name, _ in shard.patients})

    def find(self, source: str, name: str) -> SlideRecord | None:
        """The record of a slide; ``None`` where it is not finished."""
        return next((s for s in self.slides if (s.source, s.name) == (source, name)), None)

    def with_slide(self, slide: SlideRecord) -> Manifest:
        """The same with one more slide."""
        others = self.without(slide.source, slide.name).slides
        return replace(self, slides=tuple(sorted([*others, slide], key=lambda s: (s.source, s.name))))

    def without(self, source: str, name: str) -> Manifest:
        """The same without a slide."""
        return replace(self, slides=tuple(s for s in self.slides if (s.source, s.name) != (source, name)))

    def differences(self, asked: Manifest) -> list[str]:
        """How the features that are asked for differ from those of this corpus, one text for each modality or value.

        A modality that only one of both has is no difference: not every slide holds every modality.
        """
        out = [] if self.dtype == asked.dtype else [f"dtype: {self.dtype} there, {asked.dtype} asked for"]
        for name in sorted({*self.features} & {*asked.features}):
            there, wanted = self.features[name], asked.features[name]
            if there.recipe != wanted.recipe:
                out.append(f"{name}: {_recipe(there.recipe)} there, {_recipe(wanted.recipe)} asked for")
            elif there.dim != wanted.dim and there.dim and wanted.dim:
                out.append(f"{name}: {there.dim} features there, {wanted.dim} asked for")
        return out

    def write(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        plain = to_plain(self)
        # whichever slide came first
        plain |= {name: dict(sorted(plain[name].items())) for name in ("features", "sources")}
        stated = {"format": FORMAT, "format_version": FORMAT_VERSION, **plain}
        with whole_file(folder / NAME) as path:
            path.write_text(json.dumps(stated, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """Read it; ``None`` where the folder holds none.

        Raises
        ------
        ValueError
            If the file is damaged, of another format, or names a shard outside the folder.
        """
        path = folder / NAME
        if not path.is_file():
            return None
        stated = parse_json(read_bytes(path, LARGEST_JSON), f"the manifest {path}")
        if not isinstance(stated, dict) or stated.pop("format", None) != FORMAT:
            raise ValueError(f"{path} is not the manifest of a corpus.")
        version = stated.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise ValueError(f"{path} has format version {version!r}, and this package reads {FORMAT_VERSION}.")
        found = from_plain(cls, stated, f"the manifest {path}")
        inside = [p for shard in found.shards for p in (shard.path, *shard.files)]
        if wrong := [p for p in inside if p.startswith("/") or ".." in p.split("/")]:
            raise ValueError(f"{path} names files outside the corpus: {listing(wrong, 3)}.")
        return found


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let no other process read and change the manifest at the same time."""
    from filelock import FileLock

    with FileLock(folder / _LOCK):
        yield


def open_manifest(folder: Path) -> Manifest:
    """The manifest of a corpus.

    Raises
    ------
    FileNotFoundError
        If the folder holds no corpus.
    ValueError
        If the manifest is damaged.
    """
    found = Manifest.read(folder)
    if found is None:
        raise FileNotFoundError(
            f"{folder} holds no corpus: there is no {NAME}. sw.pp.build_corpus(sources, folder) builds one."
        )
    return found


def check_recipe(there: Manifest, asked: Manifest, folder: Path) -> None:
    """Refuse to add rows of other features.

    Raises
    ------
    ValueError
        If the corpus holds other features; the text names each difference.
    """
    if found := there.differences(asked):
        lines = "".join(f"\n- {text}" for text in found)
        raise ValueError(f"{folder} holds a corpus of another recipe, which stays as it is:{lines}\n{_REMEDY}")


def _recipe(recipe: FeatureRecipe) -> str:
    encoder: Any = recipe.encoder
    parts = [recipe.name]
    if encoder is not None:
        parts += [f"revision {encoder.revision}"] if encoder.revision else []
        parts += [f"sha256 {encoder.digest[:12]}…"] if encoder.digest else []
    if recipe.tile_um:
        parts.append(f"tiles of {joined(recipe.tile_um)} µm in {recipe.tile_px} px")
    return f"{', '.join(parts)}" + ("" if recipe.border == "pad" else f", border {recipe.border}")
