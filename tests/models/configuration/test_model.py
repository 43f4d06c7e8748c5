"""What a model is, as values: they survive JSON, and what does not fit is refused."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from spatialwhisperer.encoders.recipe import EncoderIdentity, FeatureRecipe
from spatialwhisperer.models.configuration.annotation import Annotation
from spatialwhisperer.models.configuration.model import (
    Card,
    ContextConfig,
    HeadConfig,
    ModalityConfig,
    ModelConfig,
    Training,
)

IMAGE = ModalityConfig(
    FeatureRecipe(EncoderIdentity("stain_texture"), "X_stain_texture", (100.0, 300.0), 64),
    158,
    HeadConfig("linear_norm", 316, 0.1),
    ContextConfig("section_mean", {"n_neighbours": 4}),
    "section",
)
GENE = ModalityConfig(FeatureRecipe(EncoderIdentity("pca", digest="0f")), 32, HeadConfig("none", 32))
TRAINING = Training(
    preset="bleep",
    protocol="strict",
    schedule="joint",
    image_link=None,
    locking="LLL",
    pairs={"image–gene": 240},
    groups=("P1", "P2"),
    validation_groups=(),
    random_state=0,
    penalties={"image": 10.0},
)
CARD = Card(
    "größer", "tissue", "use", "data", ("s1",), (), ("P1",), {"preset": ["a", 1]}, 0, {"her2st": 0.9}, {}, "make"
)
FULL = ModelConfig(
    32,
    {"gene": GENE, "image": IMAGE},
    temperature=1.0,
    norm="none",
    decoder_dim=9,
    labels=("fat", "B/plasma cell"),
    training=TRAINING,
    annotation=Annotation("softmax", 0.3, "section", 0.01, 0.1, 120, ("fat",)),
    card=CARD,
)
SMALL = ModelConfig(8, {"gene": GENE})


@pytest.mark.parametrize("config", [FULL, SMALL])
def test_it_comes_back_from_json_equal(config: ModelConfig) -> None:
    again = ModelConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again == config
    assert again.to_json() == config.to_json()


def test_that_of_the_embedded_model_comes_back_too() -> None:
    import spatialwhisperer as sw

    config = sw.models.default_model().config
    assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize("again", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_copies_are_equal(again: Any) -> None:
    assert again(FULL) == FULL
    assert hash(again(SMALL)) == hash(SMALL)


def test_nothing_in_it_can_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        FULL.projection_dim = 3  # type: ignore[misc]
    one: Any
    for one in (FULL, ModelConfig.from_json(FULL.to_json())):
        for mapping in (one.modalities, one.training.pairs, one.modalities["image"].context.options, one.card.recipe):
            with pytest.raises(TypeError, match="item assignment"):
                mapping["x"] = 1


def test_a_modality_is_found_or_the_others_are_named() -> None:
    assert FULL.modality("image").features.tile_um == (100.0, 300.0)
    with pytest.raises(KeyError, match="no modality 'text' .*gene, image"):
        FULL.modality("text")


def test_values_of_one_modality_are_changed_in_a_copy() -> None:
    changed = FULL.with_modality("image", standardize="global", head=HeadConfig("linear", 316))
    assert (changed.modality("image").standardize, changed.modality("image").head.kind) == ("global", "linear")
    assert changed.modality("gene") == GENE
    assert FULL.modality("image") == IMAGE
    with pytest.raises(KeyError, match="no modality 'text'"):
        FULL.with_modality("text", standardize="global")
    with pytest.raises(TypeError, match="standardise"):
        FULL.with_modality("image", standardise="global")


def test_only_one_context_takes_array_positions() -> None:
    assert ContextConfig("batch_peer").array_positions
    assert not ContextConfig("section_mean").array_positions


def changed(path: str, value: Any) -> dict[str, Any]:
    plain = json.loads(json.dumps(FULL.to_json()))
    *outer, last = path.split("/")
    inner = plain
    for key in outer:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return plain


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("projection_dim", ..., "projection_dim: Field required"),
        ("projection_dim", "32", "projection_dim: Input should be a valid integer"),
        ("note", "x", "note: Unexpected keyword argument"),
        ("norm", "l1", "norm: Input should be 'l2' or 'none'"),
        ("labels", "fat", "labels: "),
        ("modalities", [], "modalities: "),
        ("modalities/image/features/tile_um", [100, "300"], "modalities.image.features.tile_um.1: "),
        (
            "modalities/image/features/border",
            "crop",
            "modalities.image.features.border: Input should be 'pad' or 'nan'",
        ),
        ("modalities/image/head", {"kind": "linear"}, "modalities.image.head.in_dim: Field required"),
        ("modalities/image/head/hidden", 3, "modalities.image.head.hidden: Unexpected"),
        ("modalities/image/trained", 1, "modalities.image.trained: Input should be a valid boolean"),
        ("modalities/image/context/options/n_neighbours", [4], "modalities.image.context.options.n_neighbours"),
        ("modalities/gene/features/encoder", "pca", "modalities.gene.features.encoder: "),
        ("training/groups", ["P1", 2], "training.groups.1: "),
        ("training/pairs", {"image–gene": 1.5}, "training.pairs.image–gene: "),
        ("annotation/temperature", None, "annotation.temperature: "),
        ("card/name", ..., "card.name: Field required"),
    ],
)
def test_what_does_not_fit_is_named(path: str, value: Any, message: str) -> None:
    with pytest.raises(
        ValueError, match=f"The configuration of a model does not fit this version of the package: {message}"
    ):
        ModelConfig.from_json(changed(path, value))


def test_options_of_a_context_keep_their_kind() -> None:
    options: dict[str, Any] = {"n": 4, "rate": 0.5, "name": "x", "on": True}
    context = ContextConfig("section_knn", options)
    config = ModelConfig(8, {"image": replace(IMAGE, context=context)})
    again = ModelConfig.from_json(json.loads(json.dumps(config.to_json())))
    read = again.modalities["image"].context.options  # type: ignore[union-attr]
    assert dict(read) == options
    assert [type(v) for v in read.values()] == [int, float, str, bool]


@pytest.mark.parametrize("dropout", [-0.01, 1.01, "0.5"])
def test_dropout_is_a_number_between_0_and_1(dropout: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="dropout must be a number|dropout"):
        HeadConfig("linear", 8, dropout)
    with pytest.raises((TypeError, ValueError), match="dropout"):
        ContextConfig("section_knn", {"dropout": dropout})
    assert HeadConfig("linear", 8, 1.0).dropout == 1
