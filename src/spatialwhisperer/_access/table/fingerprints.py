"""Recognising rows that a model was trained on."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from spatialwhisperer._access.slide import Slide


def row_hash(names: pd.Index, xy: np.ndarray | None, inside: np.ndarray) -> str:
    """Hash of the names and positions of some rows, which does not depend on their order.

    Positions are included because slides often have the same names of spots.

    Parameters
    ----------
    names
        Names of all rows.
    xy
        Positions of all rows, shape (n, 2), or ``None``; they are rounded to one decimal.
    inside
        Which rows to hash, Boolean, shape (n,).
    """
    chosen = names[inside].to_numpy(dtype=object)
    where = np.zeros((len(chosen), 2)) if xy is None else xy[inside]
    rows = sorted(f"{name} {x:.1f} {y:.1f}" for name, (x, y) in zip(chosen, where, strict=True))
    return hashlib.sha1("\n".join(rows).encode(), usedforsecurity=False).hexdigest()[:16]


def trained_sections(slide: Slide, known: Mapping[str, str]) -> dict[str, str]:
    """Sections of a slide that a model was trained on, and their codes in training.

    Parameters
    ----------
    slide
        The slide.
    known
        Code of each training section by the `fingerprint` of its rows.
    """
    sizes = {key.partition(":")[0] for key in known}
    found = {}
    for name in np.unique(slide.sections):
        inside = slide.sections == name
        # hashing a million rows takes a while, counting them does not
        key = fingerprint(slide, inside) if str(inside.sum()) in sizes else ""
        if key in known:
            found[str(name)] = known[key]
    return found


def fingerprint(slide: Slide, inside: np.ndarray) -> str:
    """Number and hash of some rows of a slide."""
    return f"{int(inside.sum())}:{row_hash(slide.table.obs_names, slide.positions(), inside)}"
