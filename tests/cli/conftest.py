"""Small slides as files, and one run over a folder of them."""

from __future__ import annotations

import io
import shutil
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from spatialwhisperer.cli.main import main
from tests.io.conftest import some_tissue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOSTILE = "<img src=x onerror=alert(1)> $\\frac{1}$ & co.tif"


def write_slide(path: Path, seed: int = 0, *, mpp: float | None = 0.5) -> Path:
    """A TIFF of 900 x 1200 pixels, with or without its scale."""
    import tifffile

    scale: dict[str, Any] = {} if mpp is None else {"resolution": (10_000 / mpp,) * 2, "resolutionunit": 3}
    tifffile.imwrite(path, some_tissue(900, 1200, seed), photometric="rgb", **scale)
    return path


class Ran(NamedTuple):
    """A command that was run: exit code, and the lines of stdout and stderr."""

    code: int
    out: list[str]
    err: list[str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run a command in this process."""

    def ran(*arguments: object) -> Ran:
        capsys.readouterr()
        try:
            code = main([str(one) for one in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return Ran(code, said.out.splitlines(), said.err.splitlines())

    return ran


class Folder(NamedTuple):
    """A folder of slides, the results of a run over it, and what the run said."""

    slides: Path
    results: Path
    ran: Ran


LABELS = ("malignant cell", "fat cell", "T cell")
OPTIONS = ("--labels", ",".join(LABELS), "--geojson", "--report", "--quiet")


@pytest.fixture(scope="session")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Two slides, of which one has a name that is markup, and a damaged one. Read only: copy what you change."""
    slides = tmp_path_factory.mktemp("slides")
    write_slide(slides / "plain.tif")
    write_slide(slides / HOSTILE, 1)
    (slides / "bad.tif").write_bytes(b"II*\0garbage")
    (slides / "notes.txt").write_text("no slide")
    results = tmp_path_factory.mktemp("run") / "results"
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(["annotate", str(slides), "--out", str(results), *OPTIONS])
    return Folder(slides, results, Ran(code, out.getvalue().splitlines(), err.getvalue().splitlines()))


@pytest.fixture
def results(annotated: Folder, tmp_path: Path) -> Path:
    """A copy of the results."""
    return shutil.copytree(annotated.results, tmp_path / "results")


def times(folder: Path) -> dict[str, int]:
    """When each file below a folder was written, in nanoseconds."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file()}


def scores_of(table: Any) -> np.ndarray:
    """The scores in a table."""
    return np.asarray(table.obsm["sw_label_scores"])


def labels_of(table: Any) -> list[str | None]:
    """The label of each row; ``None`` where it has none."""
    return [
        None if one is np.nan or one is None or one != one else str(one) for one in table.obs["sw_label"].astype(object)
    ]
