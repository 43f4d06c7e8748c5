"""Writing a result as a whole or not at all, and recognising one that is there."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING, Any

from spatialwhisperer._access.contract import libraries_of
from spatialwhisperer._access.elements.pyramid import without_table
from spatialwhisperer._access.stores.reading import ROOTS, is_store, read_object
from spatialwhisperer._access.stores.saving import compression_of
from spatialwhisperer._access.tables import is_spatialdata
from spatialwhisperer._provenance import record, recorded
from spatialwhisperer._storage.files import whole_file
from spatialwhisperer._storage.folders import beside, make_durable, put, sweep
from spatialwhisperer._storage.permissions import check_writable, take_over
from spatialwhisperer.cli.slides.content import content_digest
from spatialwhisperer.cli.slides.marks import request_of

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.cli.slides.jobs import Job
    from spatialwhisperer.cli.slides.sources import Source

RUN = "sw_command"
"""Key under which a result records the command that wrote it."""

_ABOUT_OUTPUT = (
    "batch_size",
    "cluster",
    "command",
    "debug",
    "device",
    "geojson",
    "offline",
    "out",
    "overwrite",
    "quiet",
    "report",
    "slides",
)
"""Options that do not change what a result holds."""


def request(source: Source, options: Namespace, model: Path | None) -> dict[str, Any]:
    """What a result depends on: the slide, the model and the options. Two runs with the same request give the same result.

    Parameters
    ----------
    source
        The slide.
    options
        What was typed.
    model
        Folder of the model.
    """
    typed = {
        name: value for name, value in vars(options).items() if name not in _ABOUT_OUTPUT and value not in (None, False)
    }
    return {
        "slide": source.file,
        "content_sha256": content_digest(source.path),
        "model_sha256": _digest(model),
        "options": typed,
    }


def _digest(model: Path | None) -> str | None:
    """Of the configuration of a model, which holds the digests of its weights."""
    file = None if model is None else model / "config.json"
    return hashlib.sha256(file.read_bytes()).hexdigest() if file is not None and file.is_file() else None


def tidy(job: Job) -> None:
    """Remove what a killed run left beside a result."""
    if job.result.parent.is_dir():
        sweep(job.result.resolve())


def check_places(paths: Sequence[Path]) -> None:
    """Raise an error where files or stores cannot be written, before they are computed.

    Raises
    ------
    PermissionError
        If one that is there, or the folder that it would be made in, is read-only.
    """
    for path in paths:
        place = path.resolve()
        folder = next(one for one in place.parents if one.exists())
        check_writable(folder, place, remedy="Choose another --out, --geojson or --report.")


def older(paths: Sequence[Path], result: Path) -> list[Path]:
    """Those of some files that were written before a result, and so belong to a former one."""
    root = next((result / name for name in ROOTS if (result / name).is_file()), result)
    return [path for path in paths if path.stat().st_mtime_ns < root.stat().st_mtime_ns]


def differences(job: Job, wanted: Mapping[str, Any]) -> str | None:
    """In what a result that is there differs from what is wanted; ``None`` where it is the same.

    Raises
    ------
    FileExistsError
        If something else is in its place.
    """
    found = _request_of(job.result)
    if found is None:
        raise FileExistsError(
            f"{job.result} exists and was not written by this command. Choose another --out, or pass --overwrite."
        )
    return _differences(found, wanted)


def of_another(paths: Sequence[Path], wanted: Mapping[str, Any]) -> tuple[Path, str] | None:
    """The first of some files that does not belong to a result, and why; ``None`` where all do.

    Parameters
    ----------
    paths
        GeoJSON files and reports.
    wanted
        The request of the result.
    """
    for path in paths:
        found = request_of(path)
        if found is None:
            return path, "it does not say of what; QuPath may have written it"
        if differs := _differences(found, wanted):
            return path, differs
    return None


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    facts = {"slide": "slide", "content_sha256": "content of the slide", "model_sha256": "model"}
    wrong = [said for name, said in facts.items() if found.get(name) != wanted[name]]
    before, now = (dict(one.get("options") or {}) for one in (found, wanted))
    wrong += [f"--{name.replace('_', '-')}" for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    return ", ".join(wrong) or None


def _request_of(result: Path) -> dict[str, Any] | None:
    try:
        data = read_object(result)
    except ValueError:
        return None
    tables = data.tables.values() if is_spatialdata(data) else [data]
    found = [recorded(table, RUN) for table in tables]
    return next((one for one in found if one is not None), None)


def write(
    data: AnnData | SpatialData,
    table: AnnData,
    job: Job,
    wanted: Mapping[str, Any],
    *,
    image: bool,
) -> None:
    """Write a result. What was in its place stays there until the new one is complete.

    The files beside a former result are removed at that moment: they do not belong to the new one, and a run that dies here finds
    them missing when it goes on.

    Parameters
    ----------
    data
        What was annotated.
    table
        Its table, to which the request is added.
    job
        Where the result goes.
    wanted
        The request.
    image
        Whether pixels are written too.

    Raises
    ------
    FileExistsError
        If the place is taken by something that is no result.
    """
    record(table, RUN, wanted)
    if not is_spatialdata(data):
        _write_file(data if image else _without_pixels(data), job)
        return
    if job.result.exists() and not is_store(job.result):
        raise FileExistsError(f"{job.result} exists and is no zarr store. It is left alone; choose another --out.")
    kept = without_table(data)
    for name in () if image else tuple(kept.images):
        del kept.images[name]
    # of a symbolic link it is the store that the link points to
    place = job.result.resolve()
    temporary = beside(place)
    try:
        store = temporary / place.name
        kept.write(store)
        take_over(place, store)
        make_durable(store)
        _remove_files(job)
        put(store, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _without_pixels(adata: AnnData) -> AnnData:
    copy = adata.copy()
    libraries = {name: {**library, "images": {}} for name, library in libraries_of(copy).items()}
    copy.uns["spatial"] = {**copy.uns.get("spatial", {}), **libraries}
    return copy


def _write_file(adata: AnnData, job: Job) -> None:
    if job.result.is_dir():
        raise FileExistsError(f"{job.result} is a folder. It is left alone; choose another --out.")
    with whole_file(job.result) as temporary:
        adata.write_h5ad(temporary, **compression_of(job.source.path))
        _remove_files(job)


def _remove_files(job: Job) -> None:
    for path in job.files:
        path.unlink(missing_ok=True)


def write_text(text: str, path: Path) -> None:
    """Write a file as a whole or not at all."""
    with whole_file(path) as temporary:
        # a name of a file may hold bytes that are no text
        temporary.write_bytes(text.encode("utf-8", "replace"))
