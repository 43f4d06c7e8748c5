"""Patches of HEST: one file for each section, with the pixels around each row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._access.tiles.patch_file import PatchFile
from spatialwhisperer.pp.corpus.patches import features_of_patches
from spatialwhisperer.tl.evaluation.baselines import optical_density

if TYPE_CHECKING:
    from spatialwhisperer.encoders.image.base import ImageEncoder

_AT_ONCE = 64


class Patches(PatchFile):
    """Patches of some rows of a file, with what is computed of them."""

    def features(self, encoder: ImageEncoder) -> np.ndarray:
        """Features of each patch.

        Raises
        ------
        ValueError
            If the encoder looks further than a patch reaches.
        """
        return features_of_patches(self, encoder)

    def darkness(self) -> np.ndarray:
        """Mean optical density of each patch."""
        return np.concatenate([optical_density(tiles) for tiles in self.tiles(_AT_ONCE, "darkness")])
