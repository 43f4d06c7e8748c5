from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest

import spatialwhisperer as sw
from spatialwhisperer.encoders.hub import hub_answers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def listening() -> Iterator[int]:
    """Port of a server that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_server_that_listens_answers(monkeypatch: pytest.MonkeyPatch, listening: int) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{listening}")
    assert hub_answers()


def test_nobody_answers_at_a_closed_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    assert not hub_answers()


def test_a_proxy_is_asked_in_the_place_of_the_hub(monkeypatch: pytest.MonkeyPatch, listening: int) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://no-such-host.invalid")
    assert not hub_answers()
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{listening}")
    assert hub_answers()


def test_weights_that_cannot_be_had_are_an_error_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    start = time.monotonic()
    with sw.settings.override(offline=False), pytest.raises(FileNotFoundError, match="the hub cannot be reached"):
        sw.models.open_encoder("resnet18", "image").module()
    assert time.monotonic() - start < 20  # the hub's own client tries for half a minute
