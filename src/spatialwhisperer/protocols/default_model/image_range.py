"""What the embedded model holds of its training images, computed anew for a model that is there, which is not trained again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

import spatialwhisperer as sw
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.table.fingerprints import fingerprint
from spatialwhisperer.models.reference import Reference
from spatialwhisperer.models.training_range import unseen_distances
from spatialwhisperer.models.whisperer import Whisperer
from spatialwhisperer.protocols.default_model.recipe import TrainingRecipe

if TYPE_CHECKING:
    from pathlib import Path

    from spatialwhisperer.protocols.default_model.recipe import TrainingData


def with_image_range(folder: str | Path, materials: TrainingData) -> Whisperer:
    """A model with the statistics and distances of its training images and the fingerprints of its sections; all else stays as it is.

    The model standardises features within a section, so that its scores do not depend on these statistics.

    Parameters
    ----------
    folder
        Folder of the model.
    materials
        What it was trained on.

    Raises
    ------
    ValueError
        If the sections are not those that it was trained on.
    """
    model = Whisperer.load(folder)
    if model.reference is None:
        raise ValueError("This model has no reference. Train it again.")
    recipe, config, arrays = TrainingRecipe(), model.reference.config, model.reference.arrays
    parts: dict[str, np.ndarray] = {}
    prints: dict[str, str] = {}
    for number, data in enumerate([*materials.images.values(), *materials.texts.values(), materials.cells]):
        slide = Slide.open(data)
        prints |= {fingerprint(slide, slide.sections == code): f"{number}:{code}" for code in np.unique(slide.sections)}
        if number < len(materials.images):
            features = sw.pp.embed_images(data, tile_um=recipe.tile_um, tile_px=recipe.tile_px, inplace=False)
            x = np.asarray(features)
            parts[f"{number}:{slide.sections[0]}"] = x[np.isfinite(x).all(axis=1)]
    if tuple(parts) != config.sections or tuple(map(len, parts.values())) != config.section_rows:
        raise ValueError("The sections are not those that the model was trained on. Train it again.")
    mean, std = (
        np.stack([getattr(x, name)(axis=0, dtype=np.float64) for x in parts.values()]).astype(np.float32)
        for name in ("mean", "std")
    )
    groups = [code.partition(":")[2][0] for code in parts]
    kind, row, section = unseen_distances([*parts.values()], groups, mean, std)
    config = replace(config, unseen=kind, fingerprints=prints)
    model.reference = Reference(
        config, {**arrays, "feature_mean": mean, "feature_std": std, "unseen_row": row, "unseen_section": section}
    )
    return model
