from __future__ import annotations

import functools
import hashlib
import http.server
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import pytest

from spatialwhisperer._settings import settings
from spatialwhisperer.datasets._files import archives
from spatialwhisperer.datasets.her2st import her2st
from spatialwhisperer.datasets.lizard import lizard
from spatialwhisperer.datasets.pannuke import pannuke


@pytest.fixture
def served(tmp_path, monkeypatch, write_lizard):
    """The archives behind a local web server, packed as the authors' are."""
    root, files = tmp_path / "served", tmp_path / "files"
    root.mkdir()
    write_lizard(files)
    packed = {
        "lizard_images1.zip": "Lizard_Images1",
        "lizard_images2.zip": "Lizard_Images2",
        "lizard_labels.zip": "Lizard_Labels",
    }
    known = {}
    for name, folder in packed.items():
        with zipfile.ZipFile(root / name, "w") as archive:
            for path in sorted((files / folder).rglob("*")):
                archive.write(path, path.relative_to(files).as_posix())
            archive.writestr("__MACOSX/Lizard_Images1/._crag_11.png", b"x")
        known[name] = hashlib.sha256((root / name).read_bytes()).hexdigest()
    monkeypatch.setattr(import_module("spatialwhisperer.datasets.lizard"), "ARCHIVES", known)
    seen = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_) -> None:
            pass

        def do_GET(self) -> None:
            seen.append(self.path)
            super().do_GET()

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(root)))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    with settings.override(cache_dir=tmp_path / "cache", offline=False):
        yield root, f"http://127.0.0.1:{httpd.server_port}", seen
    httpd.shutdown()
    httpd.server_close()


def test_lizard_is_downloaded_once(served) -> None:
    _, url, seen = served
    assert list(lizard(base_url=url)) == ["crag_11", "glas_2"]
    assert len(seen) == 3
    with settings.override(offline=True):
        assert list(lizard(base_url=url)) == ["crag_11", "glas_2"]
    assert len(seen) == 3
    assert not list((settings.cache_dir / "lizard").glob("*.zip"))


def test_another_archive_is_refused(served) -> None:
    root, url, _ = served
    with zipfile.ZipFile(root / "lizard_images2.zip", "a") as archive:
        archive.writestr("more.png", b"x")
    with pytest.raises(ValueError, match="not the file that is known"):
        lizard(base_url=url)
    assert not (settings.cache_dir / "lizard" / "lizard_images2").exists()


def test_offline_says_where_to_get_it(tmp_path) -> None:
    with settings.override(offline=True, cache_dir=tmp_path):
        with pytest.raises(FileNotFoundError, match="lizard-dataset"):
            lizard()
        with pytest.raises(FileNotFoundError, match=r"fold_2\.zip"):
            pannuke()


def test_no_server(tmp_path) -> None:
    with settings.override(offline=False, cache_dir=tmp_path), pytest.raises(ConnectionError, match="Cannot download"):
        lizard(base_url="http://127.0.0.1:9")


def test_an_archive_that_two_processes_need_is_unpacked_by_one(served, tmp_path, monkeypatch) -> None:
    """The second one used to look for a file that the first one removed when it had unpacked it."""
    root, url, seen = served
    name = "lizard_labels.zip"
    known = {name: hashlib.sha256((root / name).read_bytes()).hexdigest()}
    downloaded, looked = threading.Event(), threading.Event()
    passes, unpack = archives._passes, archives._unpack

    def slow_passes(path, check) -> bool:
        if not path.exists():
            return passes(path, check)
        looked.set()
        threading.Event().wait(0.3)
        return passes(path, check)

    def slow_unpack(*given) -> None:
        downloaded.set()
        looked.wait(0.3)
        unpack(*given)

    monkeypatch.setattr(archives, "_passes", slow_passes)
    monkeypatch.setattr(archives, "_unpack", slow_unpack)

    def get() -> None:
        archives.fetch_archives(known, base_url=url, folder=tmp_path / "c", suffixes=(".mat",), page="a page")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(get)
        assert downloaded.wait(10)
        second = pool.submit(get)
        first.result()
        second.result()
    assert seen == [f"/{name}"]
    assert (tmp_path / "c" / "lizard_labels" / ".unpacked").is_file()
    assert not (tmp_path / "c" / name).exists()


@pytest.mark.parametrize("get", [lizard, pannuke, lambda **how: her2st("C2", **how)])
def test_a_cache_that_cannot_be_written_is_named_with_the_remedy(get, tmp_path) -> None:
    (tmp_path / "file").touch()
    with (
        settings.override(offline=False, cache_dir=tmp_path / "file"),
        pytest.raises(OSError, match=r"Cannot write into .*file.*sw\.settings\.cache_dir = …, or pass data_dir=…"),
    ):
        get(base_url="http://127.0.0.1:9")
