"""Where the results of each slide go, and what of them is there already."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from spatialwhisperer._access.stores.reading import is_store
from spatialwhisperer._messages import listing
from spatialwhisperer.cli.errors import UsageError
from spatialwhisperer.cli.parser import BESIDE
from spatialwhisperer.cli.slides.sources import find, is_folder

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from spatialwhisperer.cli.slides.sources import Source

_ENDINGS = {"geojson": (".geojson", ".json", ".geojson.gz", ".json.gz"), "report": (".html", ".htm")}


@dataclass(frozen=True)
class Job:
    """A slide and where its results go.

    Attributes
    ----------
    source
        The slide.
    result
        The SpatialData store or AnnData file.
    geojson, report
        Files that were asked for; ``None`` where they were not.
    """

    source: Source
    result: Path
    geojson: Path | None
    report: Path | None

    def absolute(self) -> Job:
        """The same with whole paths, for a process in another folder."""
        geojson, report = (None if path is None else path.absolute() for path in (self.geojson, self.report))
        return Job(replace(self.source, path=self.source.path.absolute()), self.result.absolute(), geojson, report)

    @property
    def files(self) -> list[Path]:
        """The files beside the result that were asked for."""
        return [path for path in (self.geojson, self.report) if path is not None]


def plan(options: Namespace) -> list[Job]:
    """The work that was typed.

    Raises
    ------
    UsageError
        If a path has the wrong ending or is in the way, or two slides have the same name.
    """
    sources = find(options.slides)
    several = len(sources) > 1 or any(is_folder(path) for path in options.slides)
    if any(is_folder(path) and path.resolve() == options.out.resolve() for path in options.slides):
        raise UsageError(f"--out must be another folder than that of the slides, {str(options.out)!r}.")
    jobs = _several(sources, options) if several else [_one(sources[0], options)]
    inputs = {source.path.resolve() for source in sources}
    for job in jobs:
        for path in (job.result, *job.files):
            if path.resolve() in inputs:
                raise UsageError(
                    f"{path} is a slide, and a result of that name would replace it. Choose another --out."
                )
    return jobs


def _one(source: Source, options: Namespace) -> Job:
    out: Path = options.out
    if not out.name.endswith(source.ending):
        raise UsageError(
            f"--out must end with {source.ending} for the one slide {source.path.name}; found {str(out)!r}. It is a folder where "
            "several slides or a folder are named."
        )
    files = {name: _file(name, out, getattr(options, name)) for name in _ENDINGS}
    for path in (out, *files.values()):
        if path is not None and not path.parent.is_dir():
            raise UsageError(f"There is no folder {str(path.parent)!r} for {path.name}. Make it first.")
    return Job(source, out, files["geojson"], files["report"])


def _file(name: str, out: Path, given: str | None) -> Path | None:
    """The file of an option: beside the result where it is named without a path."""
    if given is None:
        return None
    endings = _ENDINGS[name]
    path = Path(given) if given != BESIDE else out.with_suffix(endings[0])
    if not path.name.endswith(endings):
        raise UsageError(
            f"--{name} must be the name of a file that ends with {endings[0]}; found {given!r}. Without a path, name it after the slide."
        )
    return path


def _several(sources: Sequence[Source], options: Namespace) -> list[Job]:
    folders = {"out": options.out}
    for name in _ENDINGS:
        given = getattr(options, name)
        folders[name] = None if given is None else options.out if given == BESIDE else Path(given)
    for name, folder in folders.items():
        _check_folder(name, folder)
    jobs = [
        Job(
            source,
            options.out / f"{source.name}{source.ending}",
            None if folders["geojson"] is None else folders["geojson"] / f"{source.name}.geojson",
            None if folders["report"] is None else folders["report"] / f"{source.name}.html",
        )
        for source in sources
    ]
    _check_names(jobs)
    return jobs


def _check_folder(name: str, folder: Path | None) -> None:
    if folder is None:
        return
    if is_store(folder) or folder.exists() and not folder.is_dir():
        raise UsageError(
            f"--{name} must be a folder where several slides or a folder are named; {str(folder)!r} is none."
        )
    if folder.suffix in (".zarr", ".h5ad", ".geojson", ".html") and not folder.exists():
        raise UsageError(
            f"--{name} is a folder where several slides or a folder are named; {str(folder)!r} looks like the name of one result."
        )


def _check_names(jobs: Sequence[Job]) -> None:
    """Refuse two slides whose results would have the same name."""
    first: dict[str, Job] = {}
    for job in jobs:
        # some file systems do not tell capitals apart; a report is named after the slide alone
        other = first.setdefault(job.source.name.casefold(), job)
        if other is not job:
            both = listing([other.source.path, job.source.path])
            raise UsageError(
                f"{both} would have results of the same name. Annotate them in two runs, with another --out."
            )
