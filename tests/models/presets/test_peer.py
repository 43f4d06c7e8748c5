"""The protocol "peer" states what the published code does."""

from __future__ import annotations

from typing import Any

import pytest

import spatialwhisperer as sw
from spatialwhisperer.models.presets.catalogue import PRESETS
from spatialwhisperer.models.presets.peer import PEER


def peer(name: str) -> sw.models.Preset:
    return sw.models.get_preset(name, "peer")


def test_every_published_method_has_an_entry() -> None:
    assert set(PEER) == set(PRESETS) - {"whisperer"}
    assert all(peer(name).protocol == "peer" for name in PRESETS)


@pytest.mark.parametrize("name", ["bleep", "heclip-hvg", "heclip-heg"])
def test_bleep_and_heclip_train_their_network_and_choose_the_epoch(name: str) -> None:
    preset = peer(name)
    assert (preset.image_encoder, preset.locking) == ("resnet50", "LLU")
    recipe = preset.joint
    assert (recipe.decay, recipe.weight_decay, recipe.select) == ("all", 1e-3, "best")
    assert (recipe.learning_rate, recipe.tower_learning_rate, recipe.batch_size) == (1e-3, 1e-3, 128)


def test_mclstexp_keeps_the_last_batch_and_penalises_in_the_gradient() -> None:
    recipe = peer("mclstexp").joint
    assert (recipe.optimizer, recipe.last_batch, recipe.max_epochs) == ("adam", "keep", 90)
    assert (recipe.learning_rate, recipe.tower_learning_rate) == (1e-4, 1e-4)


def test_spatialwhisperer_is_the_published_one() -> None:
    preset = peer("spatialwhisperer")
    assert (preset.image_encoder, preset.gene_encoder, preset.text_encoder) == ("uni2-h", "geneformer", "biobert")
    assert (preset.locking, preset.schedule) == ("LUL", "joint")
    assert set(preset.standardize.values()) == {"none"}
    recipe = preset.joint
    assert (recipe.projection_dim, recipe.batch_size, recipe.max_epochs) == (2048, 512, 4)
    assert (recipe.learning_rate, recipe.tower_learning_rate, recipe.warmup) == (1e-5, 1e-5, 0.03)
    assert (recipe.mixture, recipe.weight_decay, recipe.betas) == ("natural", 0.0, (0.9, 0.98))


def test_omiclip_is_tuned_in_small_steps() -> None:
    recipe = peer("omiclip-predex").joint
    assert (recipe.learning_rate, recipe.weight_decay, recipe.warmup, recipe.max_epochs) == (5e-6, 0.1, 10, 5)


def test_omiclip_leaves_symbols_with_a_dot_or_a_hyphen_out_of_its_sentences() -> None:
    assert dict(peer("omiclip-predex").gene_options) == {"n_top_genes": None, "drop": "peer"}
    assert dict(sw.models.get_preset("omiclip-predex").gene_options) == {"n_top_genes": None}
    row: Any = sw.models.compare_protocols().loc[("omiclip-predex", "gene encoder")]
    published, theirs, ours = row.tolist()
    assert "housekeeping" in published
    assert "housekeeping" not in theirs
    assert theirs == "gene_sentence, without symbols with '.' or '-', frozen"
    assert ours == "gene_sentence, frozen"


def test_tpirbae_has_the_likelihood_of_scvi_tools() -> None:
    for name in ("tpirbae-scvi-clip", "tpirbae-scanvi-soft"):
        assert dict(peer(name).gene_options) == {"n_latent": 10, "gene_likelihood": "zinb"}
