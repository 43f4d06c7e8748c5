"""Files beside a result say what they were made of."""

from __future__ import annotations

import gzip
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from spatialwhisperer.cli.slides import marks
from tests.cli.conftest import LABELS, Folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., Any]

REQUEST = {"slide": "\"<x>&'.tif", "options": {"labels": ["größer", "b"], "mpp": 0.5}, "model_sha256": None}


def test_a_request_is_read_from_the_beginning_of_a_file(tmp_path: Path) -> None:
    geojson = f'{{"type":"FeatureCollection","{marks.NAME}":{json.dumps(REQUEST)},"features":['
    page = f"<!DOCTYPE html><head>{marks.meta(REQUEST)}</head>"
    for name, content in (("a.geojson", geojson), ("a.json.gz", geojson), ("a.html", page)):
        data = content.encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        assert marks.request_of(tmp_path / name) == REQUEST


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"\xff\xfe",
        b'{"type":"FeatureCollection","features":[]}',
        b'{"type":"FeatureCollection","sw_command":3,',
    ]
    + [b'{"type":"FeatureCollection","sw_command":{"slide"', b'<meta name="sw_command" content="{">'],
)
def test_other_files_state_none(tmp_path: Path, content: bytes) -> None:
    for name in ("a.geojson", "a.geojson.gz", "a.html"):
        (tmp_path / name).write_bytes(content)
        assert marks.request_of(tmp_path / name) is None
    assert marks.request_of(tmp_path) is None


def test_files_of_another_slide_do_not_pass_for_those_of_this_one(
    annotated: Folder, results: Path, run: Run, tmp_path: Path
) -> None:
    (other,) = (path for path in results.glob("*.html") if path.name != "plain.html")
    slide, out = annotated.slides / "plain.tif", results / "plain.zarr"
    for ending in (".html", ".geojson", ".geojson.gz"):
        file, plain = tmp_path / f"mine{ending}", ending.removesuffix(".gz")
        given = "--report" if ending == ".html" else "--geojson"
        typed = ["annotate", slide, "--out", out, "--labels", ",".join(LABELS), "--quiet", given, file]

        def write(content: bytes, file: Path = file) -> None:
            file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)

        write(other.with_suffix(plain).read_bytes())
        before = file.read_bytes()
        done = run(*typed)
        assert done.code == 1
        assert re.search(r"mine\.\S+ exists and was made otherwise \(slide, content of the slide\)\. ", done.err[-1])
        assert file.read_bytes() == before
        # one that is its own
        write((results / "plain").with_suffix(plain).read_bytes())
        assert "skipped" in run(*typed)[1][0]
        # and one that says nothing
        write(b"{}")
        assert re.search("was made otherwise .it does not say of what; QuPath may", run(*typed).err[-1])
