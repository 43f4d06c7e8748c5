from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import spatialwhisperer as sw
from tests.encoders.hub_mirror import set_token, use_cache
from tests.loopback_hub import LoopbackHub, loopback_hub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and one of the package."""
    use_cache(monkeypatch, tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:  # noqa: ARG001
    """An empty hub on this machine, and a token that may write to it."""
    set_token(monkeypatch, "granted")
    with loopback_hub(monkeypatch) as served, sw.settings.override(offline=False, device="cpu"):
        yield served
