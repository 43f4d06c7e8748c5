"""Folders in the layout of HEST-1k: a table of metadata, counts in ``st/`` and patches in ``patches/``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from spatialwhisperer._access.sections.positions import stored_positions
from spatialwhisperer._messages import inform, listing
from spatialwhisperer._storage.untrusted import opening
from spatialwhisperer.datasets.folders.metadata import patients_of, read_metadata
from spatialwhisperer.protocols.benchmarks.folder.patches import Patches
from spatialwhisperer.protocols.benchmarks.folder.sections import (
    BenchmarkSection,
    bare_table,
    even_rows,
    pitch_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from spatialwhisperer.protocols.benchmarks.folder.sections import FolderOptions

COUNTS = ("st", "adata")
"""Folders with one ``.h5ad`` for each section: that of HEST-1k, and that of a task of the HEST benchmark."""

FACTS = ("organ", "species", "st_technology", "oncotree_code", "dataset_title")
_ALIGNED = ("warped_x", "warped_y")


def is_hest(folder: Path) -> bool:
    """Whether a folder has this layout."""
    return any((folder / name).is_dir() for name in COUNTS)


def read_hest(folder: Path, options: FolderOptions) -> list[BenchmarkSection]:
    """Read the sections of a folder that are there, in the order of the metadata.

    Raises
    ------
    FileNotFoundError
        If there is no table of metadata, or no section that is asked for.
    ValueError
        If the metadata name a section twice or not at all, or a file is damaged.
    """
    where = next(folder / name for name in COUNTS if (folder / name).is_dir())
    metadata = read_metadata(folder, options.metadata)
    there = {path.stem: path for path in sorted(where.glob("*.h5ad"))}
    if unknown := [name for name in there if name not in metadata.index]:
        raise ValueError(
            f"The metadata have no row for {listing(unknown)} of {where}: their patient is not known. Add the rows, or move the files away."
        )
    chosen = [str(name) for name in _matching(metadata, options).index if name in there]
    if absent := [name for name in options.only if name not in chosen]:
        raise FileNotFoundError(f"There is no section {listing(absent)} among those asked for; found {listing(there)}.")
    if not chosen:
        raise FileNotFoundError(f"{where} holds no section that was asked for; found {listing(there)}.")
    patients = patients_of(metadata)
    rows = {name: cast("pd.Series", metadata.loc[name]) for name in chosen}
    return [_read(folder, there[name], row, patients[name], options) for name, row in rows.items()]


def _matching(metadata: pd.DataFrame, options: FolderOptions) -> pd.DataFrame:
    for column, value in options.where:
        if column not in metadata:
            raise ValueError(f"The metadata have no column {column!r} (found: {listing(metadata.columns, 40)}).")
        metadata = metadata[metadata[column].astype(str) == value]
    return metadata[metadata.index.isin(options.only)] if options.only else metadata


def _read(folder: Path, path: Path, row: pd.Series, patient: str, options: FolderOptions) -> BenchmarkSection:
    import anndata as ad

    name = path.stem
    with opening(f"The table {path}"):
        table = ad.read_h5ad(path)
    if "spatial" not in table.obsm:
        raise ValueError(f"{path} has no positions: .obsm['spatial'] is missing (found: {listing(table.obsm)}).")
    pitch = pitch_of(stored_positions(table))
    # of genes with one symbol the first keeps the name, in every section alike
    table.var_names_make_unique()
    file = folder / "patches" / f"{name}.h5"
    if not file.is_file():
        rows = even_rows(table.n_obs, options.rows)
        return _section(table[rows], None, name, patient, row, pitch, 0)
    patches = Patches(file, options.tile_um)
    at = table.obs_names.get_indexer(pd.Index(patches.names))
    if not (at >= 0).any():
        raise ValueError(
            f"No barcode of {file} names a row of {path}: {listing(patches.names, 3)} against {listing(table.obs_names, 3)}."
        )
    if lacking := int((at < 0).sum()):
        inform(f"{name}: {lacking} patches belong to no row of the table and are left out.")
    known = np.flatnonzero(at >= 0)
    taken = known[even_rows(len(known), options.rows)]
    return _section(table[at[taken]], patches.taken(taken), name, patient, row, pitch, table.n_obs - len(known))


def _section(
    table: AnnData,
    pixels: Patches | None,
    name: str,
    patient: str,
    row: pd.Series,
    pitch: float | None,
    without_tile: int,
) -> BenchmarkSection:
    facts: dict[str, Any] = {k: str(row[k]) for k in FACTS if k in row and not pd.isna(row[k])}
    if not pd.isna(stated := row.get("inter_spot_dist", np.nan)):
        facts["inter_spot_dist"] = float(stated)
    mpp = row.get("pixel_size_um_estimated", np.nan)
    return BenchmarkSection(
        name,
        patient,
        bare_table(table, section=name, patient=patient, keep=_ALIGNED),
        pixels,
        facts,
        None if pd.isna(mpp) or not float(mpp) > 0 else float(mpp),
        pitch,
        without_tile,
    )
