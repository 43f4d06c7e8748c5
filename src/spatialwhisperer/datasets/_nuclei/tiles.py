"""Nuclei of a mask, and how many of each class lie in the tiles of a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd


def find_nuclei(instances: np.ndarray, classes: np.ndarray) -> pd.DataFrame:
    """Nuclei of an instance mask.

    Parameters
    ----------
    instances
        Nucleus of each pixel, 0 for none; shape (h, w).
    classes
        Class code of each pixel, same shape.

    Returns
    -------
    DataFrame by instance, ascending: ``x`` and ``y`` (mean of the pixels), ``code`` (class at its first pixel in reading
    order, which is the rule of the published benchmark), ``area`` in pixels.
    """
    flat = np.flatnonzero(np.ravel(instances))
    ids, first, inverse = np.unique(np.ravel(instances)[flat], return_index=True, return_inverse=True)
    area = np.bincount(inverse, minlength=len(ids))
    y, x = np.divmod(flat, instances.shape[1])
    mean = [np.bincount(inverse, weights=v, minlength=len(ids)) / np.maximum(area, 1) for v in (x, y)]
    code = np.ravel(classes)[flat[first]].astype(np.int64)
    return pd.DataFrame({"x": mean[0], "y": mean[1], "code": code, "area": area}, index=pd.Index(ids, name="instance"))


@dataclass(frozen=True)
class TileCounts:
    """Non-empty tiles of a grid: column and row of shape (n, 2), nuclei per class of shape (n, k)."""

    cells: np.ndarray
    counts: np.ndarray

    def centres(self, tile_px: int) -> np.ndarray:
        """Positions (x, y) of the centres in pixels, shape (n, 2)."""
        return (self.cells + 0.5) * tile_px


def count_tiles(nuclei: pd.DataFrame, n_classes: int, *, tile_px: int, always_drop: bool) -> TileCounts:
    """Count nuclei in the tiles of a grid that starts at the origin; the order is by column, then by row.

    Tiles in the last occupied column and row may leave the image and are dropped; unless ``always_drop``, only where the
    grid has more than one of both.
    """
    cells = np.floor(nuclei[["x", "y"]].to_numpy() / tile_px).astype(np.int64).reshape(-1, 2)
    code = nuclei["code"].to_numpy()
    if len(cells):
        last = cells.max(axis=0)
        if always_drop or (last > 0).all():
            kept = (cells < last).all(axis=1)
            cells, code = cells[kept], code[kept]
    where, inverse = np.unique(cells, axis=0, return_inverse=True)
    counts = np.zeros((len(where), n_classes), np.int32)
    np.add.at(counts, (inverse.ravel(), code), 1)
    return TileCounts(where, counts)
