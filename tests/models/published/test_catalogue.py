"""The table of models says what each is, under which terms, and what is here, and asks nobody."""

from __future__ import annotations

import copy
import json
import shutil
import socket
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer.models.published.names import FILE, PUBLISHED
from spatialwhisperer.models.store import embedded_folder
from tests.encoders.hub_mirror import fill_cache, use_cache

if TYPE_CHECKING:
    from pathlib import Path

    from spatialwhisperer.models import Whisperer


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty caches, and no network."""

    def refuse(*arguments: Any, **_: Any) -> None:
        raise AssertionError(f"the network was touched: {arguments[:2]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    use_cache(monkeypatch, tmp_path / "cache")


def test_every_name_that_opens_is_listed() -> None:
    table = sw.models.list_models()
    assert list(table.index) == ["her2st-mini", *PUBLISHED, "biomedclip", "keep", "omiclip", "plip", "quiltnet-b32"]
    for name in ("keep", "plip"):
        # opening takes the name, and then lacks the files
        with sw.settings.override(offline=True), pytest.raises(FileNotFoundError, match="sw.models.image_text_model"):
            sw.models.load(name)
        with pytest.raises(ValueError, match="is a published model of images and texts, whose encoders are known"):
            sw.models.load(name, revision="main")


def test_the_embedded_model_is_here_and_open_to_everybody() -> None:
    row = sw.models.list_models().loc["her2st-mini"]
    assert row["description"] == "embedded model, preset whisperer: HER2-positive breast cancer"
    assert (row["modalities"], row["image"], row["gene"], row["text"]) == (
        "image, gene, text",
        "stain_texture",
        "scvi",
        "minilm",
    )
    assert (row["commercial"], row["gated"], row["download_mb"], row["here"]) == (True, False, 0.0, True)
    assert "1,077 image–gene pairs" in row["trained_on"]
    assert "weights: BSD-3-Clause (part of the package)" in row["licence"]


def test_the_checkpoint_has_the_terms_of_all_its_parts(tmp_path: Path) -> None:
    row = sw.models.list_models().loc[PUBLISHED[0]]
    assert row["licence"] == (
        "weights: CC-BY-NC-4.0; image encoder uni2-h: CC-BY-NC-ND-4.0; gene encoder geneformer: apache-2.0; text encoder biobert: unknown"
    )
    assert (row["commercial"], row["gated"], row["download_mb"], row["here"]) == (False, True, 530.0, False)
    assert row["missing"] == "uni2-h, geneformer"
    assert row["place"] == f"https://huggingface.co/{PUBLISHED[0]}"
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / FILE).write_bytes(b"0")
    fill_cache(tmp_path / "cache", PUBLISHED[0], tmp_path / "source")
    assert list(sw.models.list_models().loc[list(PUBLISHED), "here"]) == [True, False]


def test_models_of_images_and_texts_state_what_their_encoders_do(tmp_path: Path) -> None:
    table = sw.models.list_models().loc[["keep", "plip", "omiclip"]]
    assert list(table["commercial"]) == [True, False, True]
    assert list(table["gated"]) == [False, False, True]
    assert list(table["licence"]) == [
        "image and text encoder keep: mit",
        "image and text encoder plip: not stated",
        "image and text encoder omiclip: BSD-3-Clause",
    ]
    assert table["download_mb"].isna().all()
    assert not table["here"].any()
    source = tmp_path / "source"
    source.mkdir()
    (source / "model.safetensors").write_bytes(b"0")
    fill_cache(tmp_path / "cache", "Astaxanthin/KEEP", source)
    again = sw.models.list_models()
    assert again.loc["keep", "here"]
    assert again.loc["keep", "missing"] == ""
    assert again.loc["plip", "missing"] == "plip"


def test_saved_models_of_a_folder_say_what_they_were_trained_on(model: Whisperer, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    copy.copy(model).save(runs / "a" / "model")
    folder = model.folder
    shutil.copytree(embedded_folder(), runs / "b")
    (runs / "notes").mkdir()
    (runs / "notes" / "config.json").write_text("{}")
    table = sw.models.list_models(runs)
    model.folder = folder
    assert list(table.index) == ["a/model", "b"]
    row = table.loc["a/model"]
    assert row["description"] == "model, preset spatialwhisperer"
    training = model.config.training
    assert training is not None
    counts = ", ".join(f"{n:,} {pair} pairs" for pair, n in training.pairs.items())
    assert (
        row["trained_on"]
        == f"{counts}; {len(training.groups)} groups: {', '.join(training.groups)}; 3 sections: {', '.join(training.sections)}"
    )
    assert row["licence"].startswith("weights: not stated; ")
    assert pd.isna(row["commercial"])
    assert row["place"] == str(runs / "a" / "model")
    assert list(sw.models.list_models(runs / "b").index) == ["b"]
    assert table.dtypes.equals(sw.models.list_models().dtypes)


def test_a_model_that_cannot_be_read_is_named_and_left_out(tmp_path: Path) -> None:
    shutil.copytree(embedded_folder(), tmp_path / "whole")
    shutil.copytree(embedded_folder(), tmp_path / "changed")
    path = tmp_path / "changed" / "config.json"
    stated = json.loads(path.read_text(encoding="utf-8"))
    stated["config"]["temperature"] = 0.5
    path.write_text(json.dumps(stated))
    with pytest.warns(UserWarning, match=r"changed is left out, because it cannot be read: .*its digest does not fit"):
        table = sw.models.list_models(tmp_path)
    assert list(table.index) == ["whole"]


def test_a_folder_without_models_is_empty_and_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert sw.models.list_models(tmp_path / "empty").empty
    with pytest.raises(FileNotFoundError, match="There is no folder .*no-such to look for saved models"):
        sw.models.list_models(tmp_path / "no-such")
