"""Opening, listing and suggesting encoders by name."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from spatialwhisperer._modalities import MODALITIES, Modality
from spatialwhisperer.encoders import catalogue
from spatialwhisperer.encoders.catalogue import (
    encoder_class,
    encoder_names,
    get_spec,
    list_encoders,
    open_encoder,
    opens_by_name,
    stored_class,
)
from spatialwhisperer.encoders.image import timm as timm_file
from spatialwhisperer.encoders.image.timm import TimmEncoder
from spatialwhisperer.encoders.registry import ENTRIES, load_own
from spatialwhisperer.encoders.text.transformer import TransformerEncoder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_the_table_lists_every_modality_and_its_licence() -> None:
    table = list_encoders()
    assert {"stain_texture", "uni2-h", "scvi", "pca", "minilm"} <= set(table.index)
    assert {"minilm", "biobert", "pubmedbert"} <= set(list_encoders("text").index)
    assert table.loc["minilm", "dim"] == 384
    assert table.loc["uni2-h", "gated"]
    assert not table.loc["uni2-h", "commercial"]
    # a model of images and texts has one encoder of each, by one name
    assert not table.reset_index().duplicated(["name", "modality"]).any()
    for modality in table["modality"].unique():
        assert list_encoders(modality).index.is_unique


@pytest.mark.parametrize(
    "first",
    [
        lambda: encoder_class("pca", "gene"),
        lambda: stored_class("pca", "gene"),
        lambda: opens_by_name("pca", "gene"),
        lambda: encoder_names("gene"),
        lambda: get_spec("pca"),
        lambda: list_encoders("gene"),
    ],
)
def test_any_call_may_be_the_first(first: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's own encoders are registered by it, in the process that has imported none of them yet."""
    load_own()
    there = dict(ENTRIES)
    monkeypatch.setattr(catalogue, "load_own", lambda: ENTRIES.update(there))
    try:
        ENTRIES.clear()
        expected = first()
        assert ENTRIES == there
    finally:
        ENTRIES.update(there)
    assert expected is not False


def test_a_modality_without_encoders_has_an_empty_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODALITIES, "protein", Modality("protein", reads="matrix", key="protein"))
    table = list_encoders("protein")
    assert len(table) == 0
    assert "licence" in table.columns


def test_an_unknown_modality_is_refused() -> None:
    for call in (list_encoders, lambda m: get_spec("pca", m)):
        with pytest.raises(ValueError, match="There is no modality 'sound'; there are gene, text, image"):
            call("sound")


def test_names_by_whether_they_are_fitted() -> None:
    assert set(encoder_names("gene", fits=True)) == {
        "pca",
        "scvi",
        "scanvi",
        "drvi",
        "set_transformer",
        "gene_sentence",
        "identity",
    }
    assert encoder_names("gene", fits=False) == ["geneformer"]
    assert encoder_names("text") == encoder_names("text", fits=False)
    assert {"biobert", "minilm", "pubmedbert"} <= set(encoder_names("text"))
    assert encoder_names("sound") == []


def test_any_timm_id_has_a_spec() -> None:
    spec = get_spec("vit_tiny_patch16_224")
    assert (spec.modality, spec.input_px, spec.mean) == ("image", 224, (0.5, 0.5, 0.5))
    assert get_spec("resnet50.a1_in1k").commercial


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "vit_small_patch16_224", "vit_small_patch16_224.dino"])
def test_registered_timm_facts_are_those_of_timm(name: str) -> None:
    ours, timm_s = get_spec(name), timm_file._timm_spec(name)
    assert timm_s is not None
    for fact in ("input_px", "mean", "std", "licence"):
        assert getattr(ours, fact) == getattr(timm_s, fact), fact


def test_addresses_of_a_hub_have_a_spec_of_their_own() -> None:
    assert get_spec("hf-hub:owner/model").url == "https://huggingface.co/owner/model"
    assert get_spec("owner/model", "text").modality == get_spec("owner/model").modality == "text"
    # whichever file was imported first
    assert TransformerEncoder.known("hf-hub:owner/model") is None
    assert TimmEncoder.known("owner/model") is None


@pytest.mark.parametrize(
    ("name", "modality", "hint"),
    [
        ("resnet5", None, "resnet50"),
        ("uni2", "image", "uni2-h"),
        ("scv", "gene", "scvi"),
        ("minilmm", "text", "minilm"),
        ("stain-texture", "image", "stain_texture"),
    ],
)
def test_a_misspelt_name_lists_close_ones(name: str, modality: str | None, hint: str) -> None:
    with pytest.raises(ValueError, match=f"There is no .*encoder '{name}'. Did you mean.*{hint}.*list_encoders"):
        get_spec(name, modality)
    if modality is not None:
        for call in (encoder_class, open_encoder):
            with pytest.raises(ValueError, match=f"Did you mean.*{hint}"):
                call(name, modality)


def test_a_name_of_another_modality_is_not_taken() -> None:
    for name, modality in (("pca", "text"), ("minilm", "gene"), ("stain_texture", "gene")):
        with pytest.raises(ValueError, match=f"There is no {modality} encoder '{name}'"):
            open_encoder(name, modality)


def test_a_class_opens_what_it_registers_or_knows(tmp_path: Path) -> None:
    assert encoder_class("resnet18", "image") is encoder_class("vit_tiny_patch16_224", "image") is TimmEncoder
    assert encoder_class("owner/model", "text") is encoder_class(str(tmp_path), "text") is TransformerEncoder
    # a folder that a model was trained from need not be there any more
    assert stored_class("gone", "text") is TransformerEncoder
    with pytest.raises(ValueError, match="There is no gene encoder 'gone'"):
        stored_class("gone", "gene")


def test_a_stored_model_may_open_what_a_name_alone_decides(tmp_path: Path) -> None:
    for name in ("resnet18", "stain_texture", "vit_tiny_patch16_224", "resnet50.a1_in1k"):
        assert opens_by_name(name, "image")
    assert opens_by_name("minilm", "text")
    for name in ("hf-hub:owner/model", "mine", str(tmp_path), ""):
        assert not opens_by_name(name, "image")
    for name in ("owner/model", str(tmp_path), "mine"):
        assert not opens_by_name(name, "text")


def test_reading_facts_does_not_import_torch() -> None:
    code = (
        "import sys; from spatialwhisperer.models import get_spec; get_spec('uni2-h'); "
        "sys.exit('torch' in sys.modules or 'numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
