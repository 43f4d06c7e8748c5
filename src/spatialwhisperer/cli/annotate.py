"""``spatialwhisperer annotate``: label slides, one after another or on a cluster."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm.auto import tqdm

from spatialwhisperer._messages import listing, progress
from spatialwhisperer._settings import settings
from spatialwhisperer.cli import cluster
from spatialwhisperer.cli.errors import UsageError, as_typed, one_line
from spatialwhisperer.cli.notes import collected
from spatialwhisperer.cli.slides import marks, results, sources
from spatialwhisperer.cli.slides.jobs import plan

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.cli.slides.jobs import Job
    from spatialwhisperer.models.whisperer import Whisperer

_OPENING = ("table_key", "image_key", "coordinate_system", "library_key", "spot_pitch_um")
_PASSED_ON = (
    "labels", "modality", "normalize", "background", "examples", "group_key", "min_confidence", "min_margin", "unknown",
    "embedding_key", "layer", "key_added", "batch_size", "device",
)  # fmt: skip
_OF_A_GRID = ("image_key", "coordinate_system", "mpp")
_TOPMOST = 3


def run(options: Namespace) -> int:
    """Annotate every slide that was named; 0 where all have a result, 1 where some slide failed."""
    jobs = plan(options)
    ends = []
    with _typed(options):
        label = _Labelling(options, _model(options))
        # options of tiles that exclude each other are refused before the first slide
        _grid(options, label.model)
        with cluster.started(options.cluster) as client, _bar(len(jobs)) as bar:
            for end in _ends(label, jobs, client):
                for line, is_error in end.lines:
                    _say(line, error=is_error)
                ends.append(end.kind)
                bar.update()
    if len(jobs) > 1:
        counts = ", ".join(f"{ends.count(kind)} {kind}" for kind in ("annotated", "skipped", "failed"))
        print(f"{len(jobs)} slides: {counts}.")
    return int("failed" in ends)


def _ends(label: _Labelling, jobs: Sequence[Job], client: Any) -> Iterator[End]:
    if client is None:
        return map(label, jobs)
    return cluster.distributed(client, label, [job.absolute() for job in jobs], failed=label.lost)


@contextmanager
def _typed(options: Namespace) -> Iterator[None]:
    """Settings as typed, and no messages of the packages that read and write: the lines of this command tell of that."""
    if not options.debug:
        for name in ("spatialdata", "tifffile"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    with settings.override(
        offline=options.offline or settings.offline,
        verbose=settings.verbose and not options.quiet,
        progress=settings.progress and not options.quiet,
    ):
        yield


def _bar(n: int) -> Any:
    """A bar over several slides; one slide has bars of its own."""
    return progress(total=n, desc="slides", unit="slide") if n > 1 else tqdm(disable=True)


def _model(options: Namespace) -> Whisperer:
    """The model, and whether it reads the modality and the device is there: known before the first slide is read."""
    from spatialwhisperer.models import default_model, load

    try:
        settings.resolve_device(options.device)
        model = default_model() if options.model is None else load(options.model)
    except (FileNotFoundError, ImportError, ValueError) as error:
        raise UsageError(one_line(error)) from error
    read = [name for name in model.modalities if name != "text"]
    if options.modality not in (None, *read):
        raise UsageError(f"--modality must be one that the model reads ({listing(read)}); found {options.modality!r}.")
    return model


class End(NamedTuple):
    """What became of a slide: "annotated", "skipped" or "failed", and lines with whether they tell of an error."""

    kind: str
    lines: list[tuple[str, bool]]


class _Labelling:
    """Annotates slides; it can be sent to another process.

    Attributes
    ----------
    options
        What was typed.
    model
        The model.
    """

    def __init__(self, options: Namespace, model: Whisperer) -> None:
        self.options, self.model = options, model

    def __call__(self, job: Job) -> End:
        """Annotate one slide; an error is a line, and the next slide is taken."""
        options, model = self.options, self.model
        lines: list[tuple[str, bool]] = []
        try:
            with _typed(options):
                results.tidy(job)
                wanted = results.request(job.source, options, model.folder)
                missing = _missing(job, wanted, options)
                if not missing:
                    return End("skipped", [(f"{job.source.file}: skipped, {job.result} is complete.", False)])
                results.check_places(missing)
                summary = _annotated(job, options, model, wanted, missing, lines)
        except Exception as error:
            if options.debug:
                raise
            said = as_typed(one_line(error), vars(options))
            return End("failed", [*lines, (f"spatialwhisperer: error: {job.source.file}: {said}", True)])
        return End("annotated", [*lines, (f"{job.source.file}: {summary}", False)])

    def lost(self, job: Job, error: BaseException) -> End:
        """What became of a slide that came to no end: one of a process that died, or with ``--debug`` one with an error."""
        if self.options.debug:
            raise error
        return End("failed", [(f"spatialwhisperer: error: {job.source.file}: {cluster.why_lost(error)}", True)])


def _missing(job: Job, wanted: Mapping[str, Any], options: Namespace) -> list[Path]:
    """What is to be written.

    Raises
    ------
    FileExistsError
        If something that is there differs from what was asked for.
    """
    there = [path for path in job.files if path.exists()]
    if options.overwrite:
        return [job.result, *job.files]
    if not job.result.exists():
        if there:
            raise FileExistsError(f"{there[0]} exists. Choose another path, or pass --overwrite.")
        return [job.result, *job.files]
    differs = results.differences(job, wanted)
    if differs is not None:
        raise FileExistsError(
            f"{job.result} exists and was made otherwise ({differs}). Choose another --out, or pass --overwrite."
        )
    if older := results.older(there, job.result):
        raise FileExistsError(
            f"{older[0]} exists and is older than {job.result}. Remove it, choose another path, or pass --overwrite."
        )
    if other := results.of_another(there, wanted):
        raise FileExistsError(
            f"{other[0]} exists and was made otherwise ({other[1]}). Remove it, choose another path, or pass --overwrite."
        )
    return [path for path in job.files if path not in there]


def _annotated(
    job: Job,
    options: Namespace,
    model: Whisperer,
    wanted: Mapping[str, Any],
    missing: list[Path],
    lines: list[tuple[str, bool]],
) -> str:
    """Annotate a slide and write what is missing; adds warnings to the lines, and returns what became of it in one line."""
    from spatialwhisperer.cli.reporting.facts import Facts
    from spatialwhisperer.cli.reporting.tissue import compared

    start = time.monotonic()
    opening = {name: getattr(options, name) for name in _OPENING if getattr(options, name) is not None}
    with collected(others=options.debug) as notes:
        data = sources.read(job.source, mpp=options.mpp if job.source.kind == "image" else None, page=options.page)
        if options.mpp is not None and job.source.kind != "image":
            opening["mpp"] = options.mpp
        _lay_tiles(data, options, model, opening)
        _label(data, options, model, opening)
    lines += [(f"spatialwhisperer: warning: {job.source.file}: {sentence}", True) for sentence in notes.warnings]
    for path in (job.result, *job.files):
        # the folder of several results is made by the first of them
        path.parent.mkdir(parents=True, exist_ok=True)
    tissue = compared(data, model, options, opening) if job.report in missing else None
    facts = Facts.of(data, job, options, model, notes, opening, tissue)
    if job.geojson in missing and options.section is None and len(facts.images) > 1:
        raise ValueError(
            f"There are {len(facts.images)} sections ({listing(facts.images)}), and a file of QuPath belongs to one. Pass --section."
        )
    pictures = _pictures(data, facts, options, opening) if job.report in missing else []
    if job.result in missing:
        results.write(data, facts.table, job, wanted, image=not options.no_image)
    if job.geojson in missing:
        from spatialwhisperer.io.qupath import write_objects

        stated = {marks.NAME: wanted}
        write_objects(data, job.geojson, key=options.key_added, section=facts.section, stated=stated, **opening)
    if job.report in missing:
        from spatialwhisperer.cli.reporting.page import render

        results.write_text(render(facts, pictures, seconds=time.monotonic() - start, request=wanted), job.report)
    return f"{facts.summary(_TOPMOST)} -> {job.result}"


def _grid(options: Namespace, model: Whisperer) -> dict[str, Any]:
    """What was typed about tiles, whose edge is that of the model where none was typed."""
    given = {name: getattr(options, name) for name in ("tile_um", "stride_um", "min_tissue")}
    asked = {name: value for name, value in given.items() if value is not None}
    if not asked or "tile_um" in asked:
        return asked
    image = model.config.modalities.get("image")
    if image is None or not image.features.tile_um:
        raise UsageError("--stride-um and --min-tissue need --tile-um, because this model states no size of tiles.")
    return {"tile_um": image.features.tile_um[0], **asked}


def _lay_tiles(data: AnnData | SpatialData, options: Namespace, model: Whisperer, opening: Mapping[str, Any]) -> None:
    """Tiles of the size that was asked for, over a slide without a table."""
    asked = _grid(options, model)
    if not asked:
        return
    if not hasattr(data, "tables") or data.tables:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in asked if getattr(options, name) is not None)
        raise ValueError(
            f"{names} lays tiles over a slide that has no rows yet, and this object has a table. Leave it out."
        )
    from spatialwhisperer.pp import tiles

    tiles(data, at="grid", **asked, **{name: value for name, value in opening.items() if name in _OF_A_GRID})


def _label(data: AnnData | SpatialData, options: Namespace, model: Whisperer, opening: Mapping[str, Any]) -> None:
    from spatialwhisperer.tl import Hierarchy, zero_shot_annotate

    given = {name: getattr(options, name) for name in _PASSED_ON}
    given = {name: value for name, value in given.items() if value is not None}
    if options.level is not None or options.rollup:
        given["hierarchy"] = Hierarchy(level=options.level, rollup=options.rollup)
    zero_shot_annotate(data, model=model, **given, **opening)


def _pictures(data: AnnData | SpatialData, facts: Any, options: Namespace, opening: Mapping[str, Any]) -> list[Any]:
    """Pictures of the slide; none where it has no image, which the report then states."""
    if not facts.images:
        return []
    from spatialwhisperer.cli.reporting.pictures import draw

    return draw(data, facts, key=options.key_added, opening=opening)


def _say(line: str, *, error: bool = False) -> None:
    """Print a line without tearing a progress bar."""
    tqdm.write(line, file=sys.stderr if error else sys.stdout)
