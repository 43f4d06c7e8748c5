"""Writing results back into a stored slide, so that each table is the old one or the new one at any moment."""

from __future__ import annotations

import json
import shutil
import warnings
from typing import TYPE_CHECKING

from spatialwhisperer._access.tables import is_spatialdata
from spatialwhisperer._storage.files import whole_file
from spatialwhisperer._storage.folders import beside, make_durable, put, sweep

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

_CONSOLIDATED = "consolidated_metadata"


def save_results(data: AnnData | SpatialData, path: Path) -> None:
    """Write the tables of a slide, and shapes that are new, into the store that it was read from.

    Images stay as they are. A process that is killed leaves a store that can be read, with each table as it was or as it is now.

    Parameters
    ----------
    data
        The slide.
    path
        Its file (.h5ad), which is replaced, or its zarr store.
    """
    if not is_spatialdata(data):
        with whole_file(path) as temporary:
            data.write_h5ad(temporary)
        return
    sweep(path)
    temporary = beside(path)
    try:
        new = temporary / path.name
        with warnings.catch_warnings():
            # a table without the image that it annotates, for as long as this takes
            warnings.simplefilter("ignore")
            _results(data, path).write(new)
        make_durable(new)
        _forget_consolidated(path)
        # shapes first: a table must not name shapes that are not there
        for kind in ("shapes", "tables"):
            _put_elements(new / kind, path / kind)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    type(data).read(path).write_consolidated_metadata()


def _results(data: SpatialData, path: Path) -> SpatialData:
    shapes = {name: shape for name, shape in data.shapes.items() if not (path / "shapes" / name).exists()}
    return type(data)(shapes=shapes, tables=dict(data.tables))


def _put_elements(new: Path, place: Path) -> None:
    if not new.is_dir():
        return
    if not place.is_dir():
        put(new, place)
        return
    for element in sorted(p for p in new.iterdir() if p.is_dir()):
        put(element, place / element.name)


def _forget_consolidated(store: Path) -> None:
    """Remove the copy of all metadata at the root, which would be older than the elements until it is written again."""
    (store / ".zmetadata").unlink(missing_ok=True)
    root = store / "zarr.json"
    if not root.is_file():
        return
    facts = json.loads(root.read_text(encoding="utf-8"))
    if facts.pop(_CONSOLIDATED, None) is not None:
        with whole_file(root) as temporary:
            temporary.write_text(json.dumps(facts), encoding="utf-8")
