"""A training run, from the objects to the stored model."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from spatialwhisperer._messages import inform
from spatialwhisperer.models.configuration.model import Training
from spatialwhisperer.models.presets.catalogue import get_preset
from spatialwhisperer.tl._training import checks, fitting
from spatialwhisperer.tl._training.expression import predictor
from spatialwhisperer.tl._training.expression.regression import own_requests, read_own
from spatialwhisperer.tl._training.identity import (
    PACKAGES,
    argument_parts,
    begin_run,
    check_arguments,
    check_identity,
    identify,
)
from spatialwhisperer.tl._training.inputs import prepare_inputs
from spatialwhisperer.tl._training.readers import key_of
from spatialwhisperer.tl._training.reference import attach_reference
from spatialwhisperer.tl._training.sources import describe, groups_of, section_names
from spatialwhisperer.training.fit import in_closed_form
from spatialwhisperer.training.trainer import checked_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer._access.slide_options import SlideOptions
    from spatialwhisperer.models.configuration.parts import Preset
    from spatialwhisperer.models.whisperer import Whisperer
    from spatialwhisperer.tl._training.inputs import Inputs
    from spatialwhisperer.tl._training.options import ExpressionOptions
    from spatialwhisperer.training.batches import Items


def run_training(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData] | Mapping[str, AnnData | SpatialData],
    preset: str | Preset,
    *,
    image: Any,
    gene: Any,
    text: Any,
    group_key: str | None,
    validation: float | str | Sequence[str] | None,
    expression: bool | ExpressionOptions | None,
    max_epochs: int | None,
    trainer: Mapping[str, Any] | None,
    folder: str | Path | None,
    resume: bool,
    random_state: int,
    options: SlideOptions,
) -> Whisperer:
    """Check the arguments, prepare the inputs, fit and store the model; see :func:`spatialwhisperer.tl.train`."""
    preset = get_preset(preset)
    trainer = checked_options(trainer)
    checks.check_epochs(max_epochs)
    requests = checks.requests(preset, image, gene, text)
    checks.check_negated(requests, closed_form=preset.solved_in_closed_form)
    fitting.check_folder(folder, resume=resume)
    fitting.check_free(folder)
    fitting.check_writable(folder)
    sources = describe(
        checks.objects(data),
        modalities=requests,
        keys={m: key_of(request, m) for m, request in requests.items()},
        text_keys=checks.text_keys(requests),
        group_key=group_key,
        array_positions=preset.context.array_positions,
        options=options,
    )
    pairs = checks.choose_pairs(preset, sources)
    requests = {m: request for m, request in requests.items() if any(m in pair for pair in pairs)}
    held_out = checks.validation_groups(validation, groups_of(sources), random_state)
    checks.check_schedule(preset, pairs)
    arguments = argument_parts(preset, requests, held_out, random_state, trainer)
    check_arguments(arguments, folder, resume=resume)
    asked = checks.expression_options(expression, preset, pairs)
    own_asked = own_requests(asked, preset, requests)
    layer = checks.counts_layer(requests)
    genes: tuple[list[str], list[str]] = ([], [])
    if asked is not None:
        genes = predictor.choose_genes(sources, asked.genes, preset, held_out, layer)
    requests = checks.with_identity(requests, preset, *genes)
    inputs = prepare_inputs(sources, preset, requests, held_out=held_out, random_state=random_state)
    items, val_items = checks.split(inputs.items, held_out)
    checks.check_left(items, pairs)
    checks.warn_of_unmeasured(val_items, held_out, pairs)
    known = group_key if any(group_key in source.table.obs for source in sources) else None
    plan = _plan(
        preset, inputs, items, pairs, held_out, known, genes if asked else None, max_epochs, random_state, trainer
    )
    closed = plan.schedule == "sequential" and in_closed_form(plan.recipe, plan.image_link, inputs.unlocked)
    checks.check_negated(requests, closed_form=closed)
    if closed:
        checks.warn_of_unused(preset)
    values = own = None
    if asked is not None:
        values = predictor.read_values(
            sources, inputs, *genes, preset=preset, layer=layer, values_layer=asked.values_layer, held_out=held_out
        )
        if plan.decoder_dim is not None:
            items = predictor.with_values(items, values, len(inputs.observations))
        else:
            own = read_own(sources, inputs, own_asked, preset=preset, values=values, held_out=held_out)
    identity = None
    # the first process alone writes and compares it, and a digest of tiles reads all of them
    if folder is not None and not fitting.joins_a_run():
        identity = identify(arguments, inputs, items, val_items, plan, expression=asked, values=values, own=own)
        check_identity(identity, folder, resume=resume)
    where = fitting.run_folder(folder)
    with fitting.locked(where):
        # another process may have trained there while features were computed
        fitting.check_folder(folder, resume=resume)
        for opened, result in [*inputs.computed, *(() if own is None else own.computed)]:
            opened.put(result)
        if identity is not None:
            begin_run(identity, where)
        phases, plan = where / "phases", fitting.writing_to(plan, where, resumable=folder is not None)
        model = fitting.fit_model(inputs, items, val_items, plan, phases, resume=resume)
        _say_refinement(model)
        attach_reference(model, inputs, items, sources, bridge=preset.bridge, layer=layer, random_state=random_state)
        if asked is not None and values is not None:
            repeats = not inputs.unlocked if asked.cross_validate is None else asked.cross_validate
            predictor.attach_predictor(
                model,
                inputs,
                items,
                values,
                plan,
                sources,
                own=own,
                cross_validate=repeats,
                folder=phases,
                resume=resume,
            )
        fitting.save_model(model, where / "model")
        if folder is None:
            fitting.remove_phases(where)
    return model


def _say_refinement(model: Whisperer) -> None:
    training = model.config.training
    if training is not None and training.refinement is not None:
        inform(f"Contrastive refinement of the image head: {training.refinement.reason}.")


def _plan(
    preset: Preset,
    inputs: Inputs,
    items: Items,
    pairs: Mapping[tuple[str, str], float],
    held_out: set[str],
    group_key: str | None,
    genes: tuple[list[str], list[str]] | None,
    max_epochs: int | None,
    random_state: int,
    trainer: Mapping[str, Any],
) -> fitting.Plan:
    """Choose schedule and image link, which depend on the number of pairs, and describe the fit."""
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
        augmentation=preset.augmentation if "image" in inputs.unlocked else None,
        sections=section_names(inputs.observations["section"].to_numpy()[items.row]),
        versions={name: version(name) for name in PACKAGES},
        group_key=group_key,
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
