"""A training run over a corpus on the disk, by contrastive steps of the heads."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer import _keys
from spatialwhisperer._messages import inform, listing, warn
from spatialwhisperer.encoders.resolve import load_gene_encoder
from spatialwhisperer.models.configuration.model import Training
from spatialwhisperer.models.presets.catalogue import PRESETS, get_preset
from spatialwhisperer.tl._training import checks, fitting
from spatialwhisperer.tl._training.corpus.sample import MOST_LABELS, sample_inputs
from spatialwhisperer.tl._training.identity import (
    PACKAGES,
    argument_parts,
    begin_run,
    check_arguments,
    check_identity,
)
from spatialwhisperer.tl._training.reference import attach_reference
from spatialwhisperer.training.corpus.batches import Standard
from spatialwhisperer.training.corpus.feed import CorpusFeed, training_statistics
from spatialwhisperer.training.corpus.manifest import ENCODERS
from spatialwhisperer.training.corpus.shards import Corpus
from spatialwhisperer.training.fit import Phase, Run, run_phase
from spatialwhisperer.training.resuming.run_identity import RunIdentity
from spatialwhisperer.training.trainer import checked_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from spatialwhisperer.encoders.base import Encoder
    from spatialwhisperer.models.configuration.parts import Preset
    from spatialwhisperer.models.whisperer import Whisperer
    from spatialwhisperer.tl._training.inputs import Inputs

Pairs = dict[tuple[str, str], float]


def run_corpus(
    data: Path,
    preset: str | Preset,
    *,
    validation: float | str | Sequence[str] | None,
    max_epochs: int | None,
    trainer: Mapping[str, Any] | None,
    folder: str | Path | None,
    resume: bool,
    random_state: int,
    **others: Any,
) -> Whisperer:
    """Check the arguments, open the corpus, fit and store the model; see :func:`spatialwhisperer.tl.train`."""
    preset, trainer = get_preset(preset), checked_options(trainer)
    checks.check_epochs(max_epochs)
    check_others(others)
    fitting.check_folder(folder, resume=resume)
    fitting.check_free(folder)
    fitting.check_writable(folder)
    corpus = Corpus.open(data.expanduser())
    preset = by_steps(preset)
    pairs = choose_pairs(preset, corpus)
    check_frozen(preset, pairs)
    held_out = frozenset(checks.validation_groups(validation, corpus.manifest.patients(), random_state))
    if preset.joint.select == "best" and not held_out:
        raise ValueError("select='best' chooses the epoch on held-out patients: name some with validation=….")
    feed = _feed(corpus, preset, pairs, held_out, random_state)
    check_left(feed)
    if held_out and sum(stream.rows for stream in feed.streams(training=False)) < 2:
        checks.say_unmeasured(held_out, pairs)
    arguments = argument_parts(preset, {}, set(held_out), random_state, trainer)
    arguments["corpus"] = {"digest": corpus.manifest.digest, "rows": sum(s.rows for s in corpus.manifest.shards)}
    check_arguments(arguments, folder, resume=resume)
    identity = RunIdentity(arguments, {"max_epochs": max_epochs, "versions": {n: version(n) for n in PACKAGES}})
    if folder is not None and not fitting.joins_a_run():
        check_identity(identity, folder, resume=resume)
    inputs = sample_inputs(corpus, feed.standards, _encoders(corpus, pairs), held_out=held_out, seed=random_state)
    where = fitting.run_folder(folder)
    with fitting.locked(where):
        fitting.check_folder(folder, resume=resume)
        if folder is not None:
            begin_run(identity, where)
        plan = _plan(preset, feed, pairs, max_epochs, random_state, trainer)
        plan = fitting.writing_to(plan, where, resumable=folder is not None)
        model = _fit(inputs, feed, plan, where / "phases", resume=resume)
        _attach(model, inputs, corpus, plan)
        fitting.save_model(model, where / "model")
        if folder is None:
            fitting.remove_phases(where)
    return model


def check_others(others: Mapping[str, Any]) -> None:
    """Refuse arguments that were decided when the corpus was built.

    Raises
    ------
    ValueError
        If there are some.
    """
    wrong = [name for name in ("image", "gene", "text") if others.get(name) is not None]
    wrong += sorted(others.get("options") or ())
    wrong += ["group_key"] if others.get("group_key") != _keys.PATIENT else []
    if wrong:
        raise ValueError(
            f"{listing(wrong)}: the features and patients of a corpus are those that it was built with. Leave the argument out, or build "
            "another corpus with sw.pp.build_corpus."
        )
    if others.get("expression"):
        raise ValueError(
            "expression=… needs counts, and a corpus holds features. Train on objects for a model that predicts expression."
        )


def by_steps(preset: Preset) -> Preset:
    """The preset with the schedule of a corpus: all pairs together, by contrastive steps.

    Raises
    ------
    ValueError
        If the preset asks for another schedule.
    """
    if preset.schedule == "sequential" or preset.image_link is not None:
        raise ValueError(
            "A corpus is trained by contrastive steps of all pairs together, and the preset asks for schedule='sequential'. Take "
            "preset.replace(schedule='joint', image_link=None)."
        )
    if preset.solved_in_closed_form:
        inform(
            f"Preset {preset.name!r}: a corpus is trained by contrastive steps (schedule='joint'), not in closed form."
        )
    return preset.replace(schedule="joint")


def choose_pairs(preset: Preset, corpus: Corpus) -> Pairs:
    """The pairs of the preset that the corpus holds, with their weights; a warning names the others.

    Raises
    ------
    ValueError
        If there is none, or the preset names its own pairs and one of them is missing.
    """
    weights = {pair: w for pair, w in preset.pairs.items() if w > 0}
    held = {pair: w for pair, w in weights.items() if corpus.manifest.rows(*pair)}
    published = PRESETS.get(preset.name)
    named = published is None or dict(published.pairs) != dict(preset.pairs)
    missing = [pair for pair in weights if pair not in held]
    if missing:
        kinds = sorted({"–".join(shard.modalities) for shard in corpus.manifest.shards})
        lacking = f"The corpus {corpus.folder} holds no {listing('–'.join(p) for p in missing)} pairs; its rows hold {listing(kinds)}."
        if named or not held:
            raise ValueError(lacking)
        warn(f"{lacking} The model is trained on the other pairs of preset {preset.name!r}.")
    return held


def check_frozen(preset: Preset, pairs: Pairs) -> None:
    """Refuse presets that need more than the features of single rows.

    Raises
    ------
    ValueError
        If an encoder is trained, or neighbours are read.
    """
    used = sorted({m for pair in pairs for m in pair})
    if trained := [m for m in used if preset.letter(m) != "L"]:
        raise ValueError(
            f"A corpus holds features of frozen encoders, and preset {preset.name!r} (locking={preset.locking!r}) trains the encoder of "
            f"{listing(trained)}. Take preset.replace(locking='LLL')."
        )
    if preset.context.kind != "none" and set(preset.context.modalities) & set(used):
        raise ValueError(
            f"Preset {preset.name!r} reads the neighbours of a row ({preset.context.kind}), and the rows of a corpus are shuffled over its "
            "shards. Train on objects, or take preset.replace(context=sw.models.Context())."
        )


def check_left(feed: CorpusFeed) -> None:
    """Refuse fewer than two rows of a pair outside the held-out patients: training needs negatives.

    Raises
    ------
    ValueError
        If there are too few.
    """
    if few := {"–".join(pair): n for pair, n in feed.pair_rows().items() if n < 2}:
        counts = ", ".join(f"{n} {pair}" for pair, n in few.items())
        raise ValueError(f"Too few pairs to train on: {counts}. Hold out fewer patients with validation=….")


def _feed(corpus: Corpus, preset: Preset, pairs: Pairs, held_out: frozenset[str], seed: int) -> CorpusFeed:
    modalities = sorted({m for pair in pairs for m in pair})
    dims = {m: corpus.manifest.features[m].dim for m in modalities}
    standards = {m: _standard(corpus, preset, m, dims[m], held_out, seed) for m in modalities}
    recipe = preset.joint
    return CorpusFeed(
        corpus, dims, standards, tuple(pairs), held_out, recipe.batch_size, recipe.mixture == "balanced", seed
    )


def _standard(corpus: Corpus, preset: Preset, modality: str, dim: int, held_out: frozenset[str], seed: int) -> Standard:
    if modality == "text":
        return Standard("none", np.zeros(dim, np.float32), np.ones(dim, np.float32))
    how = preset.standardize.get(modality, "none")
    if how == "auto":
        how = "global" if corpus.manifest.features[modality].looks_at_image else "section"
    return Standard(how, *training_statistics(corpus, modality, dim, held_out=held_out, seed=seed))


def _encoders(corpus: Corpus, pairs: Pairs) -> dict[str, Encoder]:
    """Encoders that the corpus keeps because no name stands for them."""
    used = {m for pair in pairs for m in pair}
    if "gene" not in used or not corpus.manifest.features["gene"].stored:
        return {}
    return {"gene": load_gene_encoder(corpus.folder / ENCODERS / "gene")}


def _plan(
    preset: Preset,
    feed: CorpusFeed,
    pairs: Pairs,
    max_epochs: int | None,
    random_state: int,
    trainer: Mapping[str, Any],
) -> fitting.Plan:
    patients, held_out = feed.corpus.manifest.patients(), feed.held_out
    training = Training(
        preset=preset.name,
        protocol=preset.protocol,
        schedule="joint",
        image_link=None,
        locking=preset.locking,
        pairs={f"{a}–{b}": n for (a, b), n in feed.pair_rows().items()},
        groups=tuple(p for p in patients if p not in held_out),
        validation_groups=tuple(sorted(held_out)),
        random_state=random_state,
        sections=tuple(feed.sections()),
        versions={name: version(name) for name in PACKAGES},
        group_key=_keys.PATIENT,
    )
    return fitting.Plan(preset, preset.joint, "joint", None, pairs, training, max_epochs, random_state, trainer)


def _fit(inputs: Inputs, feed: CorpusFeed, plan: fitting.Plan, folder: Path, *, resume: bool) -> Whisperer:
    labels = inputs.captions if len(inputs.captions) <= MOST_LABELS else []
    model = fitting.build_model(replace(inputs, captions=labels), plan)
    run = Run(
        recipe=plan.recipe,
        loss=plan.preset.loss,
        pairs=plan.pairs,
        bridge=plan.preset.bridge,
        unlocked={},
        max_epochs=plan.max_epochs,
        random_state=plan.random_state,
        folder=folder,
        trainer=plan.trainer,
        resume=resume,
        resumable=plan.resumable,
    )
    heads = frozenset(m for pair in plan.pairs for m in pair)
    model.history = run_phase(model, feed, Phase("joint", plan.pairs, heads), run)
    model.update(training=plan.training)
    return model


def _attach(model: Whisperer, inputs: Inputs, corpus: Corpus, plan: fitting.Plan) -> None:
    trained, bridge = set(plan.training.sections), plan.preset.bridge
    mpp = sorted({value for slide in corpus.manifest.slides if trained & {*slide.sections} for value in slide.mpp})
    attach_reference(model, inputs, inputs.items, (), bridge=bridge, mpp=mpp, random_state=plan.random_state)
