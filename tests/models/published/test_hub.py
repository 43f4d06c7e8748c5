"""The published checkpoint from a hub: one that answers on this machine, and one that does not."""

from __future__ import annotations

import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import spatialwhisperer as sw
from tests.models.published.conftest import converted
from tests.models.published.generator import Sizes, state_dict, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("transformers")

NAME = "Good-Lab/spatialwhisperer"


class Hub:
    """What a hub has, and what it was asked for."""

    def __init__(self) -> None:
        self.content, self.status, self.asked = b"", 200, [""]

    @property
    def commit(self) -> str:
        return hashlib.sha1(self.content, usedforsecurity=False).hexdigest()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> Iterator[Hub]:
    """A hub on this machine that holds the checkpoint."""
    served = Hub()
    served.content = checkpoint.read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            served.asked.append(self.path)
            status = served.status if self.path.endswith("/spatialwhisperer.ckpt") else 404
            self.send_response(status)
            if status != 200:
                self.send_header("X-Error-Code", "GatedRepo" if status == 401 else "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_header("X-Repo-Commit", served.commit)
            self.send_header("ETag", f'"{hashlib.sha256(served.content).hexdigest()}"')
            self.send_header("Content-Length", str(len(served.content)))
            self.end_headers()
            if body:
                self.wfile.write(served.content)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    address = f"http://127.0.0.1:{server.server_port}"
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.ENDPOINT", address)
    monkeypatch.setattr(
        f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(tmp_path / "hub"))
    with sw.settings.override(offline=False):
        yield served
    server.shutdown()
    server.server_close()


def test_it_is_downloaded_once_and_opens_without_a_network(hub: Hub, vocabulary: Path, cache: Path, state: Any) -> None:
    model = sw.models.load(NAME, tokenizer=vocabulary)
    assert f"/{NAME}/resolve/main/spatialwhisperer.ckpt" in hub.asked
    assert model.config.card is not None
    assert model.config.card.name == NAME
    np.testing.assert_array_equal(model.log_scale.detach().numpy(), state["model.discriminator.temperature"].numpy())
    hub.asked.clear()
    with sw.settings.override(offline=True):
        again = sw.models.load(NAME, tokenizer=vocabulary)
    assert hub.asked == []
    assert again.folder == model.folder
    assert model.folder is not None
    assert converted(cache) == ["Good-Lab--spatialwhisperer.json", model.folder.name]


def test_other_calls_take_the_name_too(hub: Hub, vocabulary: Path, cache: Path) -> None:  # noqa: ARG001
    import anndata as ad

    data = ad.AnnData(np.zeros((4, 1), np.float32))
    with pytest.raises(FileNotFoundError, match="The tokenizer of dmis-lab/biobert-v1.1 is not in the .* cache"):
        sw.tl.embed(data, model=NAME, modality="gene", device="cpu")
    assert converted(cache) == ["Good-Lab--spatialwhisperer.json"]
    # afterwards the calls that cannot say which tokenizer find the model that was converted
    model = sw.models.load(NAME, tokenizer=vocabulary)
    assert sw.models.load(NAME).folder == model.folder
    with pytest.raises(FileNotFoundError, match="The files of Geneformer are not in the Hugging Face cache"):
        sw.tl.embed(data, model=NAME, modality="gene", device="cpu")


def test_a_revision_that_moved_is_refused_until_it_is_named(
    hub: Hub, vocabulary: Path, cache: Path, tmp_path: Path
) -> None:
    first = sw.models.load(NAME, tokenizer=vocabulary)
    before = converted(cache)
    old = hub.commit
    hub.content = write_checkpoint(tmp_path / "new.ckpt", state_dict(Sizes(), seed=7)).read_bytes()
    with pytest.raises(ValueError, match="its revision has moved.*revision="):
        sw.models.load(NAME, tokenizer=vocabulary)
    assert converted(cache) == before
    new = sw.models.load(NAME, tokenizer=vocabulary, revision=hub.commit)
    assert new.folder != first.folder
    with sw.settings.override(offline=True):
        assert sw.models.load(NAME, tokenizer=vocabulary, revision=old).folder == first.folder


def test_a_gated_repository_says_where_to_ask_and_what_to_set(hub: Hub, vocabulary: Path, cache: Path) -> None:
    hub.status = 401
    with pytest.raises(
        FileNotFoundError, match=rf"is gated. Accept its terms at https://huggingface.co/{NAME}.*HF_TOKEN"
    ):
        sw.models.load(NAME, tokenizer=vocabulary)
    assert converted(cache) == []


def test_a_hub_without_the_file_says_so(hub: Hub, vocabulary: Path, cache: Path) -> None:
    hub.status = 404
    with pytest.raises(FileNotFoundError, match="The hub did not give spatialwhisperer.ckpt"):
        sw.models.load(NAME, tokenizer=vocabulary)
    assert converted(cache) == []


@pytest.mark.parametrize("offline", [True, False])
def test_no_network_is_an_error_at_once(
    offline: bool, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("spatialwhisperer.models.published.loading.hub_answers", lambda: False)
    why = "settings.offline is set" if offline else "the hub cannot be reached"
    with sw.settings.override(offline=offline), pytest.raises(FileNotFoundError, match=f"{why}.*hf download {NAME}"):
        sw.models.load(NAME)
    assert converted(cache) == []
