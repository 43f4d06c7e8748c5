"""What a training run may be asked for: every argument is checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._messages import found, say
from spatialwhisperer.models.parts import MODALITIES
from spatialwhisperer.tl._training import sources as gather

if TYPE_CHECKING:
    from spatialwhisperer.models import Preset, Recipe
    from spatialwhisperer.tl._training.inputs import Inputs
    from spatialwhisperer.training.batches import Items

FEW_PAIRS = 5000
"""Below this many image–gene pairs the sequential schedule is the default."""


def objects(data: Any) -> list[Any]:
    """The objects to train on, as a list."""
    if isinstance(data, Mapping) and not hasattr(data, "tables"):
        data = list(data.values())
    objects = list(data) if isinstance(data, Sequence | set) and not isinstance(data, str) else [data]
    if not objects:
        raise ValueError("No data to train on: pass an AnnData or SpatialData, or several.")
    return objects


def check_numbers(**values: int | None) -> None:
    """Refuse numbers that cannot train."""
    # a batch of one pair has no negative
    least = {"batch_size": 2}
    for name, value in values.items():
        if value is not None and value < least.get(name, 1):
            raise ValueError(f"{name} must be at least {least.get(name, 1)}; found {value!r}.")


def check_locking(locking: str) -> str:
    """The locking code, if it is one."""
    if len(locking) != 3 or set(locking) - set("LUu"):
        raise ValueError(
            f"locking must be three letters of L, U and u in the order gene, text, image (such as 'LUL'); found {locking!r}."
        )
    return locking


def choose_pairs(pairs: Any, preset: Preset, sources: Sequence[gather.Source]) -> dict[tuple[str, str], float]:
    """The pairs asked for, or those of the preset that some object holds."""
    asked = pairs if pairs is not None else preset.pairs
    weights = dict(asked) if isinstance(asked, Mapping) else {tuple(p): 1.0 for p in asked}
    known = {"image", "gene", "text"}
    for pair, weight in weights.items():
        if len(pair) != 2 or set(pair) - known or pair[0] == pair[1]:
            raise ValueError(f"A pair must be two of 'image', 'gene' and 'text'; found {pair!r}.")
        if weight < 0:
            raise ValueError(f"The weight of pair {pair!r} must not be negative; found {weight!r}.")
    held = {pair: w for pair, w in weights.items() if w > 0 and any(set(pair) <= s.has for s in sources)}
    missing = [pair for pair in weights if pair not in held and weights[pair] > 0]
    if not held or (missing and pairs is not None):
        lacking = found("–".join(p) for p in missing)
        raise ValueError(
            f"No object holds {lacking} pairs. What the objects hold: {gather.summary(sources)}. Captions are read from "
            ".obs[text_key], counts from .X or layer=…, images from .obsm, .uns['spatial'] or the SpatialData."
        )
    return held


def validation_groups(validation: Any, sources: Sequence[gather.Source], random_state: int) -> set[str]:
    """Names of the groups that are held out."""
    if validation is None:
        return set()
    groups = sorted({str(g) for s in sources for g in s.group})
    if isinstance(validation, int | float):
        if not 0 < validation < 1:
            raise ValueError(f"validation must be a share between 0 and 1 or names of groups; found {validation!r}.")
        n = max(1, round(validation * len(groups)))
        if n >= len(groups):
            raise ValueError(
                f"validation={validation} of {len(groups)} groups leaves none to train on ({found(groups)})."
            )
        return set(np.random.default_rng(random_state).choice(groups, n, replace=False).tolist())
    names = {validation} if isinstance(validation, str) else {str(v) for v in validation}
    if names - set(groups):
        raise ValueError(
            f"validation names groups that are not there: {found(sorted(names - set(groups)))} (found: {found(groups)})."
        )
    if names == set(groups):
        raise ValueError("validation names every group; none is left to train on.")
    return names


def split(items: Items, held_out: set[str]) -> tuple[Items, Items | None]:
    """Training items, and those of the held-out groups."""
    if not held_out:
        return items, None
    inside = np.isin(items.group.astype(str), sorted(held_out))
    return items.subset(np.flatnonzero(~inside)), items.subset(np.flatnonzero(inside))


def check_left(items: Items, weights: Mapping[tuple[str, str], float]) -> None:
    """Training needs negatives: at least two pairs of each kind outside the held-out groups."""
    few = {f"{a}–{b}": items.count(a, b) for a, b in weights if items.count(a, b) < 2}
    if few:
        counts = ", ".join(f"{n} {pair}" for pair, n in few.items())
        raise ValueError(
            f"Too few pairs to train on: {counts}. Hold out fewer groups with validation=…, or check that the rows of an "
            "object have captions, counts or complete image features together."
        )


def check_given(locking: str, slots: Mapping[str, str | None]) -> None:
    """Refuse given features for a tower that is to learn."""
    for modality, slot in slots.items():
        letter = locking[MODALITIES.index(modality)]
        if slot is not None and letter != "L":
            raise ValueError(
                f"{modality}_features={slot!r} are fixed, and locking={locking!r} asks to train the {modality} tower. "
                "Give the one or the other."
            )


def check_schedule(schedule: str | None, weights: Mapping[tuple[str, str], float], preset: Preset) -> None:
    """Refuse a schedule that these pairs or this preset do not allow."""
    if schedule not in (None, "joint", "sequential"):
        raise ValueError(f"schedule must be 'joint' or 'sequential', not {schedule!r}.")
    if schedule == "sequential" and preset.sequential is None:
        raise ValueError(f"The preset {preset.name!r} has no sequential schedule; use schedule='joint'.")
    if schedule == "sequential" and not _can_follow(weights):
        raise ValueError(
            "The sequential schedule links images to a fixed gene embedding, so it needs image–gene and gene–text pairs and "
            f"no image–text pairs; there are {found('–'.join(p) for p in weights)}. Use schedule='joint'."
        )


def choose_schedule(
    weights: Mapping[tuple[str, str], float], items: Items, image_link: str | None, preset: Preset
) -> str:
    """The schedule where the caller names none."""
    if preset.sequential is None or not _can_follow(weights):
        if image_link is not None:
            raise ValueError("image_link applies to schedule='sequential', which these pairs do not allow.")
        return "joint"
    n = items.count("image", "gene")
    if image_link is not None:
        return "sequential"
    if n < FEW_PAIRS:
        say(f"{n} image–gene pairs: training gene and text first, then linking the image (schedule='sequential').")
        return "sequential"
    return "joint"


def _can_follow(weights: Mapping[tuple[str, str], float]) -> bool:
    """Whether the sequential schedule fits: images reach text through the genes and in no other way."""
    return _has(weights, "image", "gene") and _has(weights, "gene", "text") and not _has(weights, "image", "text")


def _has(weights: Mapping[tuple[str, str], float], a: str, b: str) -> bool:
    return (a, b) in weights or (b, a) in weights


def check_link(image_link: str | None, schedule: str | None, *, unlocked: bool) -> str | None:
    """The image link, if it fits the schedule."""
    if image_link not in (None, "ridge", "contrastive"):
        raise ValueError(f"image_link must be 'ridge' or 'contrastive', not {image_link!r}.")
    if image_link is not None and schedule == "joint":
        raise ValueError("image_link applies to schedule='sequential'.")
    if image_link == "ridge" and unlocked:
        raise ValueError("image_link='ridge' needs frozen image features; an unlocked image tower takes 'contrastive'.")
    return image_link


def check_closed_form(recipe: Recipe, image_link: str | None, towers: Any, projection_dim: int | None) -> None:
    """Refuse a dimension for a joint space that is that of the gene features."""
    from spatialwhisperer.training.fit import in_closed_form

    if projection_dim is not None and in_closed_form(recipe, image_link, towers):
        raise ValueError(
            f"projection_dim={projection_dim}: in the sequential schedule of this preset the joint space is that of the gene "
            "features. Leave it out, or use image_link='contrastive', schedule='joint' or preset='spatialwhisperer'."
        )


def check_decoder(image_link: str | None, preset: Preset, with_expression: bool) -> None:
    """Refuse a closed-form link where a decoder is to learn beside it."""
    recipe = preset.sequential
    if image_link == "ridge" and with_expression and recipe is not None and recipe.regression_weight:
        raise ValueError("image_link='ridge' trains no decoder (regression_weight > 0); use image_link='contrastive'.")


def check_rate(learning_rate: float | None) -> None:
    """Refuse a negative learning rate."""
    if learning_rate is not None and not learning_rate >= 0:
        raise ValueError(f"learning_rate must not be negative; found {learning_rate!r}.")


def check_expression(
    asked: bool | None,
    genes: Any,
    values_layer: str | None,
    preset: Preset,
    weights: Mapping[tuple[str, str], float],
) -> bool:
    """Whether a predictor of expression is fitted."""
    able = preset.expression is not None and _has(weights, "image", "gene")
    if asked and not able:
        raise ValueError(
            f"expression=True needs image–gene pairs and a preset that predicts expression (here: {preset.name!r})."
        )
    wanted = preset.expression is not None and preset.expression.by_default or genes is not None
    wanted = able and (wanted if asked is None else asked)
    if not wanted and (genes is not None or values_layer is not None):
        raise ValueError(
            "genes and values_layer belong to the prediction of expression, which this training does not learn."
        )
    return wanted


def identity_encoder(preset: Preset, genes: Sequence[str], gene_ids: Sequence[str]) -> Any:
    """The gene side that reads expression itself."""
    from spatialwhisperer.encoders.gene.expression import ExpressionEncoder

    if not genes or preset.expression is None:
        raise ValueError(
            "gene_encoder='identity' reads the genes that the model predicts: use it with expression=True, or name genes=…."
        )
    return ExpressionEncoder(genes, gene_ids, value_space=preset.expression.input_space)


def cross_validates(asked: bool | None, inputs: Inputs) -> bool:
    """Whether training is repeated without each group: cheap for frozen features only."""
    return not inputs.towers if asked is None else asked
