"""Features of patches that lie in a file beside a table, as those of HEST-1k do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.tiles.patch_file import PATCHES, PatchFile
from spatialwhisperer._messages import listing
from spatialwhisperer._settings import settings
from spatialwhisperer.encoders.image.base import on_image
from spatialwhisperer.encoders.outputs import encoded
from spatialwhisperer.encoders.recipe import FeatureRecipe

if TYPE_CHECKING:
    from anndata import AnnData

    from spatialwhisperer.encoders.image.base import ImageEncoder
    from spatialwhisperer.pp.features.encoder_choice import EncoderChoice


def has_patches(table: AnnData) -> bool:
    """Whether a table names a file of patches."""
    return PATCHES in table.uns


def patch_recipe(table: AnnData, choice: EncoderChoice) -> FeatureRecipe:
    """How features of the patches of a table are made."""
    stated = json.loads(str(table.uns[PATCHES]))
    key = _keys.features(choice.spec.name)
    return FeatureRecipe(choice.identity, key, (float(stated["tile_um"]),), int(stated["tile_px"]))


def patch_features(table: AnnData, encoder: ImageEncoder) -> np.ndarray:
    """Features of the patch of each row, float32 (n, d); NaN where there is none.

    Raises
    ------
    ValueError
        If the file is damaged, no row has a patch, or the encoder looks further than a patch reaches.
    """
    stated = json.loads(str(table.uns[PATCHES]))
    file = PatchFile(Path(stated["path"]), float(stated["tile_um"]))
    names = table.uns.get(f"{PATCHES}_rows", table.obs_names)
    at = pd.Index(file.names).get_indexer(pd.Index(names))
    rows = np.flatnonzero(at >= 0)
    if not len(rows):
        raise ValueError(
            f"No row has a patch in {file.path}: rows are named {listing(names, 3)}, and barcodes {listing(file.names, 3)}. Name the rows by "
            f"their barcodes, or leave the patches out: del table.uns[{PATCHES!r}]."
        )
    # a file is read in its own order, and each patch once, where rows have the same name
    taken, place = np.unique(at[rows], return_inverse=True)
    found = features_of_patches(file.taken(taken), encoder)
    out = np.full((table.n_obs, found.shape[1]), np.nan, np.float32)
    out[rows] = found[place]
    return out


def features_of_patches(file: PatchFile, encoder: ImageEncoder) -> np.ndarray:
    """Features of each patch of a file, float32 (n, d).

    Raises
    ------
    ValueError
        If the encoder looks further than a patch reaches.
    """
    spec = encoder.spec
    if spec.windows_um and max(spec.windows_um) > file.tile_um:
        raise ValueError(
            f"{spec.name!r} looks at {max(spec.windows_um):g} µm around a row, and the patches of {file.path.name} show "
            f"{file.tile_um:g} µm. Choose an encoder without windows of its own; sw.models.list_encoders('image') lists them."
        )
    bound = encoder
    if encoder.looks_at_image:
        sample, mpp = file.sample()
        bound = on_image(encoder, sample, mpp=mpp)
    parts = [encoded(bound, tiles, mpp=file.mpp) for tiles in file.tiles(settings.batch_size, spec.name)]
    return np.concatenate(parts)
