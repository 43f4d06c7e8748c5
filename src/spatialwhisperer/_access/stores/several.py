"""One verb for several slides: one after another, or on the workers of a dask cluster."""

from __future__ import annotations

import os
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeAlias, TypeVar, cast
from uuid import uuid4

from spatialwhisperer._access.slide_options import SlideOptions
from spatialwhisperer._access.stores.reading import FILE_ENDING, is_named_store, read_object
from spatialwhisperer._access.stores.saving import check_can_save, save_results
from spatialwhisperer._access.tables import is_spatialdata
from spatialwhisperer._compute.opened import keeping_opened
from spatialwhisperer._compute.workers import check_client, on_workers
from spatialwhisperer._messages import listing, progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from anndata import AnnData
    from distributed import Client
    from spatialdata import SpatialData

    Slide: TypeAlias = AnnData | SpatialData
    Slides: TypeAlias = Slide | Sequence[Slide | str | Path]

P = ParamSpec("P")
R = TypeVar("R")


class SlidesOptions(SlideOptions, total=False):
    """Arguments of every function that takes several slides.

    Attributes
    ----------
    client
        Client of dask.distributed, over whose workers a list of paths is distributed.
    """

    client: Client | None


def opening(options: SlidesOptions) -> SlideOptions:
    """The options without those that are for several slides alone."""
    return cast("SlideOptions", {name: value for name, value in options.items() if name != "client"})


def over_slides(verb: Callable[Concatenate[Slide, P], R]) -> Callable[Concatenate[Slides, P], R | None]:
    """Let a verb also take a list of slides, and a ``client`` of dask.distributed on whose workers they are worked on.

    Slides in the list are objects, whose results are written in place, or paths of stores, into which results are written. All are
    tried; those that failed are named at the end.
    """

    @wraps(verb)
    def call(data: Any, *args: P.args, **options: P.kwargs) -> R | None:
        if not isinstance(data, list | tuple):
            if options.get("client") is not None:
                raise ValueError(
                    "client distributes several slides over a cluster, and this is one. Pass a list of paths."
                )
            return verb(data, *args, **options)
        client: Any = options.pop("client", None)
        slides = _checked(data, client, options)
        work = _Work(verb.__module__, verb.__name__, args, dict(options))
        _run(work, slides, client)
        return None

    return call


class _Work:
    """A verb with its options, which can be sent to another process: the verb is found there by its name."""

    def __init__(self, module: str, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.module, self.name, self.args, self.options = module, name, args, options

    def __call__(self, slide: Any) -> None:
        from importlib import import_module

        verb = getattr(import_module(self.module), self.name)
        data = read_object(slide) if isinstance(slide, Path) else slide
        verb(data, *self.args, **self.options)
        if isinstance(slide, Path):
            save_results(data, slide)


def _checked(data: Sequence[Any], client: Any, options: dict[str, Any]) -> list[Any]:
    """The slides, with text as paths.

    Raises
    ------
    TypeError
        If one is neither an object nor a path, or the client is none.
    ValueError
        If there is none, one is named twice, a path is no store, results are not to be written, or a client gets objects in memory.
    FileNotFoundError
        If a path does not exist.
    PermissionError
        If results cannot be written into the store of a path.
    """
    if not data:
        raise ValueError("data must hold at least one slide; the list is empty.")
    if options.get("inplace") is False:
        raise ValueError(
            "inplace=False returns the result of one slide. Pass the slides one at a time, or leave it out."
        )
    if client is not None:
        check_client(client)
    slides = [_slide(one, f"data[{i}]") for i, one in enumerate(data)]
    seen: dict[Any, int] = {}
    for i, one in enumerate(slides):
        first = seen.setdefault(one.resolve() if isinstance(one, Path) else id(one), i)
        if first != i:
            raise ValueError(f"data[{first}] and data[{i}] are the same slide. Name it once.")
    if client is not None:
        for i, one in enumerate(slides):
            if isinstance(one, Path):
                # a worker may run in another folder
                slides[i] = one.absolute()
            else:
                raise ValueError(
                    f"A cluster reads slides from stores, and data[{i}] is an object in memory. Write it first, and pass the path: "
                    f"{'sdata.write(path)' if is_spatialdata(one) else 'adata.write_h5ad(path)'}."
                )
    return slides


def _slide(one: Any, name: str) -> Any:
    if not isinstance(one, str | os.PathLike):
        try:
            is_spatialdata(one)
        except TypeError as error:
            raise TypeError(f"{name} must be an AnnData, a SpatialData or a path, not {type(one).__name__}.") from error
        return one
    path = Path(one)
    if not path.exists():
        raise FileNotFoundError(f"There is no {path} ({name}).")
    if not is_named_store(path) and (path.suffix != FILE_ENDING or path.is_dir()):
        raise ValueError(
            f"{name} is {path}, which holds no results: results of a path are written into a SpatialData store (.zarr) or an AnnData file "
            f"(.h5ad). Make a store of a slide first: sw.io.read_slide({str(path)!r}).write('slide.zarr')."
        )
    check_can_save(path)
    return path


def _run(work: _Work, slides: list[Any], client: Any) -> None:
    """Try all slides.

    Raises
    ------
    RuntimeError
        If some have no result; from the error of the first.
    Exception
        The error of a slide, where all slides end in the same one.
    """
    failed: dict[int, BaseException] = {}
    ends = _here(work, slides) if client is None else on_workers(client, work, slides, key=uuid4().hex)
    with progress(total=len(slides), desc="slides", unit="slide") as bar:
        for i, _, error in ends:
            if error is not None:
                failed[i] = error
            bar.update()
    if len(failed) == len(slides) and len({(type(error), str(error)) for error in failed.values()}) == 1:
        # what is wrong with an argument is wrong for all slides, and is said as for one
        raise failed[0]
    if failed:
        names = [f"{_name(slides[i], i)} ({type(failed[i]).__name__}: {failed[i]})" for i in sorted(failed)]
        raise RuntimeError(
            f"{len(failed)} of {len(slides)} slides have no result{', and the others do' * (len(failed) < len(slides))}: "
            f"{listing(names, 5)}"
        ) from failed[min(failed)]


def _here(work: _Work, slides: list[Any]) -> Iterator[tuple[int, None, BaseException | None]]:
    with keeping_opened():
        for i, slide in enumerate(slides):
            try:
                work(slide)
            except Exception as error:  # noqa: BLE001, the other slides are to be done
                yield i, None, error
            else:
                yield i, None, None


def _name(slide: Any, i: int) -> str:
    return str(slide) if isinstance(slide, Path) else f"data[{i}]"
