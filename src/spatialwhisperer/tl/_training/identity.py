"""The identity of a run: what its numbers depend on, gathered before the first step, and compared when it is resumed."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._messages import warn
from spatialwhisperer._storage.schema import to_plain
from spatialwhisperer.tl._training.fitting import joins_a_run
from spatialwhisperer.training.resuming.run_identity import RunIdentity, fingerprint, sweep_run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spatialwhisperer.encoders.recipe import FeatureRecipe
    from spatialwhisperer.models.configuration.parts import Preset
    from spatialwhisperer.tl._training.expression.regression import OwnInputs
    from spatialwhisperer.tl._training.expression.values import Values
    from spatialwhisperer.tl._training.fitting import Plan
    from spatialwhisperer.tl._training.inputs import Inputs, ModalityInputs
    from spatialwhisperer.tl._training.options import ExpressionOptions
    from spatialwhisperer.tl._training.readers import Request
    from spatialwhisperer.training.batches import Items

_FIRST = 20
"""Number of captions that are written out; a digest covers all."""

_NO_NUMBERS = {"paper", "published_image_encoder", "evaluation"}
"""Attributes of a preset that training does not read."""

_EPOCHS = {"max_epochs", "min_steps"}
"""Attributes of a recipe that only the number of epochs depends on, which the checkpoints know."""

_SHOWN = {
    "accelerator",
    "callbacks",
    "devices",
    "enable_checkpointing",
    "enable_model_summary",
    "enable_progress_bar",
    "log_every_n_steps",
    "logger",
    "max_time",
    "num_sanity_val_steps",
    "plugins",
    "profiler",
    "use_distributed_sampler",
}
"""Arguments of the Trainer that shape no numbers, or that are stated in another form."""

PACKAGES = ("spatialwhisperer", "torch", "lightning", "numpy")


def identify(
    arguments: Mapping[str, Any],
    inputs: Inputs,
    items: Items,
    validation: Items | None,
    plan: Plan,
    *,
    expression: ExpressionOptions | None,
    values: Values | None,
    own: OwnInputs | None = None,
) -> RunIdentity:
    """Identity of a run.

    Parameters
    ----------
    arguments
        What `argument_parts` returned.
    inputs
        What the model is built from.
    items, validation
        Training items, and those of held-out groups.
    plan
        What is trained and how.
    expression, values
        Options of the predictor of expression and its values; ``None`` where there is none.
    own
        Features that the regression reads and the joint space does not; ``None`` where there are none.
    """
    parts = {
        **arguments,
        "schedule": {"name": plan.schedule, "image_link": plan.image_link},
        "captions": {
            "number": len(inputs.captions),
            "first": list(inputs.captions[:_FIRST]),
            "all": fingerprint(list(inputs.captions)),
        },
        "data": _data(items, validation) | {"sections": fingerprint(inputs.observations["section"].to_numpy())},
        "features": {m: _features(one) for m, one in sorted(inputs.modalities.items())},
        "expression": _expression(expression, values, own),
    }
    remarks = {"max_epochs": plan.max_epochs, "versions": {name: version(name) for name in PACKAGES}}
    return RunIdentity(parts, remarks)


def argument_parts(
    preset: Preset,
    requests: Mapping[str, Request],
    held_out: set[str],
    random_state: int,
    trainer: Mapping[str, Any],
) -> dict[str, Any]:
    """The parts of the identity that are known before any features are computed: the arguments."""
    return {
        "random_state": random_state,
        "preset": _preset(preset),
        "validation_groups": sorted(held_out),
        "features_asked": {m: _asked(request) for m, request in sorted(requests.items())},
        "trainer": _trainer(trainer),
    }


def check_arguments(arguments: Mapping[str, Any], folder: str | Path | None, *, resume: bool) -> None:
    """Refuse to resume another run, before any features are computed.

    Raises
    ------
    ValueError
        If the folder holds a run with other arguments; the text names each difference.
    """
    if resume and folder is not None and not joins_a_run():
        RunIdentity(arguments).check_resumed(Path(folder).expanduser(), whole=False)


def check_identity(identity: RunIdentity, folder: str | Path, *, resume: bool) -> None:
    """Refuse to resume another run.

    Raises
    ------
    ValueError
        If the folder holds another run; the text names each difference.
    """
    if not resume or joins_a_run():
        return
    folder = Path(folder).expanduser()
    identity.check_resumed(folder)
    earlier = RunIdentity.read(folder)
    if earlier is None:
        return
    old, new = earlier.remarks.get("versions", {}), identity.remarks["versions"]
    changed = [f"{name} {old.get(name)} (now {new[name]})" for name in new if old.get(name) != new[name]]
    if changed:
        warn(f"The run was begun with {', '.join(changed)}. What remains of it may differ in the last digits.")


def begin_run(identity: RunIdentity, folder: Path) -> None:
    """Sweep what killed runs left in the folder of a run, and write the identity before the first step.

    That of a run which is resumed stays as it is, with the versions that it was begun with.
    """
    if joins_a_run():
        return
    sweep_run(folder)
    if RunIdentity.read(folder) is None:
        identity.write(folder)


def _preset(preset: Preset) -> dict[str, Any]:
    parts = {name: value for name, value in to_plain(preset).items() if name not in _NO_NUMBERS}
    if preset.letter("image") == "L":
        # features of a frozen encoder are not augmented
        del parts["augmentation"]
    for schedule in ("joint", "sequential"):
        recipe = parts[schedule]
        if recipe is not None:
            parts[schedule] = {name: value for name, value in recipe.items() if name not in _EPOCHS}
    return parts


def _asked(request: Request) -> dict[str, Any]:
    """Options of features. Encoders and their weights are in the recipe: an object has no name that another process would recognise."""
    return {k: v for k, v in vars(request).items() if k not in ("encoder", "weights")} if is_dataclass(request) else {}


def _features(one: ModalityInputs) -> dict[str, Any]:
    return {
        "recipe": stated_recipe(one.recipe),
        "dim": one.dim,
        "standardize": one.standardize,
        "statistics": None if one.statistics is None else fingerprint(np.stack(one.statistics)),
        "locking": one.unlocked or "L",
        "context": None if one.context is None else asdict(one.context),
    }


def stated_recipe(recipe: FeatureRecipe) -> FeatureRecipe:
    """A recipe as another process would state it: an encoder that is never recognised is known by its features alone."""
    if recipe.encoder is None or not recipe.encoder.unread:
        return recipe
    return replace(recipe, encoder=replace(recipe.encoder, digest=recipe.encoder.unread))


def _data(items: Items, validation: Items | None) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "items": len(items),
        "groups": fingerprint(items.group),
        "rows": fingerprint(items.row),
        "inputs": {m: fingerprint(x) for m, x in items.inputs.items()},
        "index": {m: fingerprint(x) for m, x in items.index.items()},
        "context": {m: {name: fingerprint(x) for name, x in c.items()} for m, c in items.context.items()},
    }
    if items.places is not None:
        # blocks of a section are left out to choose a penalty
        parts["positions"] = fingerprint(items.places[1])
    if items.wordings is not None:
        parts["wordings"] = fingerprint(np.stack([items.wordings.text, items.wordings.caption, items.wordings.negated]))
    if validation is not None:
        parts["validation"] = {"items": len(validation), "rows": fingerprint(validation.row)}
        parts["validation"] |= {m: fingerprint(x) for m, x in validation.index.items()}
    return parts


def _expression(asked: ExpressionOptions | None, values: Values | None, own: OwnInputs | None) -> dict[str, Any] | None:
    if asked is None or values is None:
        return None
    return {
        "cross_validate": asked.cross_validate,
        "values_layer": asked.values_layer,
        "space": values.space,
        "n_genes": len(values.genes),
        "genes": fingerprint(list(values.genes)),
        "values": fingerprint(values.matrix),
        "rows": fingerprint(values.rows),
        "unpaired": {section: fingerprint(x) for section, x in values.unpaired.items()},
        "own_features": None if own is None else {"features": list(own.features), "values": fingerprint(own.x)},
    }


def _listed(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [given]


def _trainer(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that shape numbers: precision, accumulation, clipping, and where and on how many devices a step is made."""
    import torch

    accelerator = options["accelerator"]
    cuda = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    devices = options["devices"]
    parts = {name: value for name, value in options.items() if name not in _SHOWN and value is not None}
    parts["accelerator"] = "cuda" if cuda else "cpu" if accelerator == "auto" else accelerator
    plugins = options.get("plugins") or []
    # of an object nothing but its type is known
    parts["plugins"] = [p if isinstance(p, str) else type(p).__qualname__ for p in _listed(plugins)]
    # a list names devices, and which of them are taken changes nothing
    parts["devices"] = len(devices) if isinstance(devices, list | tuple) else devices
    return parts
