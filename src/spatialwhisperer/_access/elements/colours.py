"""Colours of labels, the same in every picture and file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

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
    return [str(c) for c in stated["classes"]] if isinstance(stated, Mapping) and "classes" in stated else []


def colours_of(table: AnnData, key: str, names: Sequence[str]) -> list[str]:
    """Colour of each category of a column: that of ``.uns['<key>_colors']``, else one by its place among all labels."""
    stored = table.uns.get(f"{key}_colors", ())
    if len(stored) == len(names) > 0:
        return [str(c) for c in stored]
    # by place among all labels, so that a label has one colour in every section
    every = list(dict.fromkeys([*classes_of(table, key), *names]))
    by_name = dict(zip(every, distinct(len(every)), strict=True))
    return [by_name[name] for name in names]
