"""Simulated sections: H&E, spots and single cells from one ground truth, in seconds and without a download."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp

from spatialwhisperer._checks.checked import checked
from spatialwhisperer.datasets._simulation.gene_programmes import gene_table, make_programme
from spatialwhisperer.datasets._simulation.painting import paint_section
from spatialwhisperer.datasets._simulation.tissue import BODY_UM, CLASSES, make_cells, make_tissue, spot_grid

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.datasets._simulation.gene_programmes import Programme
    from spatialwhisperer.datasets._simulation.tissue import Cells, Tissue


_LEAST_NUMBER, _MOST, _MOST_SD = 1e-3, 10**7, 10.0
_MOST_PX = 40_000
"""Longest edge of an image, which is painted in memory."""

CAPTIONS = (
    "malignant epithelial cells of an invasive breast carcinoma",
    "T lymphocytes of an immune infiltrate",
    "fibroblasts in collagen-rich connective tissue",
    "mature adipocytes of breast fat tissue",
    "endothelial cells that line blood vessels",
)


class SimulatedData(NamedTuple):
    """What `simulate_sections` returns.

    Attributes
    ----------
    sections
        One SpatialData per patient, by patient name.
    reference
        Labelled single cells of other patients.
    """

    sections: dict[str, SpatialData]
    reference: AnnData


@checked
def simulate_sections(
    n_patients: int = 3,
    n_spots: int = 400,
    *,
    n_genes: int = 600,
    n_reference_cells: int = 1500,
    mpp: float = 0.5,
    spot_pitch_um: float = 100.0,
    spot_diameter_um: float = 55.0,
    size_px: int | None = None,
    region_um: float = 120.0,
    counts_per_cell: float = 400.0,
    batch_sd: float = 0.25,
    stain_sd: float = 0.12,
    random_state: int = 0,
) -> SimulatedData:
    """Simulate H&E sections with spots, their expression, every cell's type, and a labelled single-cell reference.

    Five cell types of breast-like tissue (cancer cell, T cell, fibroblast, adipocyte, endothelial cell) fill regions that smooth random fields
    outline. Each has its own nuclei (size, shape, darkness, density), surroundings and gene programme, so that types can be told apart from the
    image alone, from expression alone, and neither perfectly. It is meant for tests and demonstrations: it says nothing about real H&E.

    Parameters
    ----------
    n_patients
        Number of sections, one per patient, named ``P1``, ``P2`` and so on.
    n_spots
        Spots per section, all under tissue.
    n_genes
        Genes, of which one in twenty marks each type; at least 20.
    n_reference_cells
        Single cells, from two patients of their own.
    mpp
        Microns per pixel.
    spot_pitch_um
        Distance between neighbouring spots of the hexagonal array.
    spot_diameter_um
        Diameter of a spot.
    size_px
        Edge of the square image; ``None`` fits it to the spots, with empty background around the tissue.
    region_um
        Correlation length of the fields that outline the regions.
    counts_per_cell
        Typical total count of a cell.
    batch_sd
        Standard deviation of the patient's effect on log expression, per gene.
    stain_sd
        Standard deviation of the patient's effect on log stain intensity; the stains' colours vary with a third of it.
    random_state
        Seed. A patient's section depends on the seed and its name, not on how many others are simulated.

    Returns
    -------
    Sections by patient, and the reference. The section of patient ``P1`` holds

    - ``P1_image``: uint8 pyramid (c, y, x); ``P1_spots``, ``P1_cells``: circles, radius in pixels (of a nucleus: that of a disc of its area);
      all in the coordinate systems ``P1`` (full-resolution pixels) and ``microns``;
    - ``table``, for ``P1_spots``: ``X`` raw counts (CSR int32), ``obs`` with ``region``, ``instance_id``, ``section``, ``patient``,
      ``cell_type`` (majority), ``n_cells``; ``obsm["cell_type_proportions"]`` (float32, n_spots x 5) with the class names in
      ``uns["cell_type_proportions"]["classes"]``; ``obsm["spatial"]`` in pixels; ``var`` with ``gene_ids`` (invented) and ``marker_of``;
    - ``cells``, for ``P1_cells``: ``X`` of no columns, ``obs`` with ``cell_type``; ``obsm["spatial"]`` in pixels.

    The reference has ``X`` raw counts, ``obs`` with ``cell_type``, ``text`` (a caption) and ``patient``, and the same ``var``.

    Raises
    ------
    ValueError
        A number out of range, or an image too small for the spots.

    Notes
    -----
    Colour follows Beer-Lambert's law: light x exp(-(h H + e E)), with h, e the stains' optical densities per pixel and H, E their colours. A
    spot's counts are the sum of the negative binomial counts of the cells whose body reaches into it; a spot without any takes its nearest cell.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> data = sw.datasets.simulate_sections(1, 30, n_genes=100, n_reference_cells=50, mpp=2.0)
    >>> data.sections["P1"]["table"].shape, data.reference.shape
    ((30, 100), (50, 100))
    """
    _check(locals())
    programme = make_programme(_rng(random_state, 0), n_genes, abs(batch_sd))
    var = gene_table(programme)
    side_um = _side_um(n_spots, mpp, spot_pitch_um, spot_diameter_um, size_px)
    sections = {}
    for i in range(n_patients):
        name, rng = f"P{i + 1}", _rng(random_state, 1, i)
        tissue = make_tissue(
            rng,
            side_um=side_um,
            n_spots=n_spots,
            pitch_um=spot_pitch_um,
            margin_um=spot_diameter_um,
            region_um=region_um,
        )
        cells = make_cells(rng, tissue, side_um=side_um)
        image = paint_section(rng, tissue, cells, size_px=round(side_um / mpp), mpp=mpp, stain_sd=abs(stain_sd))
        spots = _spot_table(rng, tissue, cells, programme, var, spot_diameter_um / 2, counts_per_cell)
        sections[name] = _assemble(name, image, tissue, cells, spots, mpp, spot_diameter_um)
    reference = _reference(_rng(random_state, 2), programme, var, n_reference_cells, counts_per_cell)
    return SimulatedData(sections, reference)


def _rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed))


def _check(arguments: dict[str, Any]) -> None:
    least_of = {"n_patients": 1, "n_spots": 1, "n_genes": 20, "n_reference_cells": 1, "random_state": 0}
    if arguments["size_px"] is not None:
        least_of["size_px"] = 1
    for name, least in least_of.items():
        value = arguments[name]
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name} must be an integer, not {value!r}.")
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}.")
        if value > _MOST and name != "random_state":
            raise ValueError(f"{name} must be at most {_MOST}, not {value}.")
    for name in ("mpp", "spot_pitch_um", "spot_diameter_um", "region_um", "counts_per_cell"):
        if not 0 < arguments[name] < np.inf:
            raise ValueError(f"{name} must be positive, not {arguments[name]}.")
        if not _LEAST_NUMBER <= arguments[name] <= _MOST:
            raise ValueError(f"{name} must lie between {_LEAST_NUMBER:g} and {_MOST}, not {arguments[name]}.")
    for name in ("batch_sd", "stain_sd"):
        if not 0 <= arguments[name] < np.inf:
            raise ValueError(f"{name} must be 0 or more, not {arguments[name]}.")
        if arguments[name] > _MOST_SD:
            raise ValueError(f"{name} must be at most {_MOST_SD}, not {arguments[name]}.")


def _side_um(n_spots: int, mpp: float, pitch: float, diameter: float, size_px: int | None) -> float:
    # tissue over two thirds of the grid, the rest is background
    side = float(
        np.sqrt(1.5 * n_spots * pitch**2 * np.sqrt(3) / 2) + 2 * diameter if size_px is None else size_px * mpp
    )
    for what, n in (("pixels", side / mpp), ("spots", side / pitch)):
        if n > _MOST_PX:
            raise ValueError(
                f"A section of {side:.3g} microns would have {n:.3g} {what} along an edge, and at most {_MOST_PX} fit into memory. Take "
                "fewer spots, or another mpp or spot_pitch_um."
            )
    if size_px is None:
        while len(spot_grid(side, pitch, diameter)) < 1.4 * n_spots:
            side *= 1.05
        return float(np.ceil(side / mpp) * mpp)
    room = len(spot_grid(side, pitch, diameter))
    if room < n_spots:
        raise ValueError(
            f"An image of {size_px} px at {mpp} microns per pixel has room for {room} spots, not {n_spots}. "
            "Raise size_px, or give size_px=None to fit the image to the spots."
        )
    return side


def _labels(kind: np.ndarray) -> pd.Categorical[str]:
    return pd.Categorical.from_codes(kind, categories=pd.Index(CLASSES))


def _spot_table(
    rng: np.random.Generator,
    tissue: Tissue,
    cells: Cells,
    programme: Programme,
    var: pd.DataFrame,
    radius_um: float,
    counts_per_cell: float,
) -> AnnData:
    import anndata as ad

    member = _captured(tissue.spots_um, cells, radius_um)
    used = np.unique(member.indices)
    kind = cells.kind[used]
    counts = programme.draw(rng, programme.batch(rng), kind, counts_per_cell)
    per_type = member @ sp.csr_matrix(np.eye(len(CLASSES), dtype=np.int32)[cells.kind])
    per_type = per_type.toarray()
    n_cells = per_type.sum(axis=1)
    table = ad.AnnData(
        X=sp.csr_matrix(member[:, used] @ sp.csr_matrix(counts), dtype=np.int32),
        obs=pd.DataFrame(
            {"cell_type": _labels(per_type.argmax(axis=1)), "n_cells": n_cells.astype(np.int32)},
            index=[f"spot_{i}" for i in range(len(n_cells))],
        ),
        var=var.copy(),
    )
    table.obsm["cell_type_proportions"] = (per_type / n_cells[:, None]).astype(np.float32)
    table.uns["cell_type_proportions"] = {"classes": np.array(CLASSES, dtype=object)}
    return table


def _captured(spots_um: np.ndarray, cells: Cells, radius_um: float) -> sp.csr_matrix:
    """(n_spots, n_cells) int32 membership: cells whose body reaches half its radius into the spot."""
    from scipy.spatial import cKDTree

    reach = radius_um + 0.5 * BODY_UM
    tree = cKDTree(cells.body_xy)
    near = tree.query_ball_point(spots_um, reach.max())
    spot = np.repeat(np.arange(len(spots_um)), [len(cell) for cell in near])
    cell = np.concatenate([np.asarray(c, dtype=np.int64) for c in near])
    distance = np.linalg.norm(spots_um[spot] - cells.body_xy[cell], axis=1)
    inside = distance <= reach[cells.kind[cell]]
    spot, cell = spot[inside], cell[inside]
    empty = np.setdiff1d(np.arange(len(spots_um)), spot)
    spot, cell = np.append(spot, empty), np.append(cell, tree.query(spots_um[empty])[1])
    shape = (len(spots_um), len(cells.kind))
    return sp.csr_matrix((np.ones(len(spot), dtype=np.int32), (spot, cell)), shape=shape)


def _assemble(
    name: str,
    image: np.ndarray,
    tissue: Tissue,
    cells: Cells,
    spots: AnnData,
    mpp: float,
    spot_diameter_um: float,
) -> SpatialData:
    import anndata as ad
    from spatialdata import SpatialData

    from spatialwhisperer.datasets._sections.elements import circles, image_element, pyramid, table_element

    single = ad.AnnData(
        X=np.empty((len(cells.kind), 0), dtype=np.float32),
        obs=pd.DataFrame({"cell_type": _labels(cells.kind)}, index=[f"cell_{i}" for i in range(len(cells.kind))]),
    )
    positions = {"spots": tissue.spots_um / mpp, "cells": cells.xy / mpp}
    radii = {"spots": spot_diameter_um / 2 / mpp, "cells": np.sqrt(cells.long * cells.short) / mpp}
    tables, shapes = {}, {}
    for what, key, table in [("spots", "table", spots), ("cells", "cells", single)]:
        region = f"{name}_{what}"
        table.obs_names = [f"{name}_{row}" for row in table.obs_names]
        table.obs["region"] = region
        table.obs["instance_id"] = np.arange(table.n_obs)
        for column in ("section", "patient"):
            table.obs[column] = pd.Categorical([name] * table.n_obs)
        table.obsm["spatial"] = positions[what].astype(np.float32)
        tables[key] = table_element(table, regions=[region])
        shapes[region] = circles(positions[what], radii[what], section=name, mpp=mpp)
    images = {f"{name}_image": image_element(pyramid(image), section=name, mpp=mpp)}
    return SpatialData(images=images, shapes=shapes, tables=tables)


def _reference(
    rng: np.random.Generator, programme: Programme, var: pd.DataFrame, n_cells: int, counts_per_cell: float
) -> AnnData:
    import anndata as ad

    patient = rng.integers(0, 2, n_cells)
    kind = rng.permutation(np.arange(n_cells) % len(CLASSES))
    counts = np.empty((n_cells, len(var)), dtype=np.int32)
    for p in range(2):
        rows = patient == p
        counts[rows] = programme.draw(rng, programme.batch(rng), kind[rows], counts_per_cell)
    obs = pd.DataFrame(
        {
            "cell_type": _labels(kind),
            "text": pd.Categorical.from_codes(kind, categories=pd.Index(CAPTIONS)),
            "patient": pd.Categorical.from_codes(patient, categories=pd.Index(["R1", "R2"])),
        },
        index=[f"reference_{i}" for i in range(n_cells)],
    )
    return ad.AnnData(X=sp.csr_matrix(counts), obs=obs, var=var.copy())
