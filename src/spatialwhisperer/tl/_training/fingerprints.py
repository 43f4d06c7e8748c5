"""Recognising rows that a model was trained on."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


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
