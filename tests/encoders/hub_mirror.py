"""A Hugging Face hub without the network: a folder in the layout of its cache, or a server on this machine."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import spatialwhisperer as sw
from tests.loopback_hub import loopback_hub

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def fill_cache(cache: Path, repository: str, source: Path) -> Path:
    """Lay the files of a folder into the cache, as a download would; returns the snapshot."""
    room = cache / ("models--" + repository.replace("/", "--"))
    snapshot = room / "snapshots" / COMMIT
    (room / "refs").mkdir(parents=True)
    (room / "refs" / "main").write_text(COMMIT)
    for file in source.rglob("*"):
        if file.is_file():
            place = snapshot / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
    return snapshot


def use_cache(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Let the client of the hub read and write a cache of the test, and the package remember repositories beside it."""
    monkeypatch.setattr(sw.settings, "cache_dir", cache.with_name(f"{cache.name}-package"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(cache), raising=False)


def set_token(monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    """Set or remove the token, whatever the machine holds."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/no/such/token")
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)


@contextmanager
def serving(
    monkeypatch: pytest.MonkeyPatch, repositories: Mapping[str, Path], *, gated: str = "", cut: str = ""
) -> Iterator[list[str]]:
    """Serve folders as repositories; the value lists the requests.

    ``gated`` is a repository that wants the token "granted"; of files whose name ends with ``cut`` half is sent.
    """
    with loopback_hub(monkeypatch) as hub:
        hub.cut = cut
        for name, folder in repositories.items():
            hub.add(name, folder, gated=name == gated)
        yield hub.asked
