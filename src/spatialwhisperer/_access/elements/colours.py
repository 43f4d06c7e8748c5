"""Colours of labels, the same in every picture and file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer import _keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


def distinct(n: int) -> list[str]:
    """Colours that can be told apart, as scanpy has them; they repeat after 102."""
    from scanpy.plotting import palettes

    source = palettes.default_20 if n <= 20 else palettes.default_102
    return [source[i % len(source)] for i in range(n)]


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
