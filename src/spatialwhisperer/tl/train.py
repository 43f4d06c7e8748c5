"""Training: paired data of any objects in, a joint space out."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, Unpack

from spatialwhisperer._docs import shared
from spatialwhisperer.models.config import Training
from spatialwhisperer.models.presets import get_preset
from spatialwhisperer.tl._training import checks, fitting
from spatialwhisperer.tl._training import expression as predictor
from spatialwhisperer.tl._training.inputs import prepare_inputs
from spatialwhisperer.tl._training.readers import key_of
from spatialwhisperer.tl._training.reference import attach_reference
from spatialwhisperer.tl._training.sources import describe
from spatialwhisperer.training.trainer import trainer_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch
    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer._access.slide import SlideOptions
    from spatialwhisperer.encoders.gene.base import GeneEncoder
    from spatialwhisperer.encoders.image.base import ImageEncoder
    from spatialwhisperer.encoders.text.base import TextEncoder
    from spatialwhisperer.models.parts import Preset
    from spatialwhisperer.models.whisperer import Whisperer
    from spatialwhisperer.pp.features import GeneFeatures, ImageFeatures, TextFeatures
    from spatialwhisperer.tl._training.checks import ExpressionOptions


@shared
def train(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData] | Mapping[str, AnnData | SpatialData],
    *,
    preset: str | Preset = "spatialwhisperer",
    image: ImageFeatures | str | torch.nn.Module | ImageEncoder | None = None,
    gene: GeneFeatures | str | Path | GeneEncoder | None = None,
    text: TextFeatures | str | Path | TextEncoder | None = None,
    group_key: str | None = "patient",
    validation: float | str | Sequence[str] | None = None,
    expression: bool | ExpressionOptions | None = None,
    max_epochs: int | None = None,
    trainer: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    random_state: int = 0,
    **slide: Unpack[SlideOptions],
) -> Whisperer:
    """Train a joint space of images, genes and text from objects that each hold some of them.

    Each object contributes what it has: an H&E image, raw counts, captions in a column of ``.obs``. No object needs all
    three: with image–gene pairs in some and gene–text pairs in others, text reaches images through the genes (Schaefer et
    al., ICML 2026).

    Frozen features are the default. They are computed once: image features are stored in ``.obsm["X_<encoder>"]`` of each object, and
    a later call that asks for the same encoder, tiles and scale uses them. An encoder that the preset unlocks is trained end to end.

    Rows that lack a modality never reach its encoder or its batch norm. Repeated captions are positives of each other
    rather than negatives. The split is by group, never by row.

    Parameters
    ----------
    data
        One object or several.
    preset
        Name of a published method (:func:`spatialwhisperer.models.presets` lists them), or a preset. What a preset fixes (pairs,
        locking, schedule, dimensions, rates, batch size) is changed by :meth:`spatialwhisperer.models.Preset.replace`.
    image
        Encoder of the tiles, or :class:`ImageFeatures`; ``None`` takes that of the preset.
    gene
        Encoder of the counts, or :class:`GeneFeatures`; ``None`` takes that of the preset.
    text
        Encoder of the captions, or :class:`TextFeatures`; ``None`` takes that of the preset and captions from ``.obs["text"]``.
    group_key
        Column of ``.obs`` with the patient. An object without it is a group of its own.
    validation
        Groups held out for a validation loss: their names, or the fraction of groups.
    expression
        Whether the model learns to predict expression (:func:`predict_expression`), or :class:`ExpressionOptions`; ``None`` does
        what the preset says.
    max_epochs
        Epochs; ``None`` takes those of the preset, and more where data are few. What is solved in closed form has none.
    trainer
        Arguments of Lightning's Trainer by name, such as ``{"devices": 2, "precision": "bf16-mixed"}``.
    folder
        Where the checkpoints and the finished model go; ``None`` makes a new folder under ``settings.cache_dir / "runs"``, in
        which only the finished model stays.
    resume
        Continue an interrupted run in ``folder``.
    %(random_state)s
    %(slide)s

    Returns
    -------
    The trained :class:`~spatialwhisperer.models.Whisperer`, also written to ``model.folder``, with the losses in
    ``model.history`` and a small sample of the training data in ``model.reference``.

    Raises
    ------
    ValueError
        If no modality pair is there, arguments do not fit each other, or counts are not counts.
    KeyError
        If a key that is named does not exist.
    TypeError
        If the Trainer has no argument of a name.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sections, reference = sw.datasets.simulate_sections(2, 80, n_genes=100, n_reference_cells=200, random_state=0)
    >>> tiles = sw.tl.ImageFeatures(tile_um=80, tile_px=64)
    >>> model = sw.tl.train([*sections.values(), reference], image=tiles, max_epochs=20)
    >>> model.modalities
    ('gene', 'image', 'text')
    """
    preset = get_preset(preset)
    options = trainer_options(trainer)
    checks.check_epochs(max_epochs)
    requests = checks.requests(preset, image, gene, text)
    fitting.check_folder(folder, resume=resume)
    sources = describe(
        checks.objects(data),
        modalities=requests,
        keys={m: key_of(request, m) for m, request in requests.items()},
        text_keys=checks.text_keys(requests),
        group_key=group_key,
        array_positions=preset.context.array_positions,
        options=slide,
    )
    pairs = checks.choose_pairs(preset, sources)
    requests = {m: request for m, request in requests.items() if any(m in pair for pair in pairs)}
    held_out = checks.validation_groups(validation, sources, random_state)
    checks.check_schedule(preset, pairs)
    asked = checks.expression_options(expression, preset, pairs)
    layer = checks.counts_layer(requests)
    genes: tuple[list[str], list[str]] = ([], [])
    if asked is not None:
        genes = predictor.choose_genes(sources, asked.genes, preset, held_out, layer)
    requests = checks.with_identity(requests, preset, *genes)
    inputs = prepare_inputs(sources, preset, requests, held_out=held_out, random_state=random_state)
    items, val_items = checks.split(inputs.items, held_out)
    checks.check_left(items, pairs)
    plan = _plan(preset, inputs, items, pairs, held_out, genes if asked else None, max_epochs, random_state, options)
    values = None
    if asked is not None:
        values = predictor.read_values(
            sources, inputs, *genes, preset=preset, layer=layer, values_layer=asked.values_layer, held_out=held_out
        )
        if plan.decoder_dim is not None:
            items = predictor.with_values(items, values, len(inputs.observations))
    for opened, result in inputs.computed:
        opened.put(result)
    where = fitting.run_folder(folder)
    model = fitting.fit_model(inputs, items, val_items, plan, where / "phases", resume=resume)
    attach_reference(model, inputs, items, sources, bridge=preset.bridge, layer=layer, random_state=random_state)
    if asked is not None and values is not None:
        repeats = not inputs.unlocked if asked.cross_validate is None else asked.cross_validate
        phases = where / "phases"
        predictor.attach_predictor(model, inputs, items, values, plan, sources, cross_validate=repeats, folder=phases)
    fitting.save_model(model, where / "model")
    if folder is None:
        # only an interrupted run needs its resume files, and a run in the cache folder ends here
        shutil.rmtree(where / "phases", ignore_errors=True)
    return model


def _plan(
    preset: Preset,
    inputs: Any,
    items: Any,
    pairs: Mapping[tuple[str, str], float],
    held_out: set[str],
    genes: tuple[list[str], list[str]] | None,
    max_epochs: int | None,
    random_state: int,
    trainer: Mapping[str, Any],
) -> fitting.Plan:
    """What is fitted and how, once the number of pairs is known."""
    schedule = checks.choose_schedule(preset, pairs, items)
    recipe = preset.sequential if schedule == "sequential" else preset.joint
    if recipe is None:
        raise ValueError(f"The preset {preset.name!r} has no {schedule} schedule.")
    decodes = genes is not None and bool(recipe.regression_weight)
    link = checks.choose_link(preset, schedule, trained=inputs.unlocked, decodes=decodes)
    training = Training(
        preset=preset.name,
        protocol=preset.protocol,
        schedule=schedule,
        image_link=link,
        locking=preset.locking,
        pairs={f"{a}–{b}": items.count(a, b) for a, b in pairs},
        groups=tuple(sorted(set(items.group.tolist()))),
        validation_groups=tuple(sorted(held_out)),
        random_state=random_state,
    )
    return fitting.Plan(
        preset=preset,
        recipe=recipe,
        schedule=schedule,
        image_link=link,
        pairs=pairs,
        training=training,
        max_epochs=max_epochs,
        random_state=random_state,
        trainer=trainer,
        decoder_dim=len(genes[0]) if decodes and genes is not None else None,
    )
