from __future__ import annotations

import json
import subprocess
import sys
import time
import tomllib
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import spatialwhisperer as sw
from spatialwhisperer.cli.errors import UsageError, as_typed, one_line
from spatialwhisperer.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
LIMIT_S = 0.5
HEAVY = ("torch", "numpy", "pandas", "anndata", "spatialdata", "matplotlib", "tqdm")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("typed", [["--help"], ["annotate", "--help"], ["--version"]], ids=" ".join)
def test_help_and_version_import_nothing_heavy(typed: list[str]) -> None:
    code = (
        "import json, sys\nfrom spatialwhisperer.cli.main import main\n"
        f"try:\n    main({typed!r})\nexcept SystemExit:\n    pass\n"
        f"print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    )
    assert json.loads(python("-c", code).stdout.splitlines()[-1]) == []


def test_help_appears_within_half_a_second() -> None:
    """The machine may be busy, so the best of several runs counts."""
    took = []
    for _ in range(8):
        start = time.perf_counter()
        done = python("-m", "spatialwhisperer", "--help")
        took.append(time.perf_counter() - start)
        assert done.returncode == 0
        if took[-1] < LIMIT_S:
            break
    assert min(took) < LIMIT_S
    assert "annotate" in done.stdout


def test_the_version_is_that_of_the_package(run: Callable[..., Any]) -> None:
    done = run("--version")
    assert (done.code, done.out) == (0, [f"spatialwhisperer {sw.__version__}"])


def test_the_command_that_is_installed_is_this_one() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    module, _, name = scripts["spatialwhisperer"].partition(":")
    assert getattr(import_module(module), name) is main


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ([], "required: COMMAND"),
        (["anotate"], "invalid choice: 'anotate'"),
        (["annotate"], "required: SLIDE, --out"),
        (["annotate", "a.tif", "--out", "a.zarr", "--mp", "1"], "unrecognized arguments: --mp 1"),
        (["annotate", "a.tif", "--out", "a.zarr", "--mpp", "0"], "must be above 0; found '0'"),
        (["annotate", "a.tif", "--out", "a.zarr", "--mpp", "nan"], "must be a number; found 'nan'"),
        (["annotate", "a.tif", "--out", "a.zarr", "--min-confidence", "2"], "between 0 and 1; found '2'"),
        (["annotate", "a.tif", "--out", "a.zarr", "--labels", "T cell"], "at least two labels"),
        (["annotate", "a.tif", "--out", "a.zarr", "--labels", "T cell,,B cell"], "an empty name"),
        (["annotate", "a.tif", "--out", "a.zarr", "--labels", "T cell,T cell"], "T cell stands there more than once"),
        (["annotate", "a.tif", "--out", "a.zarr", "--page", "-1"], "expected one argument|must be a whole number"),
        (["annotate", "a.tif", "--out", "a.zarr", "--batch-size", "0"], "must be 1 or more"),
        (["annotate", "a.tif", "--out", "a.zarr", "--batch-size", "9999999999"], "must be at most"),
        (["annotate", "a.tif", "--out", "a.zarr", "--mpp", "40"], "--mpp: mpp=40 looks like the magnification"),
        (["annotate", "a.tif", "--out", "a.zarr", "--key-added", "a/b"], "--key-added: .* letters, digits"),
        (
            ["annotate", "a.tif", "--out", "a.zarr", "--quiet", "--modality", "smell"],
            "the model reads .*; found 'smell'",
        ),
    ],
    ids=lambda value: " ".join(value)[-30:] if isinstance(value, list) else None,
)
def test_what_is_typed_wrongly_is_one_line_and_exit_code_two(
    typed: list[str], says: str, run: Callable[..., Any]
) -> None:
    import re

    done = run(*typed)
    assert done.code == 2
    assert done.out == []
    assert len(done.err) == 1
    assert done.err[0].startswith("spatialwhisperer: error: ")
    assert re.search(says, done.err[0])
    assert ".. " not in done.err[0]


def fails_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    from spatialwhisperer.cli import doctor

    def broken(_options: object) -> int:
        raise error

    monkeypatch.setattr(doctor, "run", broken)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("too\nlong"), 1, "error: too long"),
        (KeyError("no 'x' here"), 1, "error: no 'x' here"),
        (UsageError("not so"), 2, "error: not so"),
        (RuntimeError("odd"), 1, "error: RuntimeError: odd (--debug shows where)"),
        (ValueError(), 1, "error: ValueError (--debug shows where)"),
        (KeyboardInterrupt(), 130, "interrupted. What was finished is kept."),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_error_is_one_line_without_a_traceback(
    error: BaseException, code: int, line: str, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_with(error, monkeypatch)
    done = run("doctor")
    assert (done.code, done.err) == (code, [f"spatialwhisperer: {line}"])


def test_debug_shows_where_an_error_occurred(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    fails_with(ValueError("here"), monkeypatch)
    with pytest.raises(ValueError, match="here"):
        run("doctor", "--debug")


def test_the_message_of_a_key_error_has_no_quotes_around_it() -> None:
    assert one_line(KeyError("'x' not in .obs")) == "'x' not in .obs"


def test_arguments_that_a_message_names_are_given_as_options() -> None:
    options = {"mpp", "spot_pitch_um"}
    assert as_typed("Pass mpp=0.5, or mpp=1.", options) == "Pass mpp=0.5, or mpp=1. On the command line: --mpp."
    assert as_typed("Pass spot_pitch_um=….", options).endswith(" --spot-pitch-um.")
    assert as_typed("Pass model=… and 0.5=x.", options) == "Pass model=… and 0.5=x."


def test_a_wrong_environment_is_one_line() -> None:
    code = "import os\nos.environ['SPATIALWHISPERER_OFFLINE'] = 'perhaps'\nfrom spatialwhisperer.cli.main import main\n"
    ended = python("-c", code + "raise SystemExit(main(['encoders']))")
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        "spatialwhisperer: error: The environment variable SPATIALWHISPERER_OFFLINE must be 1 or 0 (or true, false, yes, no, "
        "on, off), not 'perhaps'."
    ]
