"""A Hugging Face hub without the network: a folder in the layout of its cache, or a server on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

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
    """Let the client of the hub read and write a cache of the test."""
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
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    asked: list[str] = []

    class Hub(_Hub):
        pass

    Hub.repositories, Hub.gated, Hub.cut, Hub.asked = repositories, gated, cut, asked
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", address, raising=False)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", address, raising=False)
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()


class _Hub(BaseHTTPRequestHandler):
    repositories: Mapping[str, Path]
    gated: str
    cut: str
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: Any) -> None:
        """Write nothing."""

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0].strip("/")
        self.asked.append(f"{self.command} {path}")
        parts = path.split("/")
        if parts[:2] == ["api", "models"]:
            self._listing("/".join(parts[2:4]), tree="tree" in parts)
        else:
            self._file("/".join(parts[:2]), "/".join(parts[4:]), body=body)

    def _listing(self, repository: str, *, tree: bool) -> None:
        folder = self.repositories.get(repository)
        if folder is None:
            self._send(404, {"X-Error-Code": "RepoNotFound"}, b"{}")
            return
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        names = [file.relative_to(folder).as_posix() for file in files]
        answer: Any = {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
        if tree:
            answer = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": "0"}
                for name, file in zip(names, files, strict=True)
            ]
        self._send(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    def _file(self, repository: str, name: str, *, body: bool) -> None:
        folder = self.repositories.get(repository)
        file = None if folder is None else folder / name
        if file is None or not file.is_file():
            self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b"")
            return
        if repository == self.gated and self.headers.get("Authorization") != "Bearer granted":
            self._send(403, {"X-Error-Code": "GatedRepo", "X-Repo-Commit": COMMIT}, b"")
            return
        content = file.read_bytes()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        sent = content[: len(content) // 2] if body and self.cut and name.endswith(self.cut) else content
        self._send(200, headers, sent if body else b"", length=len(content))

    def _send(self, status: int, headers: Mapping[str, str], content: bytes, *, length: int | None = None) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)
