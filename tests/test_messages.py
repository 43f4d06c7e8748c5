"""Messages to the user, on stderr and in errors."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import spatialwhisperer
from spatialwhisperer._messages import (
    SpatialWhispererWarning,
    import_torch_stack,
    inform,
    joined,
    listing,
    progress,
    require,
    shortened,
    warn,
)
from spatialwhisperer._settings import settings


def test_require_imports_or_names_the_extra() -> None:
    assert require("json", extra="text").__name__ == "json"
    with pytest.raises(ImportError, match=r"not_there_at_all.*pip install 'spatialwhisperer\[text\]'"):
        require("not_there_at_all", extra="text")


def test_import_torch_stack_names_the_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that fails as torchvision does when it comes from another build than torch."""
    (tmp_path / "broken_pair.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    (tmp_path / "broken_else.py").write_text("raise RuntimeError('no such device')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"torch and torchvision.*pip install"):
        import_torch_stack("broken_pair")
    with pytest.raises(RuntimeError, match="no such device"):
        import_torch_stack("broken_else")
    assert import_torch_stack("json").__name__ == "json"


def test_import_torch_stack_leaves_random_numbers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Lightning is imported, which draws some."""
    (tmp_path / "draws_numbers.py").write_text("import random\nrandom.random()")
    monkeypatch.syspath_prepend(tmp_path)
    before = random.getstate()
    import_torch_stack("draws_numbers")
    assert random.getstate() == before


def test_listing_shows_the_first_few_and_how_many_there_are() -> None:
    assert listing([]) == "none"
    assert listing(["a", 1]) == "a, 1"
    assert listing(range(20), limit=2) == "0, 1, … (20 in all)"
    assert listing(name for name in "ab") == "a, b"


def test_warn_points_at_the_line_outside_the_package() -> None:
    home = Path(spatialwhisperer.__file__).parent
    inside: dict[str, Any] = {"warn": warn}
    code = "def inner():\n    warn('look')\ndef public():\n    inner()\n"
    exec(compile(code, str(home / "tl" / "somewhere.py"), "exec"), inside)
    for call in (inside["public"], lambda: warn("look")):
        with pytest.warns(SpatialWhispererWarning, match="look") as caught:
            call()
        assert caught[0].filename == __file__


def test_a_package_of_a_like_name_is_outside() -> None:
    like: dict[str, Any] = {"warn": warn}
    place = str(Path(spatialwhisperer.__file__).parent) + "_extras/somewhere.py"
    exec(compile("def public():\n    warn('look')\n", place, "exec"), like)
    with pytest.warns(SpatialWhispererWarning, match="look") as caught:
        like["public"]()
    assert caught[0].filename == place


def test_inform_is_silent_when_it_is_told_so(capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="spatialwhisperer"):
        with settings.override(verbose=True):
            inform("a choice")
        assert capsys.readouterr().err == "spatialwhisperer: a choice\n"
        with settings.override(verbose=False):
            inform("another choice")
    assert capsys.readouterr().err == ""
    assert caplog.messages == ["a choice", "another choice"]


def test_progress_is_silent_when_off_or_not_a_terminal() -> None:
    """Run apart, since pytest replaces stderr."""
    code = (
        "from spatialwhisperer._messages import progress\n"
        "from spatialwhisperer._settings import settings\n"
        "assert sum(progress(range(5), desc='sum')) == 10\n"
        "settings.progress = False\n"
        "assert sum(progress(range(5))) == 10"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_progress_counts_by_hand() -> None:
    with settings.override(progress=False), progress(total=3, unit="tile") as bar:
        bar.update(2)


def test_numbers_are_joined_as_in_a_sentence() -> None:
    assert [joined([100.0]), joined([100, 154.5]), joined((100, 154, 300))] == [
        "100",
        "100 and 154.5",
        "100, 154 and 300",
    ]


def test_a_long_text_is_shortened() -> None:
    assert shortened("x" * 80) == "x" * 80
    assert shortened("x" * 81) == "x" * 79 + "…"
    assert shortened("fat cell tissue", 10) == "fat cell…"
