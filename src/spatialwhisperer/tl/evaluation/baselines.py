"""Baselines of predicted expression: the training mean, one number per spot, and neighbours in aligned sections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pandas as pd
import scipy.sparse as sp

from spatialwhisperer._access.names import check_names
from spatialwhisperer._access.result import Result
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.table.counts import counts_matrix, match_genes
from spatialwhisperer._access.table.groups import group_names
from spatialwhisperer._access.tiles.intensity import check_intensity
from spatialwhisperer._access.tiles.plan import plan_tiles
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.values import check_key_added, check_tile
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import inform, listing, warn
from spatialwhisperer.pp.features.tile_features import read_tiles
from spatialwhisperer.tl.evaluation.rows.pairs import AS_GIVEN, values_of
from spatialwhisperer.tl.evaluation.rows.scales import check_species

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer._access.records import OffSlide
    from spatialwhisperer._access.slide_options import SlideOptions
    from spatialwhisperer.statistics.expression.gene_numbers import GeneNumbers
    from spatialwhisperer.tl.evaluation.rows.pairs import Pair, SlideValues

DARKNESS = "sw_darkness"
"""Column of ``.obs`` with the mean optical density of the tile."""

ALIGNED = ("warped_x", "warped_y")
"""Columns of ``.obs`` with positions in a frame that is common to the sections of a patient."""

N_ALIGNED = 5
N_SCALAR = 200
_BLACK = 16
_GENES_AT_ONCE = 512
_TILES_AT_ONCE = 256
_COMPARED = 10_000


@dataclass(frozen=True)
class TrainingSpots:
    """Training spots in the genes and the value space of a prediction.

    Attributes
    ----------
    values
        CSR float32, shape (m, g).
    obs
        Their annotation, concatenated over the objects.
    sections
        Section of each spot; names differ between objects.
    totals
        Counts of each over all genes, NaN where values were not counts.
    scaled_over
        Genes over which the spots of each object were scaled; of none where values do not depend on all genes of a table.
    """

    values: sp.csr_matrix
    obs: pd.DataFrame
    sections: np.ndarray
    totals: np.ndarray
    scaled_over: list[GeneNumbers]


@shared
@checked
def tissue_darkness(
    data: AnnData | SpatialData,
    *,
    tile_um: float | None = None,
    tile_px: int = 64,
    off_slide: OffSlide | None = None,
    key_added: str = DARKNESS,
    inplace: bool = True,
    **slide: Unpack[SlideOptions],
) -> np.ndarray | None:
    """Mean optical density of the tile around each row: how dark the tissue is.

    Ranked within a section, this number correlates with the total count of a spot and so with many genes. It is a baseline for
    every method that predicts expression from images; :func:`evaluate_expression` measures it.

    Parameters
    ----------
    %(data)s
    tile_um, tile_px
        Edge of a tile in microns and in pixels; ``None`` takes the microns that :func:`spatialwhisperer.pp.tiles` stated.
    off_slide
        What to do with centres that are off the image: ``"raise"`` an error, or (``"nan"``) read them as background; ``None`` takes
        what `tiles` stated, else ``"raise"``.
    key_added
        Column of ``.obs`` to write.
    %(inplace)s
    %(slide)s

    Returns
    -------
    ``None``, or with ``inplace=False`` the array of shape (n,). In place it writes:

    ``.obs['sw_darkness']`` : :class:`pandas.Series` (dtype ``float32``)
        -log10 of the transmitted light (value / 255, at least 1 / 255), mean over pixels and channels. Pixels off the image, and
        those that were masked black, are background and count as 0.

    Raises
    ------
    KeyError
        If there is no image.
    ValueError
        If size or scale are not known, centres are off the slide, or the image holds nothing or other numbers than its type states.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections, _ = sw.datasets.simulate_sections(1, 60, n_genes=50, n_reference_cells=50, random_state=0)
    >>> sw.tl.tissue_darkness(sections["P1"], tile_um=80, tile_px=32)
    >>> bool(sections["P1"]["table"].obs["sw_darkness"].min() > 0)
    True
    """
    check_key_added(key_added)
    opened = Slide.open(data, **slide)
    check_names([opened])
    if inplace:
        opened.check_column(key_added)
    plan = plan_tiles(opened, off_slide)
    if tile_um is None and opened.tiles is not None:
        tile_um = opened.tiles.tile_um
    if tile_um is None:
        raise ValueError(
            "The size of the tiles is not known. Pass tile_um=…, or run sw.pp.tiles(data, tile_um=…) first."
        )
    check_tile(tile_um, tile_px)
    for section in plan.sections:
        check_intensity(section)
    tiles = read_tiles(plan, tile_um, tile_px)
    out = optical_density(tiles)
    if not inplace:
        return out
    record = {"tile_um": tile_um, "tile_px": tile_px, "where": opened.where}
    opened.put(Result(key_added, record, obs={key_added: out}))
    return None


def optical_density(tiles: np.ndarray) -> np.ndarray:
    """Mean optical density of uint8 tiles (n, 3, p, p), as :func:`tissue_darkness` computes it; float32 of shape (n,)."""
    density = -np.log10(np.arange(256).clip(1) / 255)
    out = np.empty(len(tiles), np.float32)
    for start in range(0, len(tiles), _TILES_AT_ONCE):
        block = np.asarray(tiles[start : start + _TILES_AT_ONCE])
        tissue = (block >= _BLACK).any(axis=1, keepdims=True)
        out[start : start + len(block)] = (density[block] * tissue).mean(axis=(1, 2, 3))
    return out


def read_training(
    train: Sequence[AnnData | SpatialData], pair: Pair, *, layer: str | None, options: SlideOptions
) -> TrainingSpots:
    """Training spots of all objects, in the genes and the space of the prediction.

    Raises
    ------
    ValueError
        If an object has none of the predicted genes, or holds rows that are evaluated.
    """
    read: list[SlideValues] = []
    sections: list[np.ndarray] = []
    tables: list[AnnData] = []
    for number, data in enumerate(train):
        slide = Slide.open(data, **options)
        table = slide.table
        columns = match_genes(pair.genes, pair.gene_ids, table)
        check_species(pair.genes, pair.gene_ids, table, columns >= 0, f"train[{number}]")
        if (columns < 0).all():
            raise ValueError(f"train[{number}] has none of the predicted genes ({listing(pair.genes, 5)}).")
        if (columns < 0).any():
            lacking = [pair.genes[i] for i in np.flatnonzero(columns < 0)]
            warn(f"train[{number}] lacks {len(lacking)} genes, which count as 0 there: {listing(lacking, 5)}.")
        known = values_of(slide, columns, space=pair.space, layer=layer, library=pair.library)
        if table is pair.table or _holds_evaluated(table, columns, known.values, pair, layer):
            raise ValueError(
                f"train[{number}] holds rows that are evaluated. Baselines and gene lists must not see them: pass the other sections only."
            )
        read.append(known)
        tables.append(table)
        sections.append(np.array([f"{number}:{code}" for code in slide.sections], dtype=object))
    obs: list[Any] = [table.obs for table in tables]
    stacked = pd.concat(obs, ignore_index=True)
    return TrainingSpots(
        sp.vstack([one.values for one in read], format="csr"),
        stacked,
        np.concatenate(sections),
        np.concatenate([one.totals for one in read]),
        [one.scaled_over for one in read if one.scaled_over is not None],
    )


def _holds_evaluated(table: AnnData, columns: np.ndarray, values: sp.csr_matrix, pair: Pair, layer: str | None) -> bool:
    """Whether training data have rows that are evaluated: the same names with the same counts, or values that are none.

    Names alone repeat. The predicted genes that the training data have are compared, in rows that are not empty in both: of a shallow
    section most are.
    """
    own, other = _first_rows(pair.table), _first_rows(table)
    common = own.index.intersection(other.index)
    common = common[:: max(1, len(common) // _COMPARED)]
    if not len(common):
        return False
    mine, its, present = own[common].to_numpy(), other[common].to_numpy(), columns >= 0
    if pair.space == AS_GIVEN:
        truth, known = pair.truth[mine][:, present], values[its][:, present]
    else:
        # values depend on the other genes and rows of a table, and counts do not
        at = match_genes(pair.genes, pair.gene_ids, pair.table)
        truth = counts_matrix(pair.table[mine], layer)[:, at[present]]
        known = counts_matrix(table[its], layer)[:, columns[present]]
    told = ((truth != 0).getnnz(axis=1) > 0) | ((known != 0).getnnz(axis=1) > 0)
    same = ((truth != known).getnnz(axis=1) == 0)[told]
    return bool(len(same) and same.mean() > 0.5)


def _first_rows(table: AnnData) -> pd.Series:
    """First row of each name."""
    names = table.obs_names
    return pd.Series(np.arange(len(names)), index=names)[~names.duplicated()]


def baseline_values(
    pair: Pair, training: TrainingSpots, *, scalar_key: str, patient_key: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Name and values (n, g) of each baseline that the data allow; a message says which are left out and why."""
    shape = pair.predicted.shape
    mean = np.asarray(training.values.mean(axis=0), np.float32).ravel()
    yield "training mean", np.broadcast_to(mean, shape).copy()
    without = [place for place, obs in (("data", pair.table.obs), ("train", training.obs)) if scalar_key not in obs]
    if without:
        inform(
            f"No baseline of tissue darkness: .obs of {' and '.join(without)} has no {scalar_key!r}; sw.tl.tissue_darkness adds it."
        )
    else:
        known, asked = (np.asarray(obs[scalar_key], np.float64) for obs in (training.obs, pair.table.obs))
        name = "darkness" if scalar_key == DARKNESS else scalar_key
        yield name, by_rank(training, known, asked, pair.groups)
    if pair.space != AS_GIVEN:
        yield "total UMI (oracle)", by_rank(training, training.totals, pair.totals, pair.groups)
    near = aligned_neighbours(pair, training, patient_key)
    if near is not None:
        yield "aligned neighbours", near


def by_rank(
    training: TrainingSpots, known: np.ndarray, asked: np.ndarray, groups: np.ndarray, k: int = N_SCALAR
) -> np.ndarray:
    """Mean of the training spots that are nearest in the within-section rank of one number.

    Parameters
    ----------
    training
        Training spots.
    known
        The number of each training spot, shape (m,); spots with NaN are left out.
    asked
        The number of each spot to predict, shape (n,); spots with NaN are not predicted.
    groups
        Section of each spot to predict.
    k
        How many are averaged, at most half of the training spots.

    Returns
    -------
    float32 of shape (n, g).
    """
    rank, target = _ranks(known, training.sections), _ranks(asked, groups)
    order = np.flatnonzero(np.isfinite(rank))
    order = order[np.argsort(rank[order], kind="stable")]
    out = np.full((len(asked), training.values.shape[1]), np.nan, np.float32)
    rows = np.flatnonzero(np.isfinite(target))
    k = max(1, min(k, len(order) // 2))
    if not len(order) or not len(rows):
        return out
    # sorted by rank the k nearest are consecutive: the window moves on where its two ends are equally far
    sorted_rank = rank[order]
    start = np.searchsorted((sorted_rank[:-k] + sorted_rank[k:]) / 2, target[rows]) if len(order) > k else 0
    columns = training.values[order].tocsc()
    for first in range(0, out.shape[1], _GENES_AT_ONCE):
        block = columns[:, first : first + _GENES_AT_ONCE].toarray().astype(np.float64)
        total = np.concatenate([np.zeros((1, block.shape[1])), block.cumsum(axis=0)])
        out[rows, first : first + block.shape[1]] = (total[start + k] - total[start]) / k
    return out


def _ranks(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Rank within the group between 0 and 1, NaN for NaN."""
    by = pd.Series(values).groupby(pd.Series(groups).to_numpy())
    return ((by.rank() - 0.5) / by.transform("count")).to_numpy()


def aligned_neighbours(pair: Pair, training: TrainingSpots, patient_key: str, k: int = N_ALIGNED) -> np.ndarray | None:
    """Mean of the nearest training spots of the same patient's other sections in their common frame, float32 (n, g).

    ``None`` where there is no common frame or no such section; NaN in rows without one.
    """
    from scipy.spatial import cKDTree

    needed = [*ALIGNED, patient_key]
    if any(name not in obs for name in needed for obs in (pair.table.obs, training.obs)):
        return None
    here: Any = pair.table.obs
    there = training.obs
    xy, bank = (np.stack([np.asarray(obs[name], np.float64) for name in ALIGNED], axis=1) for obs in (here, there))
    own = _section_names(here, pair.groups)
    other = _section_names(there, training.sections)
    patients, known = (group_names(obs[patient_key]) for obs in (here, there))
    placed = np.isfinite(xy).all(axis=1) & (patients != None)  # noqa: E711
    usable = np.isfinite(bank).all(axis=1)
    out = np.full(pair.predicted.shape, np.nan, np.float32)
    for section in pd.unique(own[placed]):
        for patient in pd.unique(patients[placed & (own == section)]):
            rows = np.flatnonzero(placed & (own == section) & (patients == patient))
            candidates = np.flatnonzero(usable & (known == patient) & (other != section))
            if not len(candidates):
                continue
            n = min(k, len(candidates))
            nearest = cKDTree(bank[candidates]).query(xy[rows], k=[*range(1, n + 1)])[1]
            weights = np.full(nearest.size, 1 / n, np.float32)
            pick = sp.csr_matrix(
                (weights, candidates[nearest.ravel()], np.arange(0, nearest.size + 1, n)),
                shape=(len(rows), len(bank)),
            )
            out[rows] = (pick @ training.values).toarray()
    return None if np.isnan(out).all() else out


def _section_names(obs: pd.DataFrame, otherwise: np.ndarray) -> np.ndarray:
    return group_names(obs["section"]) if "section" in obs else otherwise
