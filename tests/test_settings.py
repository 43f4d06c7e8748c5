from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spatialwhisperer._settings import Settings, settings


@pytest.fixture
def clean_env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [n for n in os.environ if n.startswith("SPATIALWHISPERER_")]:
        monkeypatch.delenv(name)
    return monkeypatch


def test_defaults(clean_env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_env.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))
    fresh = Settings()
    assert (fresh.device, fresh.offline, fresh.progress) == (None, False, True)
    assert fresh.batch_size > 0
    assert fresh.cache_dir == tmp_path / "cache-home" / "spatialwhisperer"


@pytest.mark.parametrize("value", [None, "", "cache-home", "./cache-home"])
def test_a_cache_folder_of_the_system_that_is_no_absolute_path_is_ignored(
    value: str | None, clean_env: pytest.MonkeyPatch
) -> None:
    clean_env.delenv("XDG_CACHE_HOME", raising=False)
    if value is not None:
        clean_env.setenv("XDG_CACHE_HOME", value)
    assert Settings().cache_dir == Path("~/.cache/spatialwhisperer").expanduser()


def test_environment_sets_each_value(clean_env: pytest.MonkeyPatch) -> None:
    for name, value in {
        "DEVICE": "cpu",
        "BATCH_SIZE": "7",
        "CACHE_DIR": "~/c",
        "OFFLINE": "1",
        "PROGRESS": "off",
    }.items():
        clean_env.setenv(f"SPATIALWHISPERER_{name}", value)
    fresh = Settings()
    assert (fresh.device, fresh.batch_size, fresh.offline, fresh.progress) == ("cpu", 7, True, False)
    assert fresh.cache_dir == Path("~/c").expanduser()


@pytest.mark.parametrize(
    ("text", "value"), [("0", False), ("False", False), (" no ", False), ("", False), ("yes", True)]
)
def test_environment_flags(clean_env: pytest.MonkeyPatch, text: str, value: bool) -> None:
    clean_env.setenv("SPATIALWHISPERER_OFFLINE", text)
    assert Settings().offline is value


def test_unknown_setting_names_what_exists() -> None:
    with pytest.raises(AttributeError, match="'batchsize'.*batch_size"):
        settings.batchsize = 3
    with pytest.raises(AttributeError, match="nothing"), settings.override(nothing=1):
        pass


@pytest.mark.parametrize("value", [0, -1, 2.5, "8", None, True])
def test_batch_size_is_checked(value: Any) -> None:
    before = settings.batch_size
    with pytest.raises(ValueError, match="batch_size"):
        settings.batch_size = value
    assert settings.batch_size == before


@pytest.mark.parametrize("name", ["offline", "progress", "verbose"])
@pytest.mark.parametrize("value", ["no", 0, None])
def test_switches_are_true_or_false(name: str, value: object) -> None:
    before = getattr(settings, name)
    with pytest.raises(TypeError, match=f"settings.{name} must be True or False, not {value!r}"):
        setattr(settings, name, value)
    assert getattr(settings, name) is before


@pytest.mark.parametrize("text", ["many", "-3", "0", "2.5"])
def test_an_environment_that_names_no_batch_size_is_told_so(clean_env: pytest.MonkeyPatch, text: str) -> None:
    clean_env.setenv("SPATIALWHISPERER_BATCH_SIZE", text)
    with pytest.raises(ValueError, match=f"SPATIALWHISPERER_BATCH_SIZE must be a positive whole number, not '{text}'"):
        Settings()


def test_cache_dir_becomes_a_path() -> None:
    with settings.override(cache_dir="~/somewhere"):
        assert settings.cache_dir == Path("~/somewhere").expanduser()


def test_override_restores_after_an_error() -> None:
    before = settings.batch_size

    def fail_inside() -> None:
        with settings.override(batch_size=before + 1, progress=False):
            assert settings.batch_size == before + 1
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail_inside()
    assert settings.batch_size == before


def test_override_restores_after_a_refused_value() -> None:
    before = (settings.device, settings.batch_size)
    with pytest.raises(ValueError, match="batch_size"), settings.override(device="meta", batch_size=0):
        pass
    assert (settings.device, settings.batch_size) == before


def test_resolve_device() -> None:
    with settings.override(device="cpu:0"):
        assert settings.resolve_device("cpu") == "cpu"
        assert settings.resolve_device() == "cpu:0"
    with settings.override(device=None):
        assert settings.resolve_device() == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_cache_folder_is_a_path(tmp_path: Path) -> None:
    before = settings.cache_dir
    with pytest.raises(TypeError, match="settings.cache_dir must be a path, not 7"), settings.override(cache_dir=7):
        pass
    assert settings.cache_dir == before
    with settings.override(cache_dir=str(tmp_path)):
        assert settings.cache_dir == tmp_path


def test_a_switch_of_the_environment_is_on_or_off(clean_env: pytest.MonkeyPatch) -> None:
    clean_env.setenv("SPATIALWHISPERER_OFFLINE", "n")
    with pytest.raises(ValueError, match=r"SPATIALWHISPERER_OFFLINE must be 1 or 0 .*not 'n'"):
        Settings()


def test_a_cache_folder_has_a_name(clean_env: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="cache_dir must be a path, not ''"):
        settings.cache_dir = ""  # type: ignore[assignment]
    clean_env.setenv("SPATIALWHISPERER_CACHE_DIR", "  ")
    assert Settings().cache_dir.name == "spatialwhisperer"


def test_a_batch_size_may_be_a_number_of_numpy() -> None:
    with settings.override(batch_size=np.int64(5)):
        assert settings.batch_size == 5
        assert type(settings.batch_size) is int
