"""A Hugging Face hub on this machine: it answers what the client of the hub asks, to read and to write, and moves as a hub does."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pytest

Files = dict[str, bytes]
_LARGE = (".safetensors", ".ckpt", ".bin")


class Repository:
    """Commits of a repository, the last one being what ``main`` stands for."""

    def __init__(self, files: Mapping[str, bytes], *, gated: bool = False) -> None:
        self.commits: dict[str, Files] = {}
        self.gated, self.private = gated, False
        self.commit(files)

    def commit(self, files: Mapping[str, bytes]) -> str:
        """Replace all files; returns the commit."""
        sha = hashlib.sha1(usedforsecurity=False)
        sha.update(f"{len(self.commits)}".encode())
        for name, content in sorted(files.items()):
            sha.update(name.encode() + content)
        self.commits[sha.hexdigest()] = dict(files)
        return sha.hexdigest()

    @property
    def head(self) -> str:
        """The last commit."""
        return next(reversed(self.commits))

    @property
    def files(self) -> Files:
        """Files of the last commit."""
        return self.commits[self.head]

    def at(self, revision: str) -> tuple[str, Files] | None:
        """Commit of a revision and its files."""
        sha = self.head if revision == "main" else revision
        return (sha, self.commits[sha]) if sha in self.commits else None


class LoopbackHub:
    """What a hub has, and what it was asked for.

    Attributes
    ----------
    repositories
        By their ids.
    asked
        Method and path of each request.
    cut
        Half is sent of files whose name ends so; nothing is cut where it is empty.
    holds
        Whether the other half is held back, instead of the connection being closed; ``holding`` is set when it is.
    token
        Token that is granted access to gated repositories and may write.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []
        self.cut, self.token, self.address = "", "granted", ""
        self.holds, self.holding, self.go_on = False, threading.Event(), threading.Event()
        self.uploaded: dict[str, bytes] = {}
        self.checked_cards: list[str] = []

    def add(self, name: str, files: Mapping[str, bytes] | Path, *, gated: bool = False) -> Repository:
        """Add a repository."""
        self.repositories[name] = Repository(files if isinstance(files, dict) else files_in(files), gated=gated)
        return self.repositories[name]


def files_in(folder: Any) -> Files:
    """Files of a folder by their paths in it."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@contextmanager
def loopback_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """Let the client of the hub talk to one on this machine."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    hub = LoopbackHub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.ENDPOINT", hub.address)
    monkeypatch.setattr(
        f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    # files go over HTTP, and not by the protocol of another server
    monkeypatch.setattr(f"{constants}.HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", hub.address, raising=False)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", hub.address, raising=False)
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub

    def do_HEAD(self) -> None:
        self._read(body=False)

    def do_GET(self) -> None:
        self._read(body=True)

    def do_POST(self) -> None:
        self._write()

    def do_PUT(self) -> None:
        self._write()

    def log_message(self, *_: Any) -> None:
        """Write nothing."""

    # ----------------------------------------------------------------------------------------- reading

    def _read(self, *, body: bool) -> None:
        path = unquote(self.path.partition("?")[0].strip("/"))
        self.hub.asked.append(f"{self.command} {path}")
        parts = path.split("/")
        if parts[:2] == ["api", "models"]:
            self._about("/".join(parts[2:4]), parts[4:])
        else:
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), body=body)

    def _about(self, name: str, rest: list[str]) -> None:
        repository = self.hub.repositories.get(name)
        revision = rest[1] if rest[:1] in (["revision"], ["tree"]) else "main"
        found = None if repository is None else repository.at(revision)
        if found is None:
            self._send(404, {"X-Error-Code": "RepoNotFound" if repository is None else "RevisionNotFound"}, b"{}")
            return
        sha, files = found
        answer: Any = {"id": name, "sha": sha, "siblings": [{"rfilename": path} for path in sorted(files)]}
        if rest[:1] == ["tree"]:
            answer = [
                {"type": "file", "path": path, "size": len(content), "oid": _blob(content)}
                for path, content in sorted(files.items())
            ]
        self._send_json(answer)

    def _file(self, name: str, revision: str, path: str, *, body: bool) -> None:
        repository = self.hub.repositories.get(name)
        found = None if repository is None else repository.at(revision)
        sha, content = (None, None) if found is None else (found[0], found[1].get(path))
        if repository is None or sha is None or content is None:
            code = "RepoNotFound" if repository is None else "RevisionNotFound" if sha is None else "EntryNotFound"
            self._send(404, {"X-Error-Code": code, **({"X-Repo-Commit": sha} if sha else {})}, b"")
            return
        if repository.gated and not self._granted():
            status = 403 if self.headers.get("Authorization") else 401
            self._send(status, {"X-Error-Code": "GatedRepo", "X-Repo-Commit": sha}, b"")
            return
        headers = {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        whole, at = len(content), int(start[1]) if start else 0
        if at:
            headers["Content-Range"] = f"bytes {at}-{whole - 1}/{whole}"
        cut = self.hub.cut and path.endswith(self.hub.cut)
        sent = content[at : max(at, whole // 2)] if cut else content[at:]
        self._send(206 if at else 200, headers, sent if body else b"", length=whole - at)
        if cut and body and self.hub.holds:
            self.hub.holding.set()
            self.hub.go_on.wait(60)

    # ----------------------------------------------------------------------------------------- writing

    def _write(self) -> None:
        path = unquote(self.path.partition("?")[0].strip("/"))
        self.hub.asked.append(f"{self.command} {path}")
        content = self._content()
        parts = path.split("/")
        if path == "api/validate-yaml":
            self.hub.checked_cards.append(json.loads(content)["content"])
            self._send_json({"errors": [], "warnings": []})
        elif self.command == "PUT" and parts[0] == "objects":
            # the address of an object is its permission
            self.hub.uploaded[parts[1]] = content
            self._send(200, {}, b"")
        elif not self._granted():
            self._send(401, {}, b'{"error": "Invalid credentials in Authorization header"}')
        elif path == "api/repos/create":
            self._create(json.loads(content))
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._batch(json.loads(content))
        elif parts[4] == "preupload":
            modes = [
                {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(_LARGE) else "regular"}
                for f in json.loads(content)["files"]
            ]
            self._send_json({"files": [{**mode, "shouldIgnore": False, "oid": None} for mode in modes]})
        else:
            self._commit("/".join(parts[2:4]), content)

    def _create(self, asked: Mapping[str, Any]) -> None:
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        status = 409 if name in self.hub.repositories else 200
        if status == 200:
            self.hub.repositories[name] = Repository({".gitattributes": b""})
            self.hub.repositories[name].private = "private" in (
                asked.get("visibility"),
                asked.get("private") and "private",
            )
        self._send_json({"url": f"{self.hub.address}/{name}", "name": name, "id": name}, status)

    def _batch(self, asked: Mapping[str, Any]) -> None:
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.hub.address}/objects/{one['oid']}"}}}
            for one in asked["objects"]
        ]
        self._send_json({"transfer": "basic", "objects": objects})

    def _commit(self, name: str, content: bytes) -> None:
        repository = self.hub.repositories[name]
        lines = [json.loads(line) for line in content.splitlines()]
        files = dict(repository.files)
        for line in lines:
            value = line["value"]
            if line["key"] == "header" and value.get("parentCommit") not in (None, repository.head):
                self._send(412, {}, b'{"error": "A commit has happened since"}')
                return
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                held = self.hub.uploaded[value["oid"]]
                assert hashlib.sha256(held).hexdigest() == value["oid"]
                files[value["path"]] = held
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        sha = repository.commit(files)
        self._send_json({"success": True, "commitUrl": f"{self.hub.address}/{name}/commit/{sha}", "commitOid": sha})

    def _content(self) -> bytes:
        length = self.headers.get("Content-Length")
        if length is not None:
            return self.rfile.read(int(length))
        out = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            out += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return out

    # ----------------------------------------------------------------------------------------- answers

    def _granted(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def _send_json(self, answer: Any, status: int = 200) -> None:
        self._send(status, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    def _send(self, status: int, headers: Mapping[str, str], content: bytes, *, length: int | None = None) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)


def _blob(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()
