"""Colours of labels, the same in every picture and file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer import _keys

if TYPE_CHECKING:
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
        free = _without([*_TWENTY, *_hundred()], taken) or _hundred()
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


def lost_classes(table: AnnData, key: str) -> str:
    """What to do about scores whose class names are gone, for a message; empty where they are not."""
    scores = _keys.scores(key)
    if scores not in table.obsm or key in table.uns:
        return ""
    return (
        f".obsm[{scores!r}] is there, and the names of its classes in .uns[{key!r}] were lost, as where tables are joined. Annotate the joined "
        "object again: sw.tl.zero_shot_annotate(data, …)."
    )


def colours_of(data: AnnData | Sequence[AnnData], key: str, names: Sequence[str]) -> list[str]:
    """Colour of each name in a column: that of ``.uns['<key>_colors']``, else one by its place among all labels.

    Parameters
    ----------
    data
        A table or several. The first that stores a colour for a name settles it, and a colour that an earlier one gave to another
        name does not count.
    key
        The column.
    names
        Its categories, and others that a picture shows beside them.
    """
    tables: list[AnnData] = list(data) if isinstance(data, Sequence) else [data]
    stored: dict[str, str] = {}
    for table in tables:
        former = set(stored.values())
        stored |= {n: c for n, c in _by_category(table, key).items() if n not in stored and c not in former}
    missing = [name for name in names if name not in stored]
    chosen = stored | _by_place(tables, key, names, missing, list(stored.values()))
    return [chosen[name] for name in names]


def _by_category(table: AnnData, key: str) -> dict[str, str]:
    """The colours that are stored for the categories of a column; none where they are more or fewer."""
    colours = stored_colours(table, key)
    if not colours or key not in table.obs:
        return {}
    names = [str(c) for c in table.obs[key].astype("category").cat.categories]
    return dict(zip(names, colours, strict=True)) if len(names) == len(colours) else {}


def _by_place(
    tables: Sequence[AnnData], key: str, names: Sequence[str], missing: Sequence[str], taken: Sequence[str]
) -> dict[str, str]:
    """Colours for the names without one: by their place, but those that are taken."""
    # by place among all labels, so that a label has one colour in every section, in the annotation and in the ground truth
    known = [name for column in (key, _keys.LABEL) for table in tables for name in classes_of(table, column)]
    every = list(dict.fromkeys([*known, *names]))
    place = dict(zip(every, distinct(len(every)), strict=True))
    free = set(_without(list(place.values()), taken))
    clashing = [name for name in missing if place[name] not in free]
    others = unlike([*taken, *place.values()], len(clashing))
    return {name: place[name] for name in missing} | dict(zip(clashing, others, strict=True))


def stored_colours(table: AnnData, key: str) -> list[str]:
    """The colours that are stored for a column, as ``#rrggbb``; none where they are no colours."""
    from matplotlib.colors import is_color_like, to_hex

    stored = table.uns.get(f"{key}_colors", ())
    if isinstance(stored, str) or not hasattr(stored, "__iter__") or getattr(stored, "ndim", 1) == 0:
        return []
    colours = list(stored)
    # names such as "red" and "C0" would hide that two colours are one
    return [to_hex(c) for c in colours] if all(is_color_like(c) for c in colours) else []
