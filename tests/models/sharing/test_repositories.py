"""What a repository of the hub must be for a model to be published there, and what is said of addresses that are no ids."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("transformers")

import spatialwhisperer as sw
from spatialwhisperer.models import Whisperer
from tests.models.sharing.test_hub import NAME, same, small

if TYPE_CHECKING:
    from pathlib import Path

    from tests.loopback_hub import LoopbackHub

OTHERS = [
    ({"config.json": json.dumps({"model_type": "bert"}).encode()}, r"holds another config\.json"),
    (
        {"model_index.json": b"{}", "unet/config.json": b"{}", "unet/model.safetensors": b"W", "README.md": b"a card"},
        r"holds model_index\.json, unet/config\.json, unet/model\.safetensors, which belongs to no model",
    ),
    ({"model.safetensors": b"OTHER"}, r"holds model\.safetensors, which"),
    ({"thesis/README.md": b"words"}, r"holds thesis/README\.md, which"),
]


@pytest.mark.parametrize(("files", "message"), OTHERS)
def test_a_repository_of_something_else_is_left_alone(hub: LoopbackHub, files: dict[str, bytes], message: str) -> None:
    served = hub.add(NAME, files)
    before = served.head
    with pytest.raises(FileExistsError, match=f"owner/name {message}"):
        small().push_to_hub(NAME)
    assert served.head == before


def test_a_repository_that_holds_words_alone_takes_a_model(hub: LoopbackHub) -> None:
    served = hub.add(NAME, {".gitattributes": b"", "README.md": b"a new repository", "LICENSE": b"MIT"})
    model = small()
    model.push_to_hub(NAME)
    assert served.files["LICENSE"] == b"MIT"
    assert same(model, sw.models.load(NAME))


def test_files_that_the_model_there_does_not_list_stay(hub: LoopbackHub, folders: dict[str, Path]) -> None:
    Whisperer.load(folders["embedded"]).push_to_hub(NAME)
    served = hub.repositories[NAME]
    listed = set(served.files)
    mine = {"eval/figures/config.json": b"{}", "vocabulary/notes.md": b"words", "old/x/model.safetensors": b"W"}
    served.commit({**served.files, **mine})
    small().push_to_hub(NAME)
    assert {name: served.files[name] for name in mine} == mine
    assert served.files.keys() - mine == {".gitattributes", "README.md", "config.json", "model.safetensors"}
    # what is not listed is not read
    served.commit({**served.files, "eval/config.json": b"{}"})
    assert same(small(), sw.models.load(NAME))
    # one that would be overwritten is named
    served.commit({**served.files, "vocabulary/config.json": b"{}"})
    before = served.head
    with pytest.raises(FileExistsError, match=r"holds vocabulary/config\.json, which belongs to no model"):
        Whisperer.load(folders["embedded"]).push_to_hub(NAME)
    assert served.head == before
    assert "vocabulary/config.json" in listed


@pytest.mark.parametrize(
    ("address", "revision"),
    [
        ("hf://owner/name", None),
        ("https://huggingface.co/owner/name", None),
        ("https://huggingface.co/owner/name/tree/v1.0", "v1.0"),
        ("owner/name@0123abc", "0123abc"),
        ("hf://owner/name@v1", "v1"),
    ],
)
def test_an_address_names_the_id_that_it_holds(hub: LoopbackHub, address: str, revision: str | None) -> None:
    meant = "'owner/name'?" if revision is None else f"'owner/name', revision='{revision}'?"
    with pytest.raises(ValueError, match="is not a valid hub id") as raised:
        sw.models.load(address)
    assert str(raised.value).endswith(f"Did you mean {meant}")
    assert hub.asked == []
