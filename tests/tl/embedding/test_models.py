"""The model of a call, and its encoders."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import spatialwhisperer as sw
from spatialwhisperer.encoders.image.stain_texture import StainTextureEncoder
from spatialwhisperer.encoders.recipe import EncoderIdentity, FeatureRecipe
from spatialwhisperer.tl._embedding.models import describe_model, encoder_of, open_model

if TYPE_CHECKING:
    from pathlib import Path

    from spatialwhisperer.models.whisperer import Whisperer


def test_a_model_may_be_open_in_a_folder_or_left_out(given: Whisperer, tmp_path: Path) -> None:
    assert open_model(given) is given
    assert open_model(None) is sw.models.default_model()
    assert open_model("her2st-mini").config == sw.models.default_model().config
    with pytest.raises(FileNotFoundError, match="holds no model"):
        open_model(tmp_path)
    with pytest.raises(TypeError, match="a Whisperer, a folder or a hub name, not dict"):
        open_model({})  # type: ignore[arg-type]


def test_a_model_is_described_by_plain_values(given: Whisperer) -> None:
    assert describe_model(given) == {
        "folder": None,
        "encoders": {"image": "X_tiles", "gene": "X_genes", "text": "letters"},
    }
    embedded = describe_model(sw.models.default_model())
    assert json.loads(json.dumps(embedded)) == embedded
    assert embedded["encoders"]["image"] == "stain_texture"
    assert embedded["preset"] == "whisperer"
    assert set(embedded["pairs"]) == {"image–gene", "gene–text"}


def test_the_encoder_that_the_model_holds_is_used(given: Whisperer, letters: Any) -> None:
    assert encoder_of(given, "text") is letters


def test_a_registered_encoder_is_opened_once_by_its_name(given: Whisperer) -> None:
    recipe = FeatureRecipe(EncoderIdentity("stain_texture"), "X_stain_texture", (80.0,), 64)
    given.config = given.config.with_modality("image", features=recipe)
    encoder = encoder_of(given, "image")
    assert isinstance(encoder, StainTextureEncoder)
    assert encoder_of(given, "image") is encoder


@pytest.mark.parametrize(
    "identity", [EncoderIdentity("no_such_encoder"), EncoderIdentity("stain_texture", digest="0"), None]
)
def test_other_encoders_must_be_passed(given: Whisperer, identity: EncoderIdentity | None) -> None:
    given.config = given.config.with_modality("image", features=FeatureRecipe(identity, "X_tiles"))
    with pytest.raises(ValueError, match=r"encoders=\{'image': …\}"):
        encoder_of(given, "image")
