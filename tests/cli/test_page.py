"""The page of the command line: every command runs as typed, and every option that it names exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from spatialwhisperer.cli.parser import make_parser
from tests.cli.conftest import write_slide
from tests.io.conftest import some_tissue

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = (Path(__file__).parents[2] / "docs" / "command_line.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    """What is typed on the page, without the name of the program."""
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert all(line[0] == "spatialwhisperer" for line in lines)
    return [line[1:] for line in lines]


@pytest.mark.slow
def test_every_command_of_the_page_runs_as_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    write_slide(Path("slide.tif"))
    Image.fromarray(some_tissue(900, 1200)).save("photo.png")
    Path("slides").mkdir()
    write_slide(Path("slides/one.tif"))
    for typed in commands():
        done = run(*typed)
        assert done.code == 0, (typed, done.err)
        assert done.out
    written = {path.name for path in tmp_path.iterdir()}
    assert {"result.zarr", "result.geojson", "result.html", "labels.geojson", "report.html", "photo.html"} <= written
    assert {path.name for path in Path("results").iterdir()} == {"one.zarr", "one.geojson", "one.html"}


def test_the_page_names_no_option_that_does_not_exist() -> None:
    known = set(re.findall(r"--[\w-]+", " ".join(_help(name) for name in ("annotate", "encoders", "doctor"))))
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", PAGE)) <= known | {"--version", "--help"}


def _help(command: str) -> str:
    parser = make_parser()
    commands: Any = next(action for action in parser._actions if action.dest == "command")
    return commands.choices[command].format_help()
