from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement

import spatialwhisperer as sw
from spatialwhisperer.cli import doctor

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_sound_installation_is_found_sound(run: Callable[..., Any]) -> None:
    done = run("doctor")
    assert done.code == 0
    assert done.out[-1] == "Everything that is needed works."
    text = "\n".join(done.out)
    for name in ("Python", "torch", "spatialdata", "device", "memory", "cache folder", "offline switch", "extra wsi"):
        assert f"  {name} " in text
    assert "her2st-mini opens, with 10 labels" in text


@pytest.mark.parametrize(
    ("needed", "says"),
    [("numpy>=99", r"99 is needed: pip install 'numpy>=99'"), ("no-such-package>=1", "not installed: pip install")],
)
def test_a_package_that_is_missing_or_too_old_is_broken(
    needed: str, says: str, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_requirements", lambda extra="": [] if extra else [Requirement(needed)])
    done = run("doctor")
    assert done.code == 1
    line = next(line for line in done.out if line.startswith("BROKEN"))
    assert says in line
    assert done.out[-1] == f"Does not work: {Requirement(needed).name}."


@pytest.mark.parametrize("needed", [["no-such-package"], []], ids=["not installed", "not known"])
def test_an_extra_that_is_missing_names_the_line_that_installs_it(
    needed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_requirements", lambda _="": [Requirement(one) for one in needed])
    found = {one.name: one for one in doctor._extras()}
    assert found["extra wsi"].state == "absent"
    assert found["extra wsi"].text.endswith("pip install 'spatialwhisperer[wsi]'")


def test_extras_add_what_the_package_itself_does_not_need() -> None:
    assert {one.name for one in doctor._requirements("harmony")} == {"harmonypy"}
    assert "harmonypy" not in {one.name for one in doctor._requirements()}


def test_every_extra_that_users_install_has_a_line() -> None:
    stated = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert set(doctor._EXTRAS) == set(stated) - {"bench", "doc", "lint", "test"}


def test_a_model_that_does_not_open_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    from spatialwhisperer.models import default

    def broken() -> None:
        raise ValueError("A file of it\nis cut off.")

    monkeypatch.setattr(default, "default_model", broken)
    (found,) = doctor._model()
    assert (found.state, found.text) == ("BROKEN", "A file of it is cut off.")


def test_the_offline_switch_and_a_cache_that_is_not_there_are_named(tmp_path: Path) -> None:
    with sw.settings.override(offline=True, cache_dir=tmp_path / "new"):
        cache, offline = doctor._places()
    assert "made when it is needed" in cache.text
    assert offline.text.startswith("on: nothing is downloaded")
