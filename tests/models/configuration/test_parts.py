"""Presets are values; what does not fit together is refused when it is put together."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest

from spatialwhisperer.models.configuration.parts import Context, Expression, PairLoss, Preset
from spatialwhisperer.models.presets.catalogue import PRESETS

BLEEP, SW, WHISPERER = PRESETS["bleep"], PRESETS["spatialwhisperer"], PRESETS["whisperer"]


def test_parts_are_values() -> None:
    assert isinstance(BLEEP, Preset)
    assert replace(BLEEP, norm="l2") != BLEEP
    assert replace(BLEEP) == BLEEP
    assert Expression() == Expression()
    with pytest.raises(FrozenInstanceError):
        BLEEP.norm = "l2"  # type: ignore[misc]
    with pytest.raises(TypeError, match="item assignment"):
        BLEEP.joint.heads["gene"] = "none"  # type: ignore[index]
    assert Context().modalities == ()
    assert not Context().array_positions
    assert Context("batch_peer").array_positions


@pytest.mark.parametrize("name", list(PRESETS))
@pytest.mark.parametrize("again", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_copies_are_equal(name: str, again: Any) -> None:
    assert again(PRESETS[name]) == PRESETS[name]
    assert hash(again(PRESETS[name])) == hash(PRESETS[name])


# ------------------------------------------------------------------------------------------------- replace


def test_values_of_the_preset_and_of_its_recipes_are_changed() -> None:
    changed = SW.replace(locking="LUL", learning_rate=1e-5, batch_size=7, norm="none")
    assert (changed.locking, changed.norm) == ("LUL", "none")
    for recipe in (changed.joint, changed.sequential):
        assert recipe is not None
        assert (recipe.learning_rate, recipe.batch_size) == (1e-5, 7)
    # the rest stays, of each its own
    assert (changed.joint.max_epochs, changed.joint.heads) == (SW.joint.max_epochs, SW.joint.heads)
    assert changed.sequential.projection_dim == 64  # type: ignore[union-attr]
    assert changed.joint.projection_dim == 512
    assert SW.joint.learning_rate == 1e-3
    assert SW.replace() == SW


def test_a_preset_of_one_schedule_keeps_one() -> None:
    changed = BLEEP.replace(max_epochs=3)
    assert changed.joint.max_epochs == 3
    assert changed.sequential is None


def test_a_new_recipe_is_changed_too() -> None:
    changed = BLEEP.replace(joint=replace(BLEEP.joint, weight_decay=0.5), batch_size=9)
    assert (changed.joint.weight_decay, changed.joint.batch_size) == (0.5, 9)


def test_pairs_may_be_listed_without_weights() -> None:
    changed = SW.replace(pairs=[("image", "gene")])
    assert changed.pairs == {("image", "gene"): 1.0}
    assert SW.replace(pairs={("image", "gene"): 2, ("gene", "text"): 0}).pairs[("gene", "text")] == 0
    assert hash(changed) == hash(SW.replace(pairs={("image", "gene"): 1.0}))


@pytest.mark.parametrize(
    ("name", "hint"),
    [("lerning_rate", "learning_rate"), ("lockin", "locking"), ("batchsize", "batch_size"), ("schedul", "schedule")],
)
def test_a_misspelt_name_is_suggested(name: str, hint: str) -> None:
    with pytest.raises(
        TypeError, match=f"A preset has no '{name}'. Did you mean '{hint}'\\? It has .*batch_size, .*warmup"
    ):
        SW.replace(**{name: 1})


def test_a_name_like_no_other_lists_what_there_is() -> None:
    with pytest.raises(TypeError, match="A preset has no 'xyzzy'. It has .*learning_rate"):
        SW.replace(xyzzy=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"locking": "LL"}, "locking must be three letters of L, U and u"),
        ({"locking": "LLX"}, "locking must be three letters of L, U and u"),
        ({"pairs": []}, "names no pair with a weight above 0"),
        ({"pairs": {("image", "gene"): 0}}, "names no pair with a weight above 0"),
        ({"pairs": {("image", "gene"): -1}}, "must not be negative"),
        ({"pairs": [("image", "image")]}, "two different modalities"),
        ({"pairs": [("image", "gene", "text")]}, "two different modalities"),
        ({"pairs": [("image", "sound")]}, "There is no modality 'sound'"),
        ({"schedule": "both"}, "schedule must be 'joint' or 'sequential', not 'both'"),
        ({"image_link": "lasso"}, "image_link must be 'ridge' or 'contrastive', not 'lasso'"),
        ({"schedule": "joint", "image_link": "ridge"}, "image_link applies to schedule='sequential'"),
        ({"image_link": "ridge", "locking": "LLU"}, "image_link='ridge' needs frozen image features"),
        ({"batch_size": 1}, "batch_size must be at least 2; found 1"),
        ({"max_epochs": 0}, "max_epochs must be at least 1; found 0"),
        ({"projection_dim": 0}, "projection_dim must be at least 1; found 0"),
        ({"learning_rate": -1e-3}, "learning_rate must be a number of at least 0, not -0.001"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number of at least 0, not nan"),
        ({"tower_learning_rate": -1}, "tower_learning_rate must be a number of at least 0, not -1"),
        ({"weight_decay": -5}, "weight_decay must be a number of at least 0, not -5"),
        ({"min_steps": -5}, "min_steps must be a number of at least 0, not -5"),
        ({"regression_weight": -1}, "regression_weight must be a number of at least 0, not -1"),
        ({"final_learning_rate": -1}, "final_learning_rate must be a number between 0 and 1, not -1"),
        ({"neighbour_weight": 2}, "neighbour_weight must be a number between 0 and 1, not 2"),
        ({"betas": (0.9, 1.0)}, r"betas must be two numbers from 0 to below 1; found \(0.9, 1.0\)"),
        ({"dropout": {"genes": 0.9}}, "dropout names genes; the heads are of"),
        ({"optimizer": "sgd"}, "optimizer must be 'adamw' or 'adam', not 'sgd'"),
        ({"optimizer": "Adam"}, "optimizer must be 'adamw' or 'adam', not 'Adam'"),
        ({"text_loss": "mse"}, "text_loss must be 'info_nce' or 'sigmoid', not 'mse'"),
    ],
)
def test_values_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SW.replace(**changes)


def test_a_preset_without_a_sequential_schedule_takes_none() -> None:
    with pytest.raises(ValueError, match="The preset 'bleep' has no sequential schedule; use schedule='joint'"):
        BLEEP.replace(schedule="sequential")
    with pytest.raises(ValueError, match="image_link applies to schedule='sequential'"):
        BLEEP.replace(image_link="ridge")


def test_a_closed_form_has_the_dimension_of_its_features() -> None:
    assert WHISPERER.solved_in_closed_form
    with pytest.raises(
        ValueError, match="projection_dim: .*the joint space is that of the gene features. Add schedule='joint'"
    ):
        WHISPERER.replace(projection_dim=32)
    for changes in ({"schedule": "joint"}, {"image_link": "contrastive"}, {"locking": "LLU"}):
        assert not WHISPERER.replace(**changes).solved_in_closed_form
        assert WHISPERER.replace(**changes, projection_dim=32).joint.projection_dim == 32
    assert not SW.solved_in_closed_form


# ------------------------------------------------------------------------------------------------- what a preset says


def test_letters_stand_for_gene_text_and_image() -> None:
    preset = SW.replace(locking="LUu")
    assert [preset.letter(m) for m in ("gene", "text", "image", "protein")] == ["L", "U", "u", "L"]


def test_the_bridge_is_what_all_pairs_have_in_common() -> None:
    assert SW.bridge == BLEEP.bridge == "gene"
    assert SW.replace(pairs=[("image", "text")]).bridge is None
    assert SW.replace(pairs=[("image", "gene"), ("image", "text")]).bridge is None
    assert SW.replace(pairs=[("image", "gene"), ("gene", "text"), ("image", "text")]).bridge is None


def test_a_head_that_is_missing_says_how_to_name_one() -> None:
    assert SW.joint.head("image") == "bn_shortcut"
    with pytest.raises(
        ValueError, match=r"no head for 'protein' \(it has: gene, text, image\). Name one: preset.replace\(heads="
    ):
        SW.joint.head("protein")
    named = SW.replace(heads={**SW.joint.heads, "protein": "linear_norm"})
    assert named.joint.head("protein") == "linear_norm"


def test_losses_are_those_of_plain_contrastive_learning_by_default() -> None:
    assert (PairLoss().lam, PairLoss().targets, PairLoss().negatives_scope) == (0.5, "identity", "global")


@pytest.mark.parametrize("pairs", [7, None, "image", ["image"], [7], {"image": 1}, np.datetime64("2024-01-01")])
def test_pairs_are_pairs(pairs: Any) -> None:
    with pytest.raises(TypeError, match="pairs must be pairs of modalities"):
        BLEEP.replace(pairs=pairs)
