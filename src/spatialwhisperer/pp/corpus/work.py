"""Building the slides of a corpus: one after the other in this process, or on the workers of a dask cluster."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from filelock import FileLock, Timeout

from spatialwhisperer._access.slide import Slide
from spatialwhisperer._compute.opened import opened_once
from spatialwhisperer._compute.workers import on_workers
from spatialwhisperer._messages import inform, listing, progress
from spatialwhisperer.pp.corpus.embedding import Encoders, origins, with_dims
from spatialwhisperer.pp.corpus.stamps import to_build
from spatialwhisperer.pp.corpus.writing import check_dtype, free_folder, slide_folder, unnamed_folders, write_shards
from spatialwhisperer.pp.features.finished_batches import kept_until_done
from spatialwhisperer.training.corpus.manifest import Manifest, SlideRecord, locked

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    import numpy as np

    from spatialwhisperer.pp.corpus.checks import Found
    from spatialwhisperer.pp.corpus.sources import CorpusSource
    from spatialwhisperer.pp.features.options import GeneFeatures, ImageFeatures, TextFeatures

_LOCKS = ".locks"


@dataclass(frozen=True)
class EncoderOptions:
    """Arguments of `Encoders.of`, which can be sent to another process."""

    image: ImageFeatures | None
    gene: GeneFeatures | None
    text: TextFeatures | None
    batch_size: int | None
    device: str | None

    def open(self) -> Encoders:
        """Find the encoders that the options name."""
        return Encoders.of(self.image, self.gene, self.text, self.batch_size, self.device)


@dataclass(frozen=True)
class BuildSlide:
    """Build one slide of a corpus, unless it is there or another process builds it.

    Attributes
    ----------
    folder
        The corpus.
    sources
        Sources by name.
    options
        How encoders are opened.
    found
        What was found of each slide, by source and name.
    shard_rows, dtype
        Largest number of rows of a shard, and type of the stored features.
    """

    folder: Path
    sources: Mapping[str, CorpusSource]
    options: EncoderOptions
    found: Mapping[tuple[str, str], Found]
    shard_rows: int
    dtype: str

    def __call__(self, slide: tuple[str, str]) -> bool:
        """Build a slide by the encoders that were opened before, and return whether it is in the corpus now."""
        return self.build(*slide, opened_once("encoders of a corpus", self.options.open))

    def build(self, source: str, name: str, encoders: Encoders) -> bool:
        """Build a slide, and return whether it is in the corpus now."""
        lock = FileLock(self._locks() / f"{Path(slide_folder(source, name)).name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        try:
            record = self._sweep(source, name)
            if to_build(record, self.found[source, name].stamps):
                with kept_until_done():
                    self._add(source, name, encoders, free_folder(source, name, record))
        finally:
            lock.release()
        return True

    def _locks(self) -> Path:
        locks = self.folder / _LOCKS
        locks.mkdir(exist_ok=True)
        return locks

    def _add(self, source: str, name: str, encoders: Encoders, path: str) -> None:
        """Embed a slide, write its shards beside those that are there, and let its record name the new ones."""
        given, found, what = self.sources[source], self.found[source, name], f"{source}/{name}"
        data = given.open(name)
        if not getattr(data, "n_obs", 1):
            inform(f"{what}: no row of the table is left, and the slide is recorded with 0 rows.")
            self._record(SlideRecord(source, name, found.stamps, 0), {})
            return
        slide = Slide.open(data, **given.options)
        rows = encoders.rows(slide, given, what)
        free, templated = origins(slide.table, given.text_keys, rows.captions)
        with_dims({**found.features, **_manifest(self.folder).features}, rows.features, what)
        check_dtype(rows, self.dtype, what)
        n, sections = len(rows.names), tuple(sorted({str(s) for s in rows.section}))
        try:
            shards = write_shards(self.folder, path, rows, shard_rows=self.shard_rows, dtype=self.dtype)
            record = SlideRecord(source, name, found.stamps, n, sections, _mpp(slide), free, templated, shards)
            self._record(record, rows.features)
        finally:
            self._sweep(source, name)
        if left := n - sum(shard.rows for shard in shards):
            inform(f"{what}: {left} of {n} rows hold fewer than two modalities and are left out.")

    def _record(self, record: SlideRecord, features: Mapping[str, np.ndarray]) -> None:
        """Put the record of a slide into the manifest, in place of an earlier one."""
        source, name = record.source, record.name
        with locked(self.folder):
            there = _manifest(self.folder)
            known = with_dims({**self.found[source, name].features, **there.features}, features, f"{source}/{name}")
            Manifest(known, there.dtype, there.sources, there.slides).with_slide(record).write(self.folder)

    def _sweep(self, source: str, name: str) -> SlideRecord | None:
        """Remove the shards of a slide that its record does not name: earlier ones, or those of a process that did not finish."""
        record = _manifest(self.folder).find(source, name)
        for path in unnamed_folders(source, name, record):
            shutil.rmtree(self.folder / path, ignore_errors=True)
        return record


def build_here(work: BuildSlide, encoders: Encoders) -> None:
    """Build every slide that no other process builds, one after the other.

    Raises
    ------
    ValueError, KeyError
        As the functions that embed one object do.
    """
    slides = [*work.found]
    bar = progress(slides, total=len(slides), desc="building", unit="slide")
    built = [work.build(source, name, encoders) for source, name in bar]
    elsewhere = [f"{source}/{name}" for (source, name), there in zip(slides, built, strict=True) if not there]
    if elsewhere:
        inform(f"{len(elsewhere)} slides are being built by other processes: {listing(elsewhere)}.")


def build_on(client: Any, work: BuildSlide) -> None:
    """Build the slides on the workers of a cluster; all are tried.

    Raises
    ------
    RuntimeError
        If some were not built; from the error of the first.
    """
    slides = [*work.found]
    failed: dict[int, BaseException] = {}
    with progress(total=len(slides), desc="building", unit="slide") as bar:
        for i, built, error in on_workers(client, work, slides, key=uuid4().hex):
            if error is not None:
                failed[i] = error
            elif not built:
                inform(f"{'/'.join(slides[i])} is being built by another process.")
            bar.update()
    if failed:
        names = [f"{'/'.join(slides[i])} ({type(failed[i]).__name__}: {failed[i]})" for i in sorted(failed)]
        raise RuntimeError(
            f"{len(failed)} of {len(slides)} slides were not built; the same call tries them again: {listing(names, 5)}"
        ) from failed[min(failed)]


def _manifest(folder: Path) -> Manifest:
    there = Manifest.read(folder)
    if there is None:
        raise FileNotFoundError(f"The manifest of {folder} was removed while the corpus was built.")
    return there


def _mpp(slide: Slide) -> tuple[float, ...]:
    """Microns per pixel of the images of a slide, where they are known."""
    try:
        return tuple(sorted(set(slide.where.mpp.values())))
    except (KeyError, ValueError):
        return ()
