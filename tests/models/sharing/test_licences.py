"""Whose weights a model holds, and whether they may be published with it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("transformers")
import torch

import spatialwhisperer as sw
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer.encoders.image.networks.module import ModuleEncoder
from spatialwhisperer.encoders.recipe import EncoderIdentity, FeatureRecipe
from spatialwhisperer.models import EncoderSpec, ModelConfig, Whisperer
from spatialwhisperer.models.configuration.model import HeadConfig, ModalityConfig
from spatialwhisperer.models.sharing.licences import Part, check_may_be_passed_on, parts_of

if TYPE_CHECKING:
    from pathlib import Path

    from spatialwhisperer.models.sharing.licences import Held
    from tests.loopback_hub import LoopbackHub


@pytest.mark.parametrize(
    ("licence", "gated", "held", "may"),
    [
        ("CC-BY-NC-ND-4.0", True, "no", True),
        ("CC-BY-NC-ND-4.0", True, "trained", False),
        ("CC-BY-NC-ND-4.0", True, "copied", False),
        ("CC-BY-NC-ND-4.0", False, "trained", False),
        ("CC-BY-NC-ND-4.0", False, "copied", None),
        ("apache-2.0", True, "trained", True),
        ("apache-2.0 with conditions", True, "trained", False),
        ("apache-2.0", False, "copied", True),
        ("CC-BY-NC-4.0", False, "trained", True),
        ("GPL-3.0", False, "trained", True),
        ("unknown", False, "trained", None),
        ("unknown", False, "fitted", True),
        ("not stated", False, "copied", None),
        ("Owkin non-commercial", False, "trained", None),
    ],
)
def test_the_licence_decides_about_what_the_model_holds(
    licence: str, gated: bool, held: Held, may: bool | None
) -> None:
    assert Part("image", EncoderSpec("e", "image", 3, licence=licence, gated=gated), held).may_be_passed_on is may


def test_the_first_that_is_forbidden_stops_it_and_the_unknown_ones_are_named() -> None:
    free, mine, uni = (
        Part("gene", EncoderSpec("g", "gene", 3, licence="mit"), "copied"),
        Part("text", EncoderSpec("mine", "text", 3), "trained"),
        Part("image", sw.models.get_spec("uni", "image"), "trained"),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_may_be_passed_on([free])
    with pytest.warns(
        UserWarning,
        match=r"nothing is known that allows.*text encoder 'mine' \(in this folder, trained further; licence: unknown\)",
    ):
        check_may_be_passed_on([free, mine])
    with pytest.raises(
        ValueError, match=r"may not be passed on: image encoder 'uni' .*CC-BY-NC-ND-4.0, gated.*Nothing was sent"
    ):
        check_may_be_passed_on([free, mine, uni])


def trained_on(name: str, licence: str, *, gated: bool) -> Whisperer:
    """A model that trained an image encoder further."""

    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x.mean((2, 3)))

    three = (0.5, 0.5, 0.5)
    encoder = ModuleEncoder(Small(), EncoderSpec(name, "image", 5, mean=three, std=three, licence=licence, gated=gated))
    modalities = {
        "image": ModalityConfig(
            FeatureRecipe(encoder.identity, tile_um=(80.0,), tile_px=32), 5, HeadConfig("linear", 5), trained=True
        ),
        "gene": ModalityConfig(FeatureRecipe(None, "X_b"), 6, HeadConfig("linear", 6)),
    }
    return Whisperer(ModelConfig(4, modalities), encoders={"image": encoder})


def test_a_model_with_such_weights_is_not_sent_and_can_still_be_saved(hub: LoopbackHub, tmp_path: Path) -> None:
    model = trained_on("uni2-h", "CC-BY-NC-ND-4.0", gated=True)
    with pytest.raises(ValueError, match="image encoder 'uni2-h'.*Nothing was sent. Train with that encoder locked"):
        model.push_to_hub("owner/name")
    assert hub.asked == []
    model.save(tmp_path / "m")
    assert "CC-BY-NC-ND-4.0, gated" in (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    trained_on("free", "mit", gated=False).push_to_hub("owner/name")
    assert "config.json" in hub.repositories["owner/name"].files


def test_a_frozen_gated_encoder_is_named_and_not_sent(hub: LoopbackHub) -> None:
    modalities = {
        "image": ModalityConfig(
            FeatureRecipe(EncoderIdentity("uni2-h"), tile_um=(112.0,), tile_px=224), 1536, HeadConfig("linear", 1536)
        ),
        "gene": ModalityConfig(FeatureRecipe(None, "X_b"), 6, HeadConfig("linear", 6)),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error", SpatialWhispererWarning)
        Whisperer(ModelConfig(4, modalities)).push_to_hub("owner/name")
    card = hub.repositories["owner/name"].files["README.md"].decode()
    assert (
        "| image encoder `uni2-h` | CC-BY-NC-ND-4.0, gated: access is granted by its authors | no | not in this folder; opened by its name |"
        in card
    )


def test_stored_weights_are_told_from_named_and_fitted_ones(folders: dict[str, Path]) -> None:
    def held(name: str) -> dict[str, Any]:
        model = Whisperer.load(folders[name])
        return {part.modality: part.held for part in model._licensed(model.artifact())}

    assert held("embedded") == {"gene": "fitted", "image": "no", "text": "no"}
    assert held("trained text") == {"gene": "fitted", "image": "no", "text": "trained"}
    assert held("trained image") == {"gene": "no", "image": "trained", "text": "copied"}


def test_features_from_elsewhere_and_unknown_names_have_no_facts() -> None:
    modalities = {
        "image": ModalityConfig(FeatureRecipe(None, "X_a"), 6, HeadConfig("linear", 6)),
        "text": ModalityConfig(FeatureRecipe(EncoderIdentity("no such", digest="0")), 6, HeadConfig("linear", 6)),
    }
    (part,) = parts_of(ModelConfig(4, modalities), ["text"])
    assert (part.modality, part.spec.licence, part.held, part.may_be_passed_on) == ("text", "unknown", "copied", None)
