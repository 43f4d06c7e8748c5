"""Writing results back into a stored slide, so that each table is the old one or the new one at any moment."""

from __future__ import annotations

import json
import shutil
import warnings
from typing import TYPE_CHECKING, Any

from spatialwhisperer._access.stores.reading import ROOTS
from spatialwhisperer._access.tables import is_spatialdata
from spatialwhisperer._messages import listing
from spatialwhisperer._storage.files import whole_file
from spatialwhisperer._storage.folders import beside, make_durable, put, sweep
from spatialwhisperer._storage.permissions import check_writable, take_over

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

_CONSOLIDATED, _CONSOLIDATED_V2 = "consolidated_metadata", ".zmetadata"
# shapes first: a table must not name shapes that are not there
_KINDS = ("shapes", "tables")
_MARKERS = {2: ".zgroup", 3: "zarr.json"}


def check_can_save(path: Path) -> None:
    """Raise an error where results cannot be written into a store, before they are computed.

    Raises
    ------
    PermissionError
        If a file or folder that `save_results` would change is read-only.
    """
    place = path.resolve()
    changed = [place.parent, place]
    if place.is_dir():
        changed += [place / name for name in (*ROOTS, _CONSOLIDATED_V2, *_KINDS)]
        changed += sorted(place.glob("tables/*/"))
        read, written = f"spatialdata.read_zarr({str(path)!r})", "write('slide.zarr')"
    else:
        read, written = f"anndata.read_h5ad({str(path)!r})", "write_h5ad('slide.h5ad')"
    check_writable(
        *changed,
        remedy=f"Results of a path are written into it. To write them elsewhere, read it, data = {read}, pass data, and write it: "
        f"data.{written}. The command line does so too: spatialwhisperer annotate … --out ….",
    )


def save_results(data: AnnData | SpatialData, path: Path) -> None:
    """Write the tables of a slide, and shapes that are new, into the store that it was read from.

    Images stay as they are. A process that is killed leaves a store that can be read, with each table as it was or as it is now.

    Parameters
    ----------
    data
        The slide.
    path
        Its file (.h5ad), which is replaced, or its zarr store. Of a symbolic link it is the one that the link points to.

    Raises
    ------
    RuntimeError
        If spatialdata writes elements that the store would not list. The store is left as it was.
    """
    # what a link points to may lie on another disk, from which nothing can be moved in one step
    path = path.resolve()
    if not is_spatialdata(data):
        with whole_file(path) as temporary:
            data.write_h5ad(temporary, **compression_of(path))
        return
    sweep(path)
    temporary = beside(path)
    try:
        new = temporary / path.name
        with warnings.catch_warnings():
            # a table without the shapes that it annotates, for as long as this takes
            warnings.simplefilter("ignore")
            results = _results(data, path)
            results.write(new, sdata_formats=_format_of(path))
        _check_listed(results, new, path)
        make_durable(new)
        _forget_consolidated(path)
        for kind in _KINDS:
            _put_elements(new / kind, path / kind)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    type(data).read(path).write_consolidated_metadata()


def compression_of(path: Path) -> dict[str, Any]:
    """How the values of an .h5ad file are compressed, as arguments of ``write_h5ad``; empty where they are not."""
    import h5py

    with h5py.File(path, "r") as file:
        values = file.get("X")
        # sparse values lie in a group
        values = values.get("data") if isinstance(values, h5py.Group) else values
        if not isinstance(values, h5py.Dataset) or values.compression not in ("gzip", "lzf"):
            return {}
        return {"compression": values.compression, "compression_opts": values.compression_opts}


def _results(data: SpatialData, path: Path) -> SpatialData:
    shapes = {name: shape for name, shape in data.shapes.items() if not (path / "shapes" / name).exists()}
    return type(data)(shapes=shapes, tables=dict(data.tables))


def _zarr_version(store: Path) -> int:
    """Version of zarr of a store, in whose groups only elements of that version are found."""
    # where both are there, zarr reads the newer
    return 3 if (store / _MARKERS[3]).is_file() else 2


def _format_of(store: Path) -> Any:
    """The format of a SpatialData store, for ``sdata_formats``."""
    # the documentation of SpatialData.write names this module
    from spatialdata._io.format import SpatialDataContainerFormats

    version = _zarr_version(store)
    return next(one for one in SpatialDataContainerFormats.values() if one.zarr_format == version)


def _check_listed(results: SpatialData, new: Path, store: Path) -> None:
    """Refuse to move elements into a store that would not list them: its tables would be gone."""
    version = _zarr_version(store)
    names = [f"{kind}/{name}" for kind in _KINDS for name in getattr(results, kind)]
    unlisted = [name for name in names if not (new / name / _MARKERS[version]).is_file()]
    if unlisted:
        raise RuntimeError(
            f"{store} is a store of zarr v{version}, and spatialdata wrote {listing(unlisted)} otherwise. Nothing was changed. Read the slide, "
            f"pass it, and write it as a new store: data = spatialdata.read_zarr({str(store)!r}); …; data.write('slide.zarr')."
        )


def _put_elements(new: Path, place: Path) -> None:
    if not new.is_dir():
        return
    if not place.is_dir():
        put(new, place)
        return
    for element in sorted(p for p in new.iterdir() if p.is_dir()):
        take_over(place / element.name, element)
        put(element, place / element.name)


def _forget_consolidated(store: Path) -> None:
    """Remove the copy of all metadata at the root, which would be older than the elements until it is written again."""
    (store / _CONSOLIDATED_V2).unlink(missing_ok=True)
    root = store / "zarr.json"
    if not root.is_file():
        return
    facts = json.loads(root.read_text(encoding="utf-8"))
    if facts.pop(_CONSOLIDATED, None) is not None:
        with whole_file(root) as temporary:
            temporary.write_text(json.dumps(facts), encoding="utf-8")
