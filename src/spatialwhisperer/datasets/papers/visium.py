"""One Visium section from the single files that Space Ranger wrote, as archives hold them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from spatialwhisperer._access.sections.lattice import VISIUM_PITCH_UM, hexagonal_pitch_px
from spatialwhisperer._storage.untrusted import opening
from spatialwhisperer.datasets._sections.section import Section
from spatialwhisperer.datasets._sections.spots import totals, whole_numbers

if TYPE_CHECKING:
    from pathlib import Path

SPOT_DIAMETER_UM = 55.0
_EXPRESSION = "Gene Expression"
_POSITIONS = ["barcode", "in_tissue", "array_row", "array_col", "y_px", "x_px"]
_FEWEST_SHARED = 0.95
"""Least fraction of the spots of one file that the other must hold. Analyses drop a few empty spots, another section differs in more."""


def counts_of_triplet(matrix: Path, barcodes: Path, features: Path) -> tuple[sp.csr_matrix, pd.Index, pd.DataFrame]:
    """Counts, CSR int32 (n_spots, n_genes), barcodes and genes from ``matrix.mtx``, ``barcodes.tsv`` and ``features.tsv``.

    Raises
    ------
    ValueError
        If a file is damaged, or they are not of one matrix.
    """
    from scipy.io import mmread

    with opening(f"The counts {matrix}"), warnings.catch_warnings():
        # scipy announces another class of sparse matrices, which are all one here
        warnings.filterwarnings("ignore", "The default value for `spmatrix`", DeprecationWarning)
        counts = sp.csr_matrix(mmread(matrix).T)
    with opening(f"The barcodes {barcodes}"):
        names = pd.Index(pd.read_csv(barcodes, sep="\t", header=None)[0].astype(str))
    with opening(f"The genes {features}"):
        genes = pd.read_csv(features, sep="\t", header=None, dtype=str, keep_default_na=False)
    if counts.shape != (len(names), len(genes)):
        raise ValueError(
            f"{matrix} holds {counts.shape[0]} spots and {counts.shape[1]} genes, but {barcodes} names {len(names)} spots and {features} "
            f"{len(genes)} genes: they are not of one section."
        )
    # antibodies of the same run are no genes
    expressed = np.ones(len(genes), bool) if 2 not in genes else (genes[2] == _EXPRESSION).to_numpy()
    counts, genes = whole_numbers(counts[:, expressed], matrix), genes[expressed]
    return counts, names, _genes(genes[1], genes[0])


def counts_of_h5(path: Path) -> tuple[sp.csr_matrix, pd.Index, pd.DataFrame]:
    """The same from ``filtered_feature_bc_matrix.h5``."""
    import scanpy as sc

    with opening(f"The counts {path}"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Variable names are not unique")
        table = sc.read_10x_h5(path)
    return whole_numbers(table.X, path), table.obs_names, _genes(table.var_names, table.var["gene_ids"])


def _genes(symbols: Any, ids: Any) -> pd.DataFrame:
    from anndata.utils import make_index_unique

    # of genes with one symbol the first keeps the name, in every section alike
    return pd.DataFrame(
        {"ensembl_id": np.asarray(ids, dtype=object)}, index=make_index_unique(pd.Index(symbols).astype(str))
    )


def positions_of(path: Path) -> pd.DataFrame:
    """Positions of all spots of the array by barcode, from ``tissue_positions_list.csv`` with or without a header.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    with opening(f"The positions {path}"):
        table = pd.read_csv(path, header=None, names=_POSITIONS, dtype={"barcode": str})
        table = table[table["barcode"] != "barcode"].set_index("barcode").astype(float)
        if table.empty or not np.isfinite(table.to_numpy()).all() or not table.index.is_unique:
            raise ValueError(
                "six columns are needed: barcode, in_tissue, array_row, array_col, pixel row, pixel column"
            )
    return table


def read_visium(
    name: str,
    patient: str,
    counts: tuple[sp.csr_matrix, pd.Index, pd.DataFrame],
    positions: Path,
    image: Path | None,
    *,
    off_tissue: bool = False,
    meta: dict[str, Any],
) -> Section:
    """Join counts and positions of one section.

    Parameters
    ----------
    name, patient
        Of the section.
    counts
        Counts, barcodes and genes.
    positions
        File with the positions of the spots.
    image
        The full-resolution image; ``None`` leaves it out.
    off_tissue
        Keep spots beside the tissue, where the counts hold them.
    meta
        What is recorded of the section.

    Raises
    ------
    ValueError
        If counts and positions are of different sections, or the positions not those of a Visium array.
    """
    matrix, barcodes, genes = counts
    spots = positions_of(positions)
    _check_shared(name, barcodes, spots, positions)
    kept = np.flatnonzero(barcodes.isin(spots.index if off_tissue else spots.index[spots["in_tissue"] == 1]))
    spots, matrix = spots.loc[barcodes[kept]], matrix[kept]
    obs = pd.DataFrame(
        {
            "array_row": spots["array_row"].astype("int64"),
            "array_col": spots["array_col"].astype("int64"),
            "in_tissue": spots["in_tissue"].astype("int64"),
            "section": name,
            "patient": patient,
            "barcode": spots.index.astype(object),
            **totals(matrix),
        }
    )
    obs.index = [f"{name}_{barcode}" for barcode in spots.index]
    xy = spots[["x_px", "y_px"]].to_numpy()
    pitch = hexagonal_pitch_px(obs, xy)
    if pitch is None:
        raise ValueError(
            f"The spots in {positions} do not lie on the array of Visium, whose pitch gives the microns per pixel."
        )
    mpp = VISIUM_PITCH_UM / pitch
    return Section(
        name=name,
        counts=matrix,
        genes=genes,
        obs=obs,
        spatial_px=xy.astype(np.float32),
        obsm={},
        mpp=mpp,
        spot_diameter_um=SPOT_DIAMETER_UM,
        image=image,
        meta={"section": name, "patient": patient, "um_per_px": mpp, **meta},
    )


def _check_shared(name: str, barcodes: pd.Index, spots: pd.DataFrame, positions: Path) -> None:
    """Barcodes are the same on every slide: counts of another section are noticed by the spots that are under its tissue."""
    tissue = spots.index[spots["in_tissue"] == 1]
    known = float(barcodes.isin(spots.index).mean())
    # counts of all spots of the array hold those beside the tissue too
    there = float(tissue.isin(barcodes).mean())
    under = float(barcodes.isin(tissue).mean()) if len(barcodes) < _FEWEST_SHARED * len(spots) else 1.0
    if min(known, there, under) < _FEWEST_SHARED:
        raise ValueError(
            f"Counts and positions of {name} are not of one section: of {len(barcodes)} spots with counts {known:.0%} are in {positions} and "
            f"{under:.0%} under its tissue, and {there:.0%} of the {len(tissue)} spots under its tissue have counts. Get both files again."
        )
