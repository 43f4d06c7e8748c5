"""Training: paired data of any objects in, a joint space out."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spatialwhisperer._utils import found, isolated_rng, say
from spatialwhisperer.models.presets import MODALITIES
from spatialwhisperer.settings import settings
from spatialwhisperer.tl import gather
from spatialwhisperer.tl.inputs import Inputs, prepare_inputs

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.models import GeneEncoder, Preset, Whisperer
    from spatialwhisperer.models.batches import Items

FEW_PAIRS = 5000
"""Below this many image–gene pairs the sequential schedule is the default."""

Modality = Literal["image", "gene", "text"]


def train(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    *,
    preset: str | Preset = "spatialwhisperer",
    pairs: Sequence[tuple[Modality, Modality]] | Mapping[tuple[Modality, Modality], float] | None = None,
    image_encoder: Any = "stain_texture",
    gene_encoder: str | GeneEncoder | Path = "pca",
    text_encoder: str = "minilm",
    image_features: str | None = None,
    gene_features: str | None = None,
    text_key: str | Sequence[str] = "text",
    group_key: str | None = "patient",
    batch_key: str | None = None,
    labels_key: str | None = None,
    layer: str | None = None,
    table_key: str | None = None,
    tile_um: float | None = None,
    tile_px: int | None = None,
    locking: str | None = None,
    pretrained: bool = True,
    schedule: Literal["joint", "sequential"] | None = None,
    image_link: Literal["ridge", "contrastive"] | None = None,
    validation: float | str | Sequence[str] | None = None,
    projection_dim: int | None = None,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    max_epochs: int | None = None,
    accelerator: str = "auto",
    devices: int | str | Sequence[int] = 1,
    strategy: str = "auto",
    precision: str | int | None = None,
    random_state: int = 0,
    folder: str | Path | None = None,
    resume: bool = False,
    **trainer: Any,
) -> Whisperer:
    """Train a joint space of images, genes and text from objects that each hold some of them.

    Each object contributes what it has: an H&E image (or image features in ``.obsm``), raw counts (or gene features in
    ``.obsm``), captions in a column of ``.obs``. No object needs all three: with image–gene pairs in some and gene–text
    pairs in others, text reaches images through the genes (Schaefer et al., ICML 2026).

    Frozen features are the default: they are computed once, and image features are stored in ``.obsm["X_<encoder>"]`` of
    each object so that a second call does not compute them again. A tower that ``locking`` unlocks is trained end to end.

    Rows that lack a modality never reach its tower or its batch norm, repeated captions are positives of each other
    rather than negatives, and the split is by group, never by row.

    Parameters
    ----------
    data
        One object or several.
    preset
        Name or :class:`~spatialwhisperer.models.Preset` that sets pairs, heads, temperature and recipe.
    pairs
        Modality pairs to train, optionally each with its weight. Not given: those of the preset that the data hold.
    image_encoder
        Name of an image encoder, an ``nn.Module`` or an image encoder object.
    gene_encoder
        "pca", "scvi" or "scanvi" (fitted here on the raw counts of the training groups), or a fitted encoder or its folder.
    text_encoder
        "minilm", a Hugging Face id or a local folder.
    image_features, gene_features
        Slot of ``.obsm`` with given features, used instead of an encoder.
    text_key
        Column(s) of ``.obs`` with captions; several columns give several captions to a row.
    group_key
        Column of ``.obs`` with the patient. An object without it is a group of its own.
    batch_key, labels_key
        Columns of ``.obs`` for the gene encoder.
    layer
        Layer with raw counts; ``.X`` if not given.
    table_key
        Table of a SpatialData.
    tile_um, tile_px
        Tile edge for images whose features are not there yet; see :func:`spatialwhisperer.pp.embed_images`.
    locking
        Three letters in the order gene, text, image: ``L`` locked (frozen features), ``U`` pretrained and unfrozen after
        the warm-up, ``u`` trained from the first step. The published model is ``LUL``.
    pretrained
        Start an unlocked image tower from its pretrained weights.
    schedule
        "joint" trains all pairs together, as published. "sequential" trains gene and text first and then links the image
        to the fixed gene embedding, which did better on real sections with a few hundred pairs
        (``python -m spatialwhisperer.benchmarks annotation``). Not given: sequential below 5000 image–gene pairs.
    image_link
        Of the sequential schedule: "ridge" (closed form) or "contrastive". Not given: ridge unless the image tower is
        unlocked.
    validation
        Groups held out for a validation loss: their names, or the share of groups.
    projection_dim, learning_rate, batch_size, max_epochs
        Override the recipe of the preset. Without ``max_epochs`` small data gets at least the recipe's number of steps.
    accelerator, devices, strategy, precision
        Of Lightning's Trainer; CUDA is used where there is one, in bf16 autocast.
    random_state
        Seed. The process's own random state is left alone.
    folder
        Where the checkpoints and the finished model go. Not given: a new folder under ``settings.cache_dir / "runs"``, in
        which only the finished model stays.
    resume
        Continue an interrupted run in ``folder``.
    **trainer
        Further arguments of Lightning's Trainer.

    Returns
    -------
    The trained :class:`~spatialwhisperer.models.Whisperer`, also written to ``model.folder``, with the losses in
    ``model.history``.

    Raises
    ------
    ValueError
        If no modality pair is there, an argument does not fit, or counts are not counts.
    KeyError
        If a slot that is named does not exist.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections, reference = sw.datasets.simulate_sections(2, 80, n_genes=100, n_reference_cells=200, random_state=0)
    >>> model = sw.tl.train([*sections.values(), reference], max_epochs=20, tile_px=64)
    >>> model.modalities
    ('gene', 'image', 'text')
    """
    from spatialwhisperer.models.presets import get_preset

    preset = get_preset(preset)
    objects = _objects(data)
    locking = _check_locking(locking or preset.locking)
    if resume and folder is None:
        raise ValueError("resume=True needs folder=…, the folder of the run to continue.")
    _check_numbers(projection_dim=projection_dim, batch_size=batch_size, max_epochs=max_epochs)
    if learning_rate is not None and not learning_rate >= 0:
        raise ValueError(f"learning_rate must not be negative; found {learning_rate!r}.")
    slot = gather.image_slot(image_encoder, image_features)
    text_keys = [text_key] if isinstance(text_key, str) else list(text_key)
    sources = gather.describe(
        objects, table_key=table_key, text_keys=text_keys, group_key=group_key, image_slot=slot, gene_slot=gene_features
    )
    weights = _choose_pairs(pairs, preset, sources)
    held_out = _validation_groups(validation, sources, random_state)
    _check_schedule(schedule, weights)
    image_link = _check_link(image_link, schedule, unlocked=locking[2] != "L")
    _check_given(locking, {"gene": gene_features, "image": image_features})
    _check_folder(folder, resume)
    inputs = prepare_inputs(
        sources,
        modalities={m for pair in weights for m in pair},
        image_encoder=image_encoder,
        image_slot=slot,
        image_given=image_features is not None,
        gene_encoder=gene_encoder,
        gene_slot=gene_features,
        text_encoder=text_encoder,
        held_out=held_out,
        locking=locking,
        pretrained=pretrained,
        standardize=preset.standardize,
        tile={"tile_um": tile_um, "tile_px": tile_px},
        counts={"layer": layer, "table_key": table_key, "batch_key": batch_key, "labels_key": labels_key},
        table_key=table_key,
        random_state=random_state,
    )
    items, val_items = _split(inputs.items, held_out)
    _check_left(items, weights)
    schedule = schedule or _choose_schedule(weights, items, image_link)
    if schedule == "sequential" and image_link is None:
        image_link = "contrastive" if "image" in inputs.unlocked else "ridge"
    recipe = preset.sequential if schedule == "sequential" else preset.joint
    changes = {"projection_dim": projection_dim, "learning_rate": learning_rate, "batch_size": batch_size}
    recipe = replace(recipe, **{k: v for k, v in changes.items() if v is not None})
    manifest = {
        "preset": preset.name,
        "schedule": schedule,
        "image_link": image_link,
        "locking": locking,
        "pairs": {f"{a}–{b}": items.count(a, b) for a, b in weights},
        "groups": sorted(set(items.group.tolist())),
        "validation_groups": sorted(held_out),
        "random_state": random_state,
    }
    model = _build(inputs, recipe, preset, manifest, random_state)
    from spatialwhisperer.models.fit import Run, fit_joint, fit_sequential, trainer_options

    where = _run_folder(folder)
    options = trainer_options(accelerator, devices, strategy, precision, trainer)
    run = Run(recipe, max_epochs, random_state, where / "phases", options, resume)
    if schedule == "joint":
        history = fit_joint(model, items, val_items, weights, inputs.unlocked, run)
    else:
        history = fit_sequential(model, items, val_items, weights, inputs.unlocked, str(image_link), run)
    model.history = history
    _save(model, where / "model")
    if folder is None:
        # only an interrupted run needs its resume files, and a run in the cache folder ends here
        shutil.rmtree(where / "phases", ignore_errors=True)
    return model


def _objects(data: Any) -> list[Any]:
    if isinstance(data, Mapping) and not hasattr(data, "tables"):
        data = list(data.values())
    objects = list(data) if isinstance(data, Sequence | set) and not isinstance(data, str) else [data]
    if not objects:
        raise ValueError("No data to train on: pass an AnnData or SpatialData, or several.")
    return objects


def _check_numbers(**values: int | None) -> None:
    # a batch of one pair has no negative
    least = {"batch_size": 2}
    for name, value in values.items():
        if value is not None and value < least.get(name, 1):
            raise ValueError(f"{name} must be at least {least.get(name, 1)}; found {value!r}.")


def _check_locking(locking: str) -> str:
    if len(locking) != 3 or set(locking) - set("LUu"):
        raise ValueError(
            f"locking must be three letters of L, U and u in the order gene, text, image (such as 'LUL'); found {locking!r}."
        )
    return locking


def _choose_pairs(pairs: Any, preset: Preset, sources: Sequence[gather.Source]) -> dict[tuple[str, str], float]:
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


def _validation_groups(validation: Any, sources: Sequence[gather.Source], random_state: int) -> set[str]:
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


def _split(items: Items, held_out: set[str]) -> tuple[Items, Items | None]:
    if not held_out:
        return items, None
    inside = np.isin(items.group.astype(str), sorted(held_out))
    return items.subset(np.flatnonzero(~inside)), items.subset(np.flatnonzero(inside))


def _check_left(items: Items, weights: Mapping[tuple[str, str], float]) -> None:
    """Training needs negatives: at least two pairs of each kind outside the held-out groups."""
    few = {f"{a}–{b}": items.count(a, b) for a, b in weights if items.count(a, b) < 2}
    if few:
        counts = ", ".join(f"{n} {pair}" for pair, n in few.items())
        raise ValueError(
            f"Too few pairs to train on: {counts}. Hold out fewer groups with validation=…, or check that the rows of an "
            "object have captions, counts or complete image features together."
        )


def _check_given(locking: str, slots: Mapping[str, str | None]) -> None:
    for modality, slot in slots.items():
        letter = locking[MODALITIES.index(modality)]
        if slot is not None and letter != "L":
            raise ValueError(
                f"{modality}_features={slot!r} are fixed, and locking={locking!r} asks to train the {modality} tower. "
                "Give the one or the other."
            )


def _check_schedule(schedule: str | None, weights: Mapping[tuple[str, str], float]) -> None:
    if schedule not in (None, "joint", "sequential"):
        raise ValueError(f"schedule must be 'joint' or 'sequential', not {schedule!r}.")
    if schedule == "sequential" and not _can_follow(weights):
        raise ValueError(
            "The sequential schedule links images to a fixed gene embedding, so it needs image–gene and gene–text pairs and "
            f"no image–text pairs; there are {found('–'.join(p) for p in weights)}. Use schedule='joint'."
        )


def _choose_schedule(weights: Mapping[tuple[str, str], float], items: Items, image_link: str | None) -> str:
    if not _can_follow(weights):
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


def _check_link(image_link: str | None, schedule: str | None, *, unlocked: bool) -> str | None:
    if image_link not in (None, "ridge", "contrastive"):
        raise ValueError(f"image_link must be 'ridge' or 'contrastive', not {image_link!r}.")
    if image_link is not None and schedule == "joint":
        raise ValueError("image_link applies to schedule='sequential'.")
    if image_link == "ridge" and unlocked:
        raise ValueError("image_link='ridge' needs frozen image features; an unlocked image tower takes 'contrastive'.")
    return image_link


def _build(inputs: Inputs, recipe: Any, preset: Preset, manifest: Mapping[str, Any], random_state: int) -> Whisperer:
    import torch

    from spatialwhisperer.models.whisperer import Whisperer

    heads = {}
    for modality in sorted(inputs.dims):
        head: dict[str, Any] = {"kind": recipe.heads[modality], "in_dim": inputs.dims[modality]}
        if recipe.dropout.get(modality):
            head["dropout"] = recipe.dropout[modality]
        heads[modality] = head
    config = {
        "projection_dim": recipe.projection_dim,
        "temperature": preset.temperature,
        "heads": heads,
        "standardize": inputs.standardize,
        "encoders": inputs.encoders,
        "towers": inputs.rebuild,
        "labels": inputs.captions,
        "training": dict(manifest),
    }
    with isolated_rng(random_state):
        model = Whisperer(config, inputs.towers)
    for modality, (mean, std) in inputs.statistics.items():
        getattr(model, f"{modality}_mean").copy_(torch.from_numpy(mean))
        getattr(model, f"{modality}_std").copy_(torch.from_numpy(std))
    model.gene_encoder = inputs.gene_encoder
    return model


def _check_folder(folder: str | Path | None, resume: bool) -> None:
    # a process that a strategy started on this machine joins the run of the first
    joins = os.environ.get("LOCAL_RANK", "0") != "0"
    if folder is not None and not resume and not joins and (Path(folder).expanduser() / "phases").exists():
        raise FileExistsError(f"{folder} holds a run already. Continue it with resume=True, or choose another folder.")


def _run_folder(folder: str | Path | None) -> Path:
    if folder is not None:
        where = Path(folder).expanduser()
        where.mkdir(parents=True, exist_ok=True)
        return where
    runs = settings.cache_dir / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="run-", dir=runs))


def _save(model: Whisperer, folder: Path) -> None:
    """Write the model once, from the first process."""
    from lightning.pytorch.utilities import rank_zero_only

    if getattr(rank_zero_only, "rank", 0) == 0:
        model.save(folder)
    else:
        model.folder = folder
