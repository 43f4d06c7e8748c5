"""Sections of a benchmark: counts, where they lie, whose they are, and how their pixels are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from spatialwhisperer._access.sections.positions import stored_positions
from spatialwhisperer._access.table.counts import counts_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from spatialwhisperer.encoders.image.base import ImageEncoder

_NEIGHBOURS = 1.3


class Pixels(Protocol):
    """The pixels around the rows of a section.

    Attributes
    ----------
    tile_um, tile_px
        Edge of a tile in microns and in pixels.
    stamp
        What tells these files from others: their names, sizes and times.
    """

    tile_um: float
    tile_px: int
    stamp: str

    def features(self, encoder: ImageEncoder) -> np.ndarray:
        """Features of the tile of each row, float32 (n, d); NaN where there is no tile."""
        ...

    def darkness(self) -> np.ndarray:
        """Mean optical density of the tile of each row, float32 (n,)."""
        ...


@dataclass(frozen=True)
class FolderOptions:
    """Which sections of a folder are read, and how many of their rows.

    Attributes
    ----------
    only
        Names of the sections; none takes all.
    where
        Columns of the metadata and the value that they must have.
    rows
        Rows of each section, at even distances in the table; ``None`` takes all.
    tile_um
        Edge of a tile in microns. The patches of HEST-1k have this size already.
    metadata
        Table of the metadata, where the folder holds several.
    """

    only: tuple[str, ...] = ()
    where: tuple[tuple[str, str], ...] = ()
    rows: int | None = None
    tile_um: float = 112.0
    metadata: str | None = None


@dataclass(frozen=True)
class BenchmarkSection:
    """One section.

    Attributes
    ----------
    name, patient
        Section and patient, as the folder states them.
    table
        Raw counts, ``.obs["section"]`` and ``.obs["patient"]``, ``.obsm["spatial"]``; rows in the order of the pixels.
    pixels
        How pixels are read; ``None`` where there is no image.
    facts
        What the folder states about the section, such as its organ.
    mpp
        Microns per pixel of the positions; ``None`` where it is not stated.
    pitch
        Distance between neighbouring rows, over all rows of the file, in the unit of the positions. In microns it is that of the
        platform (100 for Visium, 200 for Spatial Transcriptomics), unless the scale is wrong.
    without_tile
        Rows of the folder that have counts and no tile. They are not in the table.
    """

    name: str
    patient: str
    table: AnnData
    pixels: Pixels | None
    facts: dict[str, Any] = field(default_factory=dict)
    mpp: float | None = None
    pitch: float | None = None
    without_tile: int = 0


def bare_table(table: AnnData, *, section: str, patient: str, keep: Sequence[str] = ()) -> AnnData:
    """Counts, positions and some columns of a table, its rows named after their section.

    Images and scale factors are left out: pixels are read from the files, and positions stay in pixels.

    Raises
    ------
    ValueError
        If a row has no position, or values are not raw counts.
    """
    import anndata as ad

    xy = stored_positions(table)
    if lost := int((~np.isfinite(xy)).any(axis=1).sum()):
        raise ValueError(f"{lost} rows of section {section} have no position. Remove them.")

    obs = pd.DataFrame({name: table.obs[name].to_numpy() for name in keep if name in table.obs})
    obs.index = pd.Index([f"{section}:{name}" for name in table.obs_names])
    obs["section"], obs["patient"] = section, patient
    out = ad.AnnData(counts_matrix(table), obs=obs, var=pd.DataFrame(index=table.var_names.astype(str)))
    out.obsm["spatial"] = xy
    return out


def pitch_of(positions: np.ndarray) -> float | None:
    """Median distance between neighbouring positions (n, 2); ``None`` with fewer than two.

    Neighbours lie within 1.3 times the median distance to the nearest one. That distance itself would be too short where spots lie off
    their array, as printed spots do.
    """
    from scipy.spatial import cKDTree

    if len(positions) < 2:
        return None
    tree = cKDTree(positions)
    nearest = float(np.median(tree.query(positions, k=2)[0][:, 1]))
    pairs = tree.query_pairs(_NEIGHBOURS * nearest, output_type="ndarray")
    return float(np.median(np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1)))


def even_rows(n: int, wanted: int | None) -> np.ndarray:
    """Positions of the rows that are taken, at even distances."""
    if wanted is None or wanted >= n:
        return np.arange(n)
    return np.unique(np.linspace(0, n - 1, wanted).astype(int))


def common_genes(sections: Sequence[BenchmarkSection]) -> list[str]:
    """Genes that every section has, in the order of the first."""
    shared = set.intersection(*(set(s.table.var_names) for s in sections))
    return [g for g in sections[0].table.var_names if g in shared]
