from __future__ import annotations

import subprocess
import sys

import pytest

from spatialwhisperer.encoders import registry
from spatialwhisperer.encoders.registry import EncoderSpec, get_spec, list_encoders, register_encoder


@pytest.fixture
def clean_registry(monkeypatch):
    monkeypatch.setattr(registry, "_ENCODERS", dict(registry._ENCODERS))


def test_the_table_lists_every_modality_and_its_licence():
    table = list_encoders()
    assert {"stain_texture", "uni2-h", "scvi", "pca", "minilm"} <= set(table.index)
    assert set(list_encoders("text").index) == {"minilm", "biobert"}
    assert table.loc["minilm", "dim"] == 384
    assert table.loc["uni2-h", "gated"]
    assert not table.loc["uni2-h", "commercial"]


def test_an_unknown_modality_is_refused():
    with pytest.raises(ValueError, match="image, gene, text"):
        list_encoders("sound")
    with pytest.raises(ValueError, match="image, gene, text"):
        get_spec("pca", "sound")
    with pytest.raises(ValueError, match="modality"):
        EncoderSpec("x", "sound", 3)


def test_half_a_normalisation_is_refused():
    with pytest.raises(ValueError, match="mean and std"):
        EncoderSpec("x", "image", 3, mean=(0.5, 0.5, 0.5))


def test_registering_twice_needs_overwrite(clean_registry):  # noqa: ARG001
    register_encoder(EncoderSpec("mine", "gene", 8))
    with pytest.raises(ValueError, match="overwrite=True"):
        register_encoder(EncoderSpec("mine", "gene", 9))
    register_encoder(EncoderSpec("mine", "gene", 9), overwrite=True)
    assert get_spec("mine").dim == 9
    with pytest.raises(TypeError, match="EncoderSpec"):
        register_encoder("mine")


def test_any_timm_id_has_a_spec():
    spec = get_spec("vit_tiny_patch16_224")
    assert (spec.modality, spec.input_px, spec.mean) == ("image", 224, (0.5, 0.5, 0.5))
    assert get_spec("resnet50.a1_in1k").commercial


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "vit_small_patch16_224", "vit_small_patch16_224.dino"])
def test_registered_timm_facts_are_those_of_timm(name):
    ours, timm_s = get_spec(name), registry._timm_spec(name)
    assert (ours.input_px, ours.mean, ours.std, ours.licence) == (
        timm_s.input_px,
        timm_s.mean,
        timm_s.std,
        timm_s.licence,
    )


@pytest.mark.parametrize(
    ("name", "modality", "hint"), [("resnet5", None, "resnet50"), ("uni2", "image", "uni2-h"), ("scv", "gene", "scvi")]
)
def test_an_unknown_name_lists_close_ones(name, modality, hint):
    with pytest.raises(ValueError, match=f"Did you mean.*{hint}"):
        get_spec(name, modality)


def test_reading_the_registry_does_not_import_torch():
    code = (
        "import sys; from spatialwhisperer.encoders.registry import get_spec; get_spec('uni2-h'); "
        "sys.exit('torch' in sys.modules or 'numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
