"""Training: paired data of any objects in, a joint space out."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from spatialwhisperer._access import slots
from spatialwhisperer.tl._training import checks, fitting
from spatialwhisperer.tl._training import expression as expression_training
from spatialwhisperer.tl._training import sources as gather
from spatialwhisperer.tl._training.inputs import prepare_inputs
from spatialwhisperer.tl._training.reference import attach_reference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.models import GeneEncoder, Preset, Whisperer

Modality = Literal["image", "gene", "text"]


def train(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    *,
    preset: str | Preset = "spatialwhisperer",
    protocol: Literal["strict", "peer"] = "strict",
    pairs: Sequence[tuple[Modality, Modality]] | Mapping[tuple[Modality, Modality], float] | None = None,
    image_encoder: Any = None,
    gene_encoder: str | GeneEncoder | Path | None = None,
    text_encoder: str = "minilm",
    image_features: str | None = None,
    gene_features: str | None = None,
    text_key: str | Sequence[str] = "text",
    group_key: str | None = "patient",
    batch_key: str | None = None,
    labels_key: str | None = None,
    layer: str | None = None,
    table_key: str | None = None,
    tile_um: float | Sequence[float] | None = None,
    tile_px: int | None = None,
    locking: str | None = None,
    pretrained: bool = True,
    schedule: Literal["joint", "sequential"] | None = None,
    image_link: Literal["ridge", "contrastive"] | None = None,
    validation: float | str | Sequence[str] | None = None,
    genes: Sequence[str] | None = None,
    values_layer: str | None = None,
    expression: bool | None = None,
    cross_validate: bool | None = None,
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
        Name or :class:`~spatialwhisperer.models.Preset` that sets the parts; :func:`spatialwhisperer.models.presets` lists
        them.
    protocol
        "strict", or "peer": as the code of the paper does it where that changes numbers.
    pairs
        Modality pairs to train, optionally each with its weight. Not given: those of the preset that the data hold.
    image_encoder
        Name of an image encoder, an ``nn.Module`` or an image encoder object. Not given: that of the preset.
    gene_encoder
        "pca", "scvi", "scanvi", "set_transformer" or "gene_sentence" (fitted here on the raw counts of the training groups),
        "identity" (the expression of ``genes``), or a fitted encoder or its folder. Not given: that of the preset.
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
        (``python -m spatialwhisperer.protocols annotation``); the preset "whisperer" solves both in closed form, see
        :class:`~spatialwhisperer.models.Recipe`. Not given: sequential below 5000 image–gene pairs.
    image_link
        Of the sequential schedule: "ridge" (closed form) or "contrastive". Not given: ridge unless the image tower is
        unlocked or a decoder learns.
    validation
        Groups held out for a validation loss: their names, or the share of groups.
    genes
        Genes whose expression the model will predict. Not given: chosen on the training groups by the rule of the preset.
    values_layer
        Layer with the values to predict as they are, such as batch-corrected ones. Not given: raw counts, brought into the
        preset's value space.
    expression
        Whether the model learns to predict expression (:func:`predict_expression`). Not given: what the preset says.
    cross_validate
        Train again without each patient (without each section where there is one patient) to learn how well each gene is
        predicted on tissue that training has not seen, and how to weigh retrieval and regression. The choice of genes and a
        fitted gene encoder stay those of all training rows. Not given: yes for frozen features.
    projection_dim, learning_rate, batch_size, max_epochs
        Override the recipe of the preset. Without ``max_epochs`` small data gets at least the recipe's number of steps. What is
        solved in closed form has none of them.
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
    ``model.history`` and a small sample of the training data in ``model.reference``.

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

    preset = get_preset(preset, protocol)
    image_encoder, gene_encoder = image_encoder or preset.image_encoder, gene_encoder or preset.gene_encoder
    gene_options = preset.gene_options if gene_encoder == preset.gene_encoder else {}
    locking = checks.check_locking(locking or preset.locking)
    checks.check_numbers(projection_dim=projection_dim, batch_size=batch_size, max_epochs=max_epochs)
    checks.check_rate(learning_rate)
    slot = gather.image_slot(image_encoder, image_features)
    sources = gather.describe(
        checks.objects(data),
        table_key=table_key,
        text_keys=[text_key] if isinstance(text_key, str) else list(text_key),
        group_key=group_key,
        image_slot=slot,
        gene_slot=gene_features,
        array_positions=preset.context.kind == "batch_peer",
    )
    weights = checks.choose_pairs(pairs, preset, sources)
    held_out = checks.validation_groups(validation, sources, random_state)
    checks.check_schedule(schedule, weights, preset)
    image_link = checks.check_link(image_link, schedule, unlocked=locking[2] != "L")
    checks.check_given(locking, {"gene": gene_features, "image": image_features})
    with_expression = checks.check_expression(expression, genes, values_layer, preset, weights)
    checks.check_decoder(image_link, preset, with_expression)
    fitting.check_folder(folder, resume=resume)
    chosen: tuple[list[str], list[str]] = ([], [])
    if with_expression:
        chosen = expression_training.choose_genes(sources, genes, preset, held_out, layer)
    if gene_encoder == "identity" and gene_features is None:
        gene_encoder = checks.identity_encoder(preset, *chosen)
    with slots.all_or_nothing([s.table for s in sources], slot):
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
            context=preset.context,
            tile={"tile_um": tile_um or preset.tile_um, "tile_px": tile_px},
            counts={"layer": layer, "batch_key": batch_key, "labels_key": labels_key, **gene_options},
            table_key=table_key,
            random_state=random_state,
        )
        items, val_items = checks.split(inputs.items, held_out)
        checks.check_left(items, weights)
        schedule = schedule or checks.choose_schedule(weights, items, image_link, preset)
        recipe = preset.sequential if schedule == "sequential" else preset.joint
        decodes = with_expression and bool(recipe.regression_weight)
        if schedule == "sequential" and image_link is None:
            image_link = "contrastive" if "image" in inputs.unlocked or decodes else "ridge"
        checks.check_closed_form(recipe, image_link, inputs.towers, projection_dim)
        changes = {"projection_dim": projection_dim, "learning_rate": learning_rate, "batch_size": batch_size}
        recipe = replace(recipe, **{k: v for k, v in changes.items() if v is not None})
        manifest = {
            "preset": preset.name,
            "protocol": preset.protocol,
            "schedule": schedule,
            "image_link": image_link,
            "locking": locking,
            "pairs": {f"{a}–{b}": items.count(a, b) for a, b in weights},
            "groups": sorted(set(items.group.tolist())),
            "validation_groups": sorted(held_out),
            "random_state": random_state,
        }
        from spatialwhisperer.training.fit import trainer_options

        options = trainer_options(accelerator, devices, strategy, precision, trainer)
        decoder = len(chosen[0]) if decodes else None
        plan = fitting.Plan(
            preset, recipe, schedule, image_link, weights, manifest, max_epochs, random_state, options, decoder
        )
        if with_expression:
            values = expression_training.read_values(
                sources,
                inputs,
                *chosen,
                space=preset.expression.value_space,  # type: ignore[union-attr]
                layer=layer,
                values_layer=values_layer,
                held_out=held_out,
            )
            if decoder is not None:
                items = expression_training.with_values(items, values, len(inputs.observations))
    where = fitting.run_folder(folder)
    model = fitting.fit_model(inputs, items, val_items, plan, where / "phases", resume=resume)
    attach_reference(model, inputs, items, sources, layer=layer, table_key=table_key, random_state=random_state)
    if with_expression:
        expression_training.attach_predictor(
            model,
            inputs,
            items,
            values,
            plan,
            sources,
            cross_validate=checks.cross_validates(cross_validate, inputs),
            folder=where / "phases",
        )
    fitting.save_model(model, where / "model")
    if folder is None:
        # only an interrupted run needs its resume files, and a run in the cache folder ends here
        shutil.rmtree(where / "phases", ignore_errors=True)
    return model
