"""Image features of the regression of expression, of the training images that are fine enough for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from spatialwhisperer import _keys
from spatialwhisperer._messages import inform, listing
from spatialwhisperer.encoders.catalogue import encoder_class, opens_by_name
from spatialwhisperer.models.configuration.model import RegressionFeatures
from spatialwhisperer.models.expression.predictor import standardized_blocks
from spatialwhisperer.pp.features.encoder_choice import choose_encoder
from spatialwhisperer.pp.features.images import image_recipe, with_key
from spatialwhisperer.pp.features.options import ImageFeatures
from spatialwhisperer.pp.features.tile_sizes import check_own_sizes, has_own_sizes
from spatialwhisperer.statistics.left_out import left_out_units
from spatialwhisperer.statistics.reduced_rank import reduced_rank_ridge
from spatialwhisperer.statistics.standardize import statistics
from spatialwhisperer.tl._embedding.regression import Known, read_side_by_side, why_not

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from spatialwhisperer._access.result import Result
    from spatialwhisperer._access.slide import Slide
    from spatialwhisperer.encoders.recipe import FeatureRecipe
    from spatialwhisperer.models.configuration.parts import Preset
    from spatialwhisperer.models.expression.predictor import ExpressionPredictor
    from spatialwhisperer.tl._training.expression.values import Values
    from spatialwhisperer.tl._training.inputs import Inputs
    from spatialwhisperer.tl._training.options import ExpressionOptions
    from spatialwhisperer.tl._training.readers import Request
    from spatialwhisperer.tl._training.sources import Source

FEWEST = 100
"""Fewest training pairs with an image that is fine enough, for a regression on features of its own."""


@dataclass(frozen=True)
class OwnInputs:
    """Features that the regression reads and the joint space does not.

    Attributes
    ----------
    features
        What the columns are.
    x
        Features of every row of `Inputs.observations` before they are standardised, float32 (n, e); NaN where there are none.
    computed
        Features that were computed, with the object that they are to be stored in.
    """

    features: tuple[RegressionFeatures, ...]
    x: np.ndarray
    computed: Sequence[tuple[Slide, Result]] = field(default_factory=tuple)


def own_requests(
    asked: ExpressionOptions | None, preset: Preset, requests: Mapping[str, Request]
) -> tuple[ImageFeatures, ...]:
    """Which features the regression reads on fine images; empty where it reads those of the model on all.

    Raises
    ------
    TypeError
        If one is neither a name nor a set of options.
    ValueError
        If the features of the model cannot stand in for them on coarse images, an encoder is not a registered one, or is named twice.
    """
    image = requests.get("image")
    if asked is None or preset.expression is None or not isinstance(image, ImageFeatures):
        return ()
    frozen = preset.letter("image") == "L" and image.key is None
    if asked.image is None:
        names = preset.expression.image
        return tuple(ImageFeatures(name) for name in names) if frozen and image.encoder in names else ()
    listed = [asked.image] if isinstance(asked.image, str | ImageFeatures) else list(asked.image)
    if listed and not frozen:
        state = "is trained" if image.key is None else f"is features under the key {image.key!r}"
        raise ValueError(
            f"ExpressionOptions(image=…) needs a frozen image encoder of the model, and the image part of this model {state}. Leave out "
            "image=… of ExpressionOptions."
        )
    given = tuple(_checked(one) for one in listed)
    if len({one.encoder for one in given}) < len(given):
        raise ValueError(
            f"ExpressionOptions(image=…) names an encoder twice: {listing(str(one.encoder) for one in given)}. Give several sizes "
            "to one ImageFeatures: tile_um=(100, 300)."
        )
    return given


def _checked(one: str | ImageFeatures) -> ImageFeatures:
    if not isinstance(one, str | ImageFeatures):
        raise TypeError(
            f"ExpressionOptions(image=…) takes names of encoders or ImageFeatures, not {type(one).__name__}."
        )
    request = ImageFeatures(one) if isinstance(one, str) else one
    named = isinstance(request.encoder, str) and request.key is None and request.weights is None and request.pretrained
    if not named:
        raise ValueError(
            "ExpressionOptions(image=…) takes encoders by their registered name, with their published weights, because a prediction "
            f"opens them again; found {request!r}."
        )
    # raises for a name that is not known
    encoder_class(str(request.encoder), "image")
    if not opens_by_name(str(request.encoder), "image"):
        raise ValueError(f"{request.encoder!r} of ExpressionOptions(image=…) is not a registered encoder.")
    check_own_sizes(choose_encoder(str(request.encoder)).spec, request.tile_um, request.tile_px)
    return request


def read_own(
    sources: Sequence[Source],
    inputs: Inputs,
    requests: Sequence[ImageFeatures],
    *,
    preset: Preset,
    values: Values,
    held_out: set[str],
) -> OwnInputs | None:
    """Features of the training images that are fine enough; ``None`` where too few pairs have such an image."""
    if not requests:
        return None
    rows = inputs.observations
    paired = np.zeros(len(rows), bool)
    paired[values.rows] = ~np.isin(rows["group"].to_numpy()[values.rows].astype(str), sorted(held_out))
    number = rows["source"].to_numpy()
    known = {i: _known(inputs, number == i) for i in np.unique(number[paired]).tolist()}
    recipes = {i: _recipes(sources[i], requests, one.recipe, preset) for i, one in known.items()}
    why = {i: why_not(sources[i].slide, recipes[i], one) for i, one in known.items()}
    fine = [i for i in known if not why[i]]
    names = " + ".join(str(one.encoder) for one in requests)
    n = int((paired & np.isin(number, fine)).sum())
    if n < FEWEST:
        reason = next((text for text in why.values() if text), "the training data are few")
        inform(
            f"The regression of expression reads the image features of the model, because {n} training pairs have an image for {names}, "
            f"and {FEWEST} are needed ({reason})."
        )
        return None
    chosen = _one_for_all({sources[i].name: recipes[i] for i in fine})
    blocks = {i: read_side_by_side(sources[i].slide, chosen, known[i]) for i in fine}
    dims = [block.shape[1] for block in blocks[fine[0]][0]]
    x = np.full((len(rows), sum(dims)), np.nan, np.float32)
    for i, (parts, _) in blocks.items():
        x[number == i] = np.concatenate(parts, axis=1)
    features = tuple(RegressionFeatures(r, d, _standardize(r)) for r, d in zip(chosen, dims, strict=True))
    return OwnInputs(features, x, [(sources[i].slide, one) for i, (_, results) in blocks.items() for one in results])


def _known(inputs: Inputs, inside: np.ndarray) -> Known:
    """Image features of the model of the rows of one object, NaN where there are none."""
    image, at = inputs.modalities["image"], inputs.observations["image"].to_numpy()[inside]
    values = np.full((len(at), image.dim), np.nan, np.float32)
    values[at >= 0] = inputs.raw_at("image", at[at >= 0])
    return Known(image.recipe, values)


def _recipes(
    source: Source, requests: Sequence[ImageFeatures], of_model: FeatureRecipe, preset: Preset
) -> tuple[FeatureRecipe, ...]:
    """How the features of an object are made; those of the encoder of the model are its own where no sizes are given."""
    out: list[FeatureRecipe] = []
    for request in requests:
        choice = choose_encoder(str(request.encoder))
        if choice.identity == of_model.encoder and request.tile_um is None and request.tile_px is None:
            out.append(of_model if of_model.key is not None else with_key(of_model, _keys.features(of_model.name)))
            continue
        tile_um = None if has_own_sizes(choice.spec) else preset.tile_um if request.tile_um is None else request.tile_um
        recipe = image_recipe(source.slide, choice, tile_um=tile_um, tile_px=request.tile_px, border=request.border)
        # two kinds of features of one encoder lie under two keys
        clash = recipe.key == of_model.key and not recipe.same_features(of_model)
        out.append(with_key(recipe, f"{recipe.key}_expression") if clash else recipe)
    return tuple(out)


def _one_for_all(recipes: Mapping[str, tuple[FeatureRecipe, ...]]) -> tuple[FeatureRecipe, ...]:
    distinct = list(dict.fromkeys(recipes.values()))
    if len(distinct) > 1:
        sizes = "; ".join(
            f"{name}: {listing(f'{r.name} {listing(r.tile_um)} µm, {r.tile_px} px' for r in each)}"
            for name, each in recipes.items()
        )
        raise ValueError(
            f"sw.pp.tiles stated different tile sizes in the objects ({sizes}). State one size, or name sizes: "
            "sw.tl.ExpressionOptions(image=sw.tl.ImageFeatures(…, tile_um=…, tile_px=…))."
        )
    return distinct[0]


def _standardize(recipe: FeatureRecipe) -> Literal["section", "global"]:
    return "global" if getattr(encoder_class(recipe.name, "image"), "looks_at_image", False) else "section"


def with_own_regression(
    predictor: ExpressionPredictor, own: OwnInputs, values: Values, keep: np.ndarray, rows: pd.DataFrame
) -> ExpressionPredictor:
    """The predictor with a second regression, on features of its own; as it is where too few rows have them.

    Parameters
    ----------
    predictor
        Fitted on the rows to keep.
    own
        Features.
    values
        Expression. That of training rows without these features helps only to find the components.
    keep
        Rows of the values that are trained on, Boolean, shape (m,).
    rows
        `Inputs.observations` of the rows to keep.
    """
    x, y, sections = own.x[values.rows[keep]], values.matrix[keep], rows["section"].to_numpy()
    fine = np.isfinite(x).all(axis=1)
    if fine.sum() < FEWEST:
        return predictor
    mean, std = statistics(x[fine])
    others = [y[~fine & (sections == name)] for name in np.unique(sections[~fine])]
    fitted = reduced_rank_ridge(
        standardized_blocks(x[fine], own.features, mean, std, sections[fine]),
        y[fine],
        sections[fine],
        rank=predictor.config.regression_rank,
        units=left_out_units(rows["group"].to_numpy()[fine], sections[fine], rows[["x", "y"]].to_numpy()[fine]),
        unpaired=[*values.unpaired.values(), *others],
    )
    arrays = {"own_mean": mean, "own_std": std} | {f"own_{name}": array for name, array in fitted.items()}
    return predictor.with_own(own.features, arrays)
