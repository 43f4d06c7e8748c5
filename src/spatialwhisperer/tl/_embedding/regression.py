"""Image features that the regression of expression reads beside those of the joint space."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from spatialwhisperer.encoders.catalogue import get_spec, open_encoder, opens_by_name
from spatialwhisperer.encoders.image.base import ImageEncoder
from spatialwhisperer.pp.features.encoder_choice import why_unfit
from spatialwhisperer.pp.features.images import are_stored, image_features

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from spatialwhisperer._access.result import Result
    from spatialwhisperer._access.slide import Slide
    from spatialwhisperer.encoders.recipe import FeatureRecipe


@dataclass(frozen=True)
class Known:
    """Image features that a call has already, so that they are not computed again.

    Attributes
    ----------
    recipe
        How they are made.
    values
        Features of the rows of the slide, float32 (n, d).
    """

    recipe: FeatureRecipe
    values: np.ndarray


def why_not(slide: Slide, recipes: Sequence[FeatureRecipe], known: Known) -> str:
    """Why a slide does not have the features of all recipes, as text; empty where it has them or they can be computed."""
    for recipe in recipes:
        if not recipe.same_features(known.recipe) and not are_stored(slide, recipe):
            why = why_unfit(slide, get_spec(recipe.name, "image"))
            if why:
                return why
    return ""


def read_side_by_side(
    slide: Slide,
    recipes: Sequence[FeatureRecipe],
    known: Known,
    *,
    batch_size: int | None = None,
    device: str | None = None,
) -> tuple[list[np.ndarray], tuple[Result, ...]]:
    """Features of each recipe, and those of them that were computed, ready to be written.

    Raises
    ------
    ValueError
        If an encoder is not a registered one.
    """
    blocks: list[np.ndarray] = []
    results: tuple[Result, ...] = ()
    for recipe in recipes:
        if recipe.same_features(known.recipe):
            blocks.append(known.values)
            continue
        features = image_features(slide, recipe, partial(_open, recipe.name), batch_size=batch_size, device=device)
        blocks.append(features.values)
        results += features.results
    return blocks, results


def _open(name: str) -> ImageEncoder:
    encoder = open_encoder(name, "image") if opens_by_name(name, "image") else None
    if not isinstance(encoder, ImageEncoder):
        raise ValueError(f"The regression of this model reads features of {name!r}, which is not a registered encoder.")
    return encoder
