"""Downloads of data sets from servers that die, send something else, or are slow."""

from __future__ import annotations

import hashlib
import io
import tempfile
import traceback
import zipfile
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import spatialwhisperer
from spatialwhisperer._settings import settings
from spatialwhisperer.datasets._files import archives, download
from tests.torture import bad_server
from tests.torture.frame import Campaign, Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

HOME = str(Path(spatialwhisperer.__file__).parent)
PAGE = "https://example.org/data"


def packed(rng: np.random.Generator) -> bytes:
    """An archive with one array and one text."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo("inside/a.npy"), rng.bytes(50_000))
        archive.writestr(zipfile.ZipInfo("read me.txt"), "not unpacked")
    return out.getvalue()


class Downloads:
    """A file and an archive of a data set, and where they are kept."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.files = {"data/a.tsv": rng.bytes(60_000), "b.zip": packed(rng)}
        self.expected = {"data/a.tsv", "b/.unpacked", "b/inside/a.npy"}

    def get(self, url: str, folder: Path) -> None:
        """Download both, as the functions of ``sw.datasets`` do."""
        plain, zipped = self.files["data/a.tsv"], self.files["b.zip"]
        git = hashlib.sha1(b"blob %d\x00" % len(plain) + plain, usedforsecurity=False).hexdigest()
        download.fetch({"data/a.tsv": git}, base_url=url, folder=folder)
        sha = hashlib.sha256(zipped).hexdigest()
        archives.fetch_archives({"b.zip": sha}, base_url=url, folder=folder, suffixes=(".npy",), page=PAGE)

    def wrong(self, folder: Path, *, whole: bool) -> str:
        """What is wrong with the files that are there."""
        there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() or p.name.startswith(".")}
        if there - self.expected or (whole and there != self.expected):
            return f"files {sorted(there)}"
        with zipfile.ZipFile(io.BytesIO(self.files["b.zip"])) as archive:
            contents = {"data/a.tsv": self.files["data/a.tsv"], "b/inside/a.npy": archive.read("inside/a.npy")}
        bad = [name for name in there if name in contents and (folder / name).read_bytes() != contents[name]]
        return f"other content of {bad}" if bad else ""


def trials(rng: np.random.Generator, n: int) -> Iterator[Trial]:
    """Each way to answer, for one file or for both; afterwards the server is well, and the same call succeeds."""
    data = Downloads(rng)
    answer: list[Callable[..., Any]] = [bad_server.right]
    cases = [(how, first) for how in (*bad_server.WRONG, *bad_server.HELD) for first in (True, False)]
    with bad_server.serving(data.files, answer) as url:
        for how, first in islice(cycle(cases), n):
            yield _trial(data, url, answer, how, first)


def _trial(data: Downloads, url: str, answer: list[Any], how: Callable[..., None], first: bool) -> Trial:
    def answered(to: Any, body: bytes) -> None:
        (how if first or to.path.endswith(".zip") else bad_server.right)(to, body)

    what = f"{how.__name__}, {'both files' if first else 'the archive'}"
    answer[0] = answered
    timeout = 60 if how in bad_server.HELD else bad_server.PAUSE / 3
    with tempfile.TemporaryDirectory() as place, settings.override(offline=False, verbose=False):
        folder = Path(place)
        with mock.patch.multiple(download, _TIMEOUT=timeout, _LARGEST=2**20):
            ended, said = _end(data, url, folder)
        wrong = data.wrong(folder, whole=ended == "right result")
        # a harmless oddity may be accepted: what is kept is compared with the published file
        expected = {"right result"} if how in bad_server.HELD else {"own error", "right result"}
        if ended not in expected or wrong:
            return Trial(ended, f"{what}: {ended} {said[:300]} {wrong}")
        answer[0] = bad_server.right
        again, said = _end(data, url, folder)
        wrong = data.wrong(folder, whole=True)
        if again != "right result" or wrong:
            return Trial(ended, f"{what}, then a server that is well: {again} {said[:300]} {wrong}")
    return Trial(ended)


def _end(data: Downloads, url: str, folder: Path) -> tuple[str, str]:
    try:
        data.get(url, folder)
    except (ConnectionError, ValueError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        own = last.filename.startswith(HOME) and "127.0.0.1" in str(error)
        return ("own error" if own else f"{type(error).__name__} of {last.filename}"), str(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is an outcome
        return type(error).__name__, str(error)
    return "right result", ""


CAMPAIGN = Campaign("downloads from a dying, wrong, slow server", trials, bounded=54, long=270)
