"""What a model says about itself, in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spatialwhisperer.encoders.recipe import EncoderIdentity, FeatureRecipe
from spatialwhisperer.models.card import describe, introduction
from spatialwhisperer.models.configuration.model import (
    Card,
    ContextConfig,
    HeadConfig,
    ModalityConfig,
    ModelConfig,
    Training,
)

GENE = ModalityConfig(FeatureRecipe(EncoderIdentity("pca", digest="0")), 32, HeadConfig("linear_norm", 32))
IMAGE = ModalityConfig(
    FeatureRecipe(None, "X_mine"), 10, HeadConfig("rmlp", 20), ContextConfig("section_mean", {"n_neighbours": 4})
)
TEXT = ModalityConfig(FeatureRecipe(EncoderIdentity("tiny")), 16, HeadConfig("linear", 16), trained=True)
CONFIG = ModelConfig(64, {"gene": GENE, "image": IMAGE, "text": TEXT})
TRAINING = Training("bleep", "strict", "joint", None, "LUL", {"image–gene": 240, "gene–text": 250}, ("P1", "P2"), (), 0)
CARD = Card("mini", "breast", "use", "data", ("a", "b"), ("b", "c"), ("P1", "P2"), {}, 0, {}, {}, "make")


def test_every_part_has_a_line() -> None:
    assert describe(CONFIG).splitlines() == [
        "Whisperer: gene + image + text in 64 dimensions",
        "  gene: pca (32) -> linear_norm",
        "  image: X_mine (10) -> section_mean -> rmlp",
        "  text: tiny, trained (16) -> linear",
    ]
    lines = describe(replace(CONFIG, training=TRAINING), "9 genes").splitlines()
    assert lines[-2:] == ["  expression: 9 genes", "  trained joint on 240 image–gene, 250 gene–text; groups: P1, P2"]


def test_many_groups_are_counted() -> None:
    groups = tuple(f"P{i}" for i in range(20))
    assert "P7, … (20 in all)" in describe(replace(CONFIG, training=replace(TRAINING, groups=groups)))


@pytest.mark.parametrize(
    ("mpp", "words"),
    [
        ((0.69, 3.19), ", images of 0.69–3.2 µm per pixel"),
        ((0.5, 0.5), ", images of 0.5 µm per pixel"),
        (None, ""),
    ],
)
def test_a_card_is_one_line(mpp: tuple[float, float] | None, words: str) -> None:
    said = introduction(replace(CONFIG, card=CARD), mpp)
    assert said == f"mini: 3 sections of 2 patients, breast{words}; not for diagnosis"


def test_a_model_without_a_card_says_so() -> None:
    assert introduction(CONFIG, None) == "A model without a card; not for diagnosis"
