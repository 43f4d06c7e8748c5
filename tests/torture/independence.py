"""A row of the table: a result does not depend on batch size, chunks of the image, order of the rows, or which rows are there.

Annotation with the model of the package compares the rows of a section (features are standardised within the section, and their mean is a
feature), so that it depends on which rows are there by definition; there, only batch size, chunks and order are tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import spatialwhisperer as sw
from tests.torture.alike import alike
from tests.torture.frame import Campaign, Trial
from tests.torture.judge import quiet
from tests.torture.objects import LABELS, SDATA, VISIUM, fresh, replace_table, table_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TO_ROUNDING = 1e-4


class What(NamedTuple):
    """A call, whether rows may be left out, and the kinds of objects."""

    call: Callable[..., Any]
    subset: bool
    options: dict[str, Any]


CALLS = {
    "embed_images": What(sw.pp.embed_images, True, {"tile_um": 80, "tile_px": 48, "inplace": False}),
    "embed_images of two sizes": What(
        sw.pp.embed_images, True, {"tile_um": (80, 120), "tile_px": 48, "inplace": False}
    ),
    "annotate by image": What(
        sw.tl.zero_shot_annotate, False, {"labels": LABELS, "modality": "image", "inplace": False}
    ),
    "query by image": What(sw.tl.query, False, {"text": "fat", "modality": "image", "inplace": False}),
    "tissue_darkness": What(sw.tl.tissue_darkness, True, {"tile_um": 80, "tile_px": 32, "inplace": False}),
}


def _bare(kind: str) -> Any:
    """Without features, so that they are computed."""
    data = fresh(kind)
    for key in [k for k in table_of(data).obsm if k.startswith("X_")]:
        del table_of(data).obsm[key]
    return data


def _chunked(data: Any, size: int) -> None:
    if hasattr(data, "images"):
        tree = data.images["P1_image"]
        for name, node in tree.children.items():
            for key in node.data_vars:
                array = tree[name][key]
                array.data = array.data.rechunk((3, size, size))


def trials(rng: np.random.Generator, n: int) -> Iterator[Trial]:
    right: dict[tuple[str, str], Any] = {}
    names = list(CALLS)
    for at in range(n):
        name, kind = names[at % len(names)], (SDATA, VISIUM)[int(rng.integers(2))]
        what = CALLS[name]
        if (name, kind) not in right:
            right[name, kind] = _result(what, _bare(kind), {})
        data, options, rows = _bare(kind), {}, np.arange(table_of(fresh(kind)).n_obs)
        change = ("batch size", "chunks", "order", "subset")[int(rng.integers(4 if what.subset else 3))]
        if change == "batch size" and name != "tissue_darkness":
            options["batch_size"] = int(rng.integers(1, 50))
        elif change == "chunks":
            _chunked(data, int(rng.integers(17, 400)))
        elif change != "batch size":
            rows = (
                rng.permutation(rows)
                if change == "order"
                else np.sort(rng.choice(rows, int(rng.integers(5, 39)), replace=False))
            )
            replace_table(data, table_of(data)[rows].copy())
        same = alike(_result(what, data, options), right[name, kind][rows], rtol=_TO_ROUNDING)
        yield Trial(change, f"{name}({kind}): {same} with another {change}" if same else "")


def _result(what: What, data: Any, options: dict[str, Any]) -> np.ndarray:
    with quiet():
        return np.asarray(what.call(data, **what.options, **options), dtype=float)


INDEPENDENCE = Campaign("independence of batch size, chunks, order, subset", trials, bounded=10, long=80)
