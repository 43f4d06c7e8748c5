from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from lightning.pytorch.callbacks import Callback

from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer.encoders.digests import object_digest
from spatialwhisperer.encoders.recipe import EncoderIdentity, FeatureRecipe
from spatialwhisperer.models import Augmentation, get_preset
from spatialwhisperer.models.configuration.model import Training
from spatialwhisperer.pp.features.options import GeneFeatures
from spatialwhisperer.tl._training.fitting import Plan
from spatialwhisperer.tl._training.identity import (
    argument_parts,
    begin_run,
    check_arguments,
    check_identity,
    identify,
    stated_recipe,
)
from spatialwhisperer.tl._training.inputs import Inputs, ModalityInputs
from spatialwhisperer.training.batches import Items
from spatialwhisperer.training.resuming.run_identity import RunIdentity
from spatialwhisperer.training.trainer import trainer_options

if TYPE_CHECKING:
    from pathlib import Path

WIDTHS = {"gene": 5, "text": 4}
N = 12


def identity(trainer: dict[str, Any] | None = None, *, held_out: bool = False, **of_plan: Any) -> RunIdentity:
    """Identity of a run on random features."""
    rng = np.random.default_rng(0)
    raw = {m: rng.normal(size=(N, d)).astype(np.float32) for m, d in WIDTHS.items()}
    modalities = {m: ModalityInputs(raw[m], FeatureRecipe(None, m), d, "none") for m, d in WIDTHS.items()}
    at = np.arange(N)
    items = Items(raw, dict.fromkeys(WIDTHS, at), at, np.full(N, "p"))
    inputs = Inputs(items, modalities, ["a", "b"], pd.DataFrame({"section": ["s"] * N}))
    preset = get_preset("spatialwhisperer")
    training = Training(preset.name, "strict", "joint", None, "LLL", {}, ("p",), (), 0)
    options = trainer_options({"accelerator": "cpu", **(trainer or {})})
    plan = Plan(preset, preset.joint, "joint", None, {("gene", "text"): 1.0}, training, 3, 0, options)
    validation = items.subset(at[:3]) if held_out else None
    requests: dict[str, Any] = {"gene": GeneFeatures("pca"), "text": None}
    plan = replace(plan, **of_plan)
    arguments = argument_parts(plan.preset, requests, set(), plan.random_state, plan.trainer)
    return identify(arguments, inputs, items, validation, plan, expression=None, values=None)


def test_the_same_run_has_the_same_identity() -> None:
    assert identity().differences(identity()) == []
    assert identity().digest == identity().digest


def test_epochs_are_no_part_of_the_identity() -> None:
    longer = get_preset("spatialwhisperer").replace(max_epochs=999, min_steps=7)
    assert identity(max_epochs=9, preset=longer).differences(identity()) == []


@pytest.mark.parametrize(
    "trainer",
    [
        {"enable_progress_bar": True},
        {"callbacks": [Callback()]},
        {"log_every_n_steps": 1},
        {"max_time": "00:01:00:00"},
        {"devices": [0]},
    ],
)
def test_what_shapes_no_numbers_is_no_part_of_the_identity(trainer: dict[str, Any]) -> None:
    assert identity(trainer).differences(identity()) == []


@pytest.mark.parametrize(
    ("trainer", "name"),
    [
        ({"precision": "64-true"}, "precision"),
        ({"devices": 2}, "devices"),
        ({"num_nodes": 2}, "num_nodes"),
        ({"strategy": "ddp"}, "strategy"),
        ({"gradient_clip_val": 1.0}, "gradient_clip_val"),
        ({"limit_train_batches": 2}, "limit_train_batches"),
        ({"plugins": [object()]}, "plugins"),
        ({"accelerator": "gpu", "precision": "32-true"}, "accelerator"),
    ],
)
def test_what_shapes_numbers_is_part_of_the_identity(trainer: dict[str, Any], name: str) -> None:
    assert [text.split(":")[0] for text in identity(trainer).differences(identity())] == [f"trainer.{name}"]


def test_augmentation_is_part_of_the_identity_where_the_image_encoder_is_trained() -> None:
    frozen, trained = get_preset("spatialwhisperer"), get_preset("spatialwhisperer").replace(locking="LLU")
    assert identity(preset=frozen.replace(augmentation=None)).differences(identity(preset=frozen)) == []
    assert "augmentation" not in identity(preset=frozen).parts["preset"]
    names = {
        text.split(":")[0]
        for text in identity(preset=trained.replace(augmentation=Augmentation(hue=0.1))).differences(
            identity(preset=trained)
        )
    }
    assert names == {"preset.augmentation.hue"}


def test_held_out_rows_are_part_of_the_identity() -> None:
    names = {text.split(":")[0] for text in identity(held_out=True).differences(identity())}
    assert names == {f"data.validation.{name}" for name in ("items", "rows", "gene", "text")}


def test_the_identity_is_written_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_identity(identity(), tmp_path, resume=True)
    begin_run(identity(), tmp_path)
    check_identity(identity(max_epochs=9), tmp_path, resume=True)
    other = identity(random_state=1)
    check_identity(other, tmp_path, resume=False)
    with pytest.raises(ValueError, match="random_state: 0 before, 1 now"):
        check_identity(other, tmp_path, resume=True)
    check_arguments({"random_state": 0}, tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"random_state: 0 before, 1 now\n\(The data"):
        check_arguments({"random_state": 1}, tmp_path, resume=True)
    # a process that the first one has started joins its run, and writes nothing
    monkeypatch.setenv("LOCAL_RANK", "1")
    check_identity(other, tmp_path, resume=True)
    begin_run(other, tmp_path)
    found = RunIdentity.read(tmp_path)
    assert found is not None
    assert found.digest == identity().digest


def test_other_versions_of_packages_are_said(tmp_path: Path) -> None:
    mine = identity()
    versions = {**mine.remarks["versions"], "torch": "1.0"}
    RunIdentity(mine.parts, {"versions": versions}).write(tmp_path)
    with pytest.warns(SpatialWhispererWarning, match=r"begun with torch 1.0 \(now "):
        check_identity(mine, tmp_path, resume=True)


def test_a_run_with_an_encoder_that_cannot_be_read_can_be_resumed() -> None:
    """Its digest is never the same, and its features are compared."""
    one, again = (FeatureRecipe(EncoderIdentity("mine", digest=object_digest(n for n in [1]))) for _ in range(2))
    assert one != again
    assert stated_recipe(one) == stated_recipe(again)
    known = FeatureRecipe(EncoderIdentity("mine", digest=object_digest([1])))
    assert stated_recipe(known) == known
