"""Sections of the olfactory bulb with their image features, computed once and kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

import spatialwhisperer as sw
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.tiles.plan import plan_tiles
from spatialwhisperer._messages import inform
from spatialwhisperer.pp.features.tile_features import read_tiles

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

TILE_UM = 200.0
"""One pitch: neighbouring tiles touch, and none sees the centre of another."""

TILE_PX = 48
"""That of the coarser images, which all sections are read at."""

TEXTURE, COLOUR = "X_texture", "X_colour"
FEATURES = {TEXTURE: "stain_texture", COLOUR: "mean colour"}


@dataclass
class Materials:
    """What all measurements use.

    Attributes
    ----------
    data, cache
        Folder of the data, and of features that are kept.
    smoke
        Use few spots, to show that everything runs.
    """

    data: Path
    cache: Path
    smoke: bool = False
    tables: dict[str, AnnData] = field(default_factory=dict)

    def table(self, name: str) -> AnnData:
        """Table of a section with both kinds of features and its tissue darkness."""
        if name not in self.tables:
            section = self._section(name)
            table = section["table"].copy()
            for key in FEATURES:
                table.obsm[key] = self._features(name, key, section)
            # -log10 of the mean colour would be another number: darkness is the mean over pixels
            table.obs["sw_darkness"] = sw.tl.tissue_darkness(section, tile_um=TILE_UM, tile_px=TILE_PX, inplace=False)
            table.uns.pop("spatialdata_attrs")
            self.tables[name] = table
        return self.tables[name]

    def _section(self, name: str) -> SpatialData:
        section = sw.datasets.olfactory_bulb(name, data_dir=self.data)
        if not self.smoke:
            return section
        from spatialwhisperer.protocols.her2st.folds import with_rows

        return with_rows(section, np.arange(0, section["table"].n_obs, 2))

    def _features(self, name: str, key: str, section: SpatialData) -> np.ndarray:
        path = self.cache / "features" / f"{name}-{FEATURES[key].replace(' ', '_')}.npy"
        if not path.is_file() or self.smoke:
            inform(f"{name}: {FEATURES[key]}")
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, _colour(section) if key == COLOUR else _texture(section))
        return np.load(path, allow_pickle=False)


def _texture(section: SpatialData) -> np.ndarray:
    return np.asarray(sw.pp.embed_images(section, tile_um=TILE_UM, tile_px=TILE_PX, inplace=False))


def _colour(section: SpatialData) -> np.ndarray:
    """Mean of each channel of each tile, (n, 3)."""
    tiles = read_tiles(plan_tiles(Slide.open(section)), TILE_UM, TILE_PX)
    return np.asarray(tiles, np.float32).mean(axis=(2, 3))
