"""Checks of the arguments of training, before anything is computed, and the choices that they leave open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.table.groups import group_name
from spatialwhisperer._checks.values import check_whole
from spatialwhisperer._messages import inform, listing, warn
from spatialwhisperer.encoders.catalogue import get_spec
from spatialwhisperer.encoders.gene.expression import ExpressionEncoder
from spatialwhisperer.encoders.spec import EncoderSpec
from spatialwhisperer.models.presets.catalogue import PRESETS, get_preset
from spatialwhisperer.pp.features.options import GeneFeatures, ImageFeatures, TextFeatures
from spatialwhisperer.pp.features.tile_sizes import check_own_sizes
from spatialwhisperer.tl._training.options import ExpressionOptions
from spatialwhisperer.tl._training.sources import summary

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.models.configuration.parts import Preset
    from spatialwhisperer.tl._training.readers import Request
    from spatialwhisperer.tl._training.sources import Source
    from spatialwhisperer.training.batches import Items

FEW_PAIRS = 5000
"""Below this many pairs with an image the sequential schedule is the default."""
_OF_CLOSED_FORM = {"closed_form", "neighbour_weight", "refine", "projection_dim"}


def objects(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData] | Mapping[str, AnnData | SpatialData],
) -> list[AnnData | SpatialData]:
    """The objects to train on, as a list."""
    if isinstance(data, Mapping) and not hasattr(data, "tables"):
        data = list(data.values())
    out = list(data) if isinstance(data, Sequence | set) and not isinstance(data, str) else [data]
    if not out:
        raise ValueError("No data to train on: pass an AnnData or SpatialData, or several.")
    return out


def requests(preset: Preset, image: Any, gene: Any, text: Any) -> dict[str, Request]:
    """Options of the features of each modality in the pairs of the preset; what the caller leaves open is taken from the preset.

    The order is that in which modalities are read: counts first, because they are cheap to check, and tiles last.

    Raises
    ------
    TypeError
        If an encoder is of a type that its modality does not take.
    ValueError
        If the gene encoder needs labels and no column is named.
    """
    gene = gene if isinstance(gene, GeneFeatures) else GeneFeatures(_encoder(gene, str | Path, "gene"))
    text = text if isinstance(text, TextFeatures) else TextFeatures(_encoder(text, str | Path, "text"))
    image = image if isinstance(image, ImageFeatures) else ImageFeatures(image)
    if gene.encoder is None and gene.key is None:
        gene = replace(gene, encoder=preset.gene_encoder)
    if gene.encoder == preset.gene_encoder:
        gene = replace(gene, options={**preset.gene_options, **gene.options})
    wanted = {m for pair in preset.pairs for m in pair}
    if "gene" in wanted and gene.encoder == "scanvi" and gene.key is None and gene.labels_key is None:
        raise ValueError(
            "The gene encoder 'scanvi' learns from labels: name their column of .obs with gene=sw.tl.GeneFeatures(labels_key=…)."
        )
    if text.encoder is None:
        text = replace(text, encoder=preset.text_encoder)
    if image.encoder is None and image.key is None:
        image = replace(image, encoder=preset.image_encoder)
    _check_sizes(image)
    if image.tile_um is None:
        image = replace(image, tile_um=preset.tile_um)
    known: dict[str, Request] = {"gene": gene, "text": text, "image": image}
    others = sorted(wanted - known.keys())
    return {m: known.get(m) for m in ("gene", "text", *others, "image") if m in wanted}


def _encoder(given: Any, kinds: Any, modality: str) -> Any:
    if given is None or isinstance(given, kinds) or hasattr(given, "encode"):
        return given
    raise TypeError(f"{modality} must be a name, an encoder or a set of options, not {type(given).__name__}.")


def _check_sizes(image: ImageFeatures) -> None:
    """Refuse sizes for an encoder that has its own, before those of the preset are filled in."""
    encoder = image.encoder
    spec = get_spec(encoder, "image") if isinstance(encoder, str) else getattr(encoder, "spec", None)
    if isinstance(spec, EncoderSpec):
        check_own_sizes(spec, image.tile_um, image.tile_px)


def choose_pairs(preset: Preset, sources: Sequence[Source]) -> dict[tuple[str, str], float]:
    """The pairs of the preset that some object holds, with their weights.

    Raises
    ------
    ValueError
        If there is none, or the preset names its own pairs (not those that were published) and one of them is missing.
    """
    weights = {pair: w for pair, w in preset.pairs.items() if w > 0}
    held = {pair: w for pair, w in weights.items() if any(set(pair) <= s.has for s in sources)}
    missing = [pair for pair in weights if pair not in held]
    published = PRESETS.get(preset.name)
    named = published is None or dict(published.pairs) != dict(preset.pairs)
    if not held or (missing and named):
        lacking = listing("–".join(p) for p in missing)
        raise ValueError(
            f"No object holds {lacking} pairs. What the objects hold: {summary(sources)}. Captions are read from .obs "
            "(text=sw.tl.TextFeatures(key=…)), counts from .X (gene=sw.tl.GeneFeatures(layer=…)), images from .obsm, .uns['spatial'] "
            "or the SpatialData."
        )
    return held


def warn_of_unused(preset: Preset) -> None:
    """Name what was changed in the recipe of a published preset and shapes no training in closed form."""
    if preset.name not in PRESETS:
        return
    given, usual = preset.sequential, get_preset(preset.name, preset.protocol).sequential
    if given is None or usual is None:
        return
    names = [f.name for f in fields(given) if f.name not in _OF_CLOSED_FORM]
    changed = [name for name in names if getattr(given, name) != getattr(usual, name)]
    if changed:
        warn(
            f"{listing(f'{name}={getattr(given, name)!r}' for name in changed)} changed nothing: the links of {preset.name!r} were solved in "
            "closed form, without steps. preset.replace(schedule='joint') or image_link='contrastive' trains by steps."
        )


def check_epochs(max_epochs: int | None) -> None:
    """Refuse what is not a number of epochs."""
    if max_epochs is not None:
        check_whole("max_epochs", max_epochs)


def text_keys(requests: Mapping[str, Request]) -> list[str]:
    """Columns of ``.obs`` with captions; empty where the preset has no text."""
    request = requests.get("text")
    if not isinstance(request, TextFeatures):
        return []
    return [request.key] if isinstance(request.key, str) else list(request.key)


def check_negated(requests: Mapping[str, Request], *, closed_form: bool) -> None:
    """Refuse texts that negate where a contrastive loss would take them for negatives at best.

    Raises
    ------
    ValueError
        If there are some, and the model is not solved in closed form.
    """
    request = requests.get("text")
    if isinstance(request, TextFeatures) and request.negated and not closed_form:
        raise ValueError(
            "negated=… is learnt in closed form only, and this training is contrastive. Leave negated out, or train "
            "preset='whisperer' with schedule='sequential' and frozen encoders."
        )


def counts_layer(requests: Mapping[str, Request]) -> str | None:
    """Layer with raw counts."""
    request = requests.get("gene")
    return request.layer if isinstance(request, GeneFeatures) else None


def with_identity(
    requests: Mapping[str, Request], preset: Preset, genes: Sequence[str], gene_ids: Sequence[str]
) -> dict[str, Request]:
    """Replace the gene encoder "identity" by one that reads the genes that the model predicts.

    Raises
    ------
    ValueError
        If the model predicts no genes.
    """
    request = requests.get("gene")
    if not isinstance(request, GeneFeatures) or request.encoder != "identity" or request.key is not None:
        return dict(requests)
    if not genes or preset.expression is None:
        raise ValueError(
            "The gene encoder 'identity' reads the genes that the model predicts: use it with expression=True, or name genes with "
            "expression=sw.tl.ExpressionOptions(genes=…)."
        )
    encoder = ExpressionEncoder(genes, gene_ids, value_space=preset.expression.input_space)
    return {**requests, "gene": replace(request, encoder=encoder)}


def validation_groups(
    validation: float | str | Sequence[str] | None, groups: Sequence[str], random_state: int
) -> set[str]:
    """Names of the groups that are held out, of all groups in sorted order.

    Raises
    ------
    ValueError
        If a group does not exist, a fraction is not between 0 and 1, or no group is left to train on.
    """
    if validation is None:
        return set()
    if isinstance(validation, int | float):
        if not 0 < validation < 1:
            raise ValueError(f"validation must be a fraction between 0 and 1 or names of groups; found {validation!r}.")
        n = max(1, round(validation * len(groups)))
        if n >= len(groups):
            raise ValueError(
                f"validation={validation} of {len(groups)} groups leaves none to train on ({listing(groups)})."
            )
        return set(np.random.default_rng(random_state).choice(groups, n, replace=False).tolist())
    names = {validation} if isinstance(validation, str) else {group_name(v) for v in validation}
    if names - set(groups):
        raise ValueError(
            f"validation names groups that are not there: {listing(sorted(names - set(groups)))} (found: {listing(groups)})."
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


def warn_of_unmeasured(validation: Items | None, held_out: set[str], pairs: Iterable[tuple[str, str]]) -> None:
    """Say where held-out groups hold no two pairs of a kind, so that no validation loss can be measured."""
    if validation is None or any(validation.count(a, b) > 1 for a, b in pairs):
        return
    say_unmeasured(held_out, pairs)


def say_unmeasured(held_out: Iterable[str], pairs: Iterable[tuple[str, str]]) -> None:
    """Warn that there is no validation loss."""
    kinds = listing("–".join(pair) for pair in pairs)
    warn(
        f"No validation loss: the held-out groups ({listing(sorted(held_out))}) hold fewer than two pairs of each kind ({kinds})."
    )


def check_left(items: Items, weights: Mapping[tuple[str, str], float]) -> None:
    """Refuse fewer than two pairs of a kind outside the held-out groups: training needs negatives.

    Raises
    ------
    ValueError
        If there are too few; the text counts them.
    """
    few = {f"{a}–{b}": items.count(a, b) for a, b in weights if items.count(a, b) < 2}
    if few:
        counts = ", ".join(f"{n} {pair}" for pair, n in few.items())
        raise ValueError(
            f"Too few pairs to train on: {counts}. Hold out fewer groups with validation=…, or check that the rows of an "
            "object have captions, counts or complete image features together."
        )


def check_schedule(preset: Preset, pairs: Mapping[tuple[str, str], float]) -> None:
    """Refuse a schedule that these pairs do not allow.

    Raises
    ------
    ValueError
        If the preset asks for the sequential schedule or an image link, and images are not linked to text by exactly one modality.
    """
    if preset.schedule == "sequential" and not _can_follow(preset, pairs):
        raise ValueError(
            "The sequential schedule links images to the fixed embedding of a modality that is paired with text too, so it needs pairs of "
            f"that modality with images and with text, and no image–text pairs; there are {listing('–'.join(p) for p in pairs)}. Use "
            "schedule='joint'."
        )
    if preset.image_link is not None and not _can_follow(preset, pairs):
        raise ValueError("image_link applies to schedule='sequential', which these pairs do not allow.")


def choose_schedule(preset: Preset, pairs: Mapping[tuple[str, str], float], items: Items) -> str:
    """The schedule of the preset; where it leaves the choice, sequential below `FEW_PAIRS` pairs with an image, else joint.

    A closed form that is refined is contrastive where pairs are many, so that it stays sequential.
    """
    if preset.schedule is not None:
        return preset.schedule
    if preset.sequential is None or not _can_follow(preset, pairs):
        return "joint"
    if preset.image_link is not None or (preset.solved_in_closed_form and preset.sequential.refine == "auto"):
        return "sequential"
    n = items.count("image", str(preset.bridge))
    if n < FEW_PAIRS:
        inform(
            f"{n} image–{preset.bridge} pairs: training {preset.bridge} and text first, then linking the image "
            "(schedule='sequential')."
        )
        return "sequential"
    return "joint"


def choose_link(preset: Preset, schedule: str, *, trained: Any, decodes: bool) -> str | None:
    """The image link of the sequential schedule: that of the preset, else ridge unless the image encoder or a decoder is trained.

    Raises
    ------
    ValueError
        If the preset asks for a ridge link and a decoder is trained.
    """
    if schedule != "sequential":
        return None
    if preset.image_link == "ridge" and decodes:
        raise ValueError("image_link='ridge' trains no decoder (regression_weight > 0); use image_link='contrastive'.")
    return preset.image_link or ("contrastive" if "image" in trained or decodes else "ridge")


def _can_follow(preset: Preset, pairs: Mapping[tuple[str, str], float]) -> bool:
    """Whether the sequential schedule is possible: the pairs are those of one other modality with images and with text."""
    given = {frozenset(pair) for pair in pairs}
    bridge = preset.bridge
    return bridge is not None and {frozenset(("image", bridge)), frozenset((bridge, "text"))} == given


def expression_options(
    asked: bool | ExpressionOptions | None, preset: Preset, pairs: Mapping[tuple[str, str], float]
) -> ExpressionOptions | None:
    """Options of the predictor of expression; ``None`` where none is fitted.

    Raises
    ------
    ValueError
        If a predictor is asked for that the preset or the pairs do not allow.
    """
    able = preset.expression is not None and any({"image", "gene"} == set(pair) for pair in pairs)
    if asked and not able:
        raise ValueError(
            f"expression=… needs image–gene pairs and a preset that predicts expression (here: {preset.name!r})."
        )
    if asked is None:
        asked = able and preset.expression is not None and preset.expression.by_default
    if isinstance(asked, ExpressionOptions):
        return asked
    return ExpressionOptions() if asked else None
