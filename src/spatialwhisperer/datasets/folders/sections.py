"""Sections of a folder as a mapping: each is opened when it is asked for, and forgotten by the folder afterwards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from spatialwhisperer._access.tiles.patch_file import PATCHES, PatchFile
from spatialwhisperer._messages import listing
from spatialwhisperer._storage.untrusted import opening
from spatialwhisperer.datasets.folders.duplicates import Duplicate, group_counts, joined_units, near_identical

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anndata import AnnData


@dataclass(frozen=True)
class SectionFolder(Mapping[str, Any]):
    """Sections of a folder, by name.

    ``folder[name]`` opens a section as AnnData: raw counts in ``.X``; in ``.obs`` its ``section``, its ``patient`` and every
    column of the metadata that it does not have itself. Nothing is kept in memory.

    Attributes
    ----------
    paths
        File of each section.
    metadata
        One row for each section.
    patients
        Patient of each section. Patients of near-identical sections are one.
    duplicates
        Sections with near-identical counts, where they were looked for.
    patches
        File of the patches of each section that has one.
    tile_um
        Edge of a patch in microns.
    """

    paths: Mapping[str, Path]
    metadata: pd.DataFrame
    patients: Mapping[str, str]
    duplicates: tuple[Duplicate, ...] = ()
    patches: Mapping[str, Path] = field(default_factory=dict)
    tile_um: float = 112.0

    def __getitem__(self, name: str) -> AnnData:
        return self._open(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        return f"SectionFolder({len(self)} sections of {len(set(self.patients.values()))} patients: {listing(self, 5)})"

    def peek(self, name: str) -> AnnData:
        """Open a section without its counts, which stay on the disk.

        Parameters
        ----------
        name
            Name of the section.
        """
        return self._open(name, backed="r")

    def with_duplicates_joined(self) -> SectionFolder:
        """The same with near-identical sections found, and their patients taken for one. Every section is read."""
        genes = set.intersection(*(set(map(str, self.peek(name).var_names)) for name in self))
        order = sorted(genes)
        found = tuple(near_identical({name: group_counts(self[name], order) for name in self}))
        patients = joined_units(self.patients, found)
        return SectionFolder(self.paths, self.metadata, patients, found, self.patches, self.tile_um)

    def _open(self, name: str, **how: Any) -> AnnData:
        import anndata as ad

        if name not in self.paths:
            raise KeyError(f"There is no section {name!r} (found: {listing(self)}).")
        with opening(f"The table {self.paths[name]}"):
            table = ad.read_h5ad(self.paths[name], **how)
        # of genes with one symbol the first keeps the name, in every section alike
        table.var_names_make_unique()
        row = self.metadata.loc[name]
        for column, value in row.items():
            if column not in table.obs and not pd.isna(value):
                table.obs[str(column)] = pd.Categorical([value] * table.n_obs)
        table.obs["section"], table.obs["patient"] = name, self.patients[name]
        if name in self.patches:
            file = PatchFile(self.patches[name], self.tile_um)
            stated = {"path": str(file.path), "tile_um": self.tile_um, "tile_px": file.tile_px}
            table.uns[PATCHES] = json.dumps(stated)
            # the small image of such a table is too coarse for tiles, and has no stated scale
            table.uns.pop("spatial", None)
        return table
