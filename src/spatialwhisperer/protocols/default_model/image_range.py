"""What the embedded model holds of its training images, computed anew for a model that is there, which is not trained again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

import spatialwhisperer as sw
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.table.fingerprints import name_hashes, row_ids, trained_rows
from spatialwhisperer.models.reference import Reference
from spatialwhisperer.models.training_range import unseen_distances, unseen_looks
from spatialwhisperer.models.whisperer import Whisperer
from spatialwhisperer.pp.features.encoder_choice import choose_encoder
from spatialwhisperer.pp.features.images import compute_image_features, image_looks, image_recipe
from spatialwhisperer.protocols.default_model.recipe import TrainingRecipe

if TYPE_CHECKING:
    from pathlib import Path

    from spatialwhisperer.protocols.default_model.recipe import TrainingData


def with_image_range(folder: str | Path, materials: TrainingData) -> Whisperer:
    """A model with the statistics and distances of its training images and the rows by which its sections are recognised; all else stays as it is.

    Scores do not depend on these statistics.

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
    known: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    looks: list[tuple[float, ...]] = []
    for number, data in enumerate([*materials.images.values(), *materials.texts.values(), materials.cells]):
        slide = Slide.open(data)
        known.append((name_hashes(slide.table), row_ids(slide), np.array([f"{number}:{s}" for s in slide.sections])))
        if number < len(materials.images):
            image = image_recipe(slide, choose_encoder("stain_texture"), tile_um=recipe.tile_um, tile_px=recipe.tile_px)
            found = compute_image_features(slide, image, sw.models.image_encoder("stain_texture"))
            x = found.values
            looks += list(image_looks(slide, image.key, found.results).values())
            parts[f"{number}:{slide.sections[0]}"] = x[np.isfinite(x).all(axis=1)]
    if tuple(parts) != config.sections or tuple(map(len, parts.values())) != config.section_rows:
        raise ValueError("The sections are not those that the model was trained on. Train it again.")
    mean, std = (
        np.stack([getattr(x, name)(axis=0, dtype=np.float64) for x in parts.values()]).astype(np.float32)
        for name in ("mean", "std")
    )
    groups = [code.partition(":")[2][0] for code in parts]
    kind, row, section = unseen_distances([*parts.values()], groups, mean, std)
    sections, rows = trained_rows(*map(np.concatenate, zip(*known, strict=True)))
    config = replace(config, unseen=kind, trained_sections=sections)
    measured = {"feature_mean": mean, "feature_std": std, "unseen_row": row, "unseen_section": section}
    seen = np.array(looks, dtype=np.float32)
    measured |= {"look": seen, "unseen_look": unseen_looks(seen.astype(np.float64), groups)}
    model.reference = Reference(config, {**arrays, **measured, **rows})
    return model
