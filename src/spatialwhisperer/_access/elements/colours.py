"""Colours of labels, the same in every picture and file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer import _keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


# scanpy's palette for up to 20 categories, whose import would take a second or more of the first annotation of a process
_TWENTY = (
    "#1f77b4 #ff7f0e #279e68 #d62728 #aa40fc #8c564b #e377c2 #b5bd61 #17becf #aec7e8 "
    "#ffbb78 #98df8a #ff9896 #c5b0d5 #c49c94 #f7b6d2 #dbdb8d #9edae5 #ad494a #8c6d31"
).split()


def distinct(n: int) -> list[str]:
    """Colours that can be told apart, as scanpy has them; they repeat after 102."""
    source = _TWENTY if n <= len(_TWENTY) else _hundred()
    return [source[i % len(source)] for i in range(n)]


def unlike(taken: Sequence[str], n: int) -> list[str]:
    """``n`` colours that are not among those taken; they repeat where there are no more."""
    free = _without(_TWENTY, taken)
    if len(free) < n:
        free = _without([*_TWENTY, *_hundred()], taken)
    return [free[i % len(free)] for i in range(n)]


def _hundred() -> list[str]:
    from scanpy.plotting import palettes

    return list(palettes.default_102)


def _without(colours: Sequence[str], taken: Sequence[str]) -> list[str]:
    lower = {t.lower() for t in taken}
    return [c for c in colours if c.lower() not in lower]


def classes_of(table: AnnData, key: str) -> list[str]:
    """All labels that rows could get; none where that is not recorded."""
    stated = table.uns.get(key)
    named: Any = stated.get("classes") if isinstance(stated, Mapping) else None
    return [] if isinstance(named, str) or np.ndim(named) != 1 else [str(c) for c in named]


def colours_of(table: AnnData, key: str, names: Sequence[str]) -> list[str]:
    """Colour of each category of a column: that of ``.uns['<key>_colors']``, else one by its place among all labels."""
    stored = stored_colours(table, key)
    if len(stored) == len(names) > 0:
        return stored
    # by place among all labels, so that a label has one colour in every section, in the annotation and in the ground truth
    every = list(dict.fromkeys([*classes_of(table, key), *classes_of(table, _keys.LABEL), *names]))
    by_name = dict(zip(every, distinct(len(every)), strict=True))
    return [by_name[name] for name in names]


def stored_colours(table: AnnData, key: str) -> list[str]:
    """The colours that are stored for a column; none where they are no colours."""
    from matplotlib.colors import is_color_like, to_hex

    stored = table.uns.get(f"{key}_colors", ())
    if isinstance(stored, str) or not hasattr(stored, "__iter__") or getattr(stored, "ndim", 1) == 0:
        return []
    colours = list(stored)
    if not all(is_color_like(c) for c in colours):
        return []
    return [str(c) if isinstance(c, str) else to_hex(c) for c in colours]
