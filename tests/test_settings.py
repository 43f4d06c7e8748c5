from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import torch

from spatialwhisperer import _keys
from spatialwhisperer._messages import SpatialWhispererWarning, import_torch_stack, listing, progress, require, warn
from spatialwhisperer._provenance import record, recorded
from spatialwhisperer._random import isolated_rng
from spatialwhisperer.settings import Settings, settings


@pytest.fixture
def clean_env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [n for n in os.environ if n.startswith("SPATIALWHISPERER_")]:
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def adata() -> ad.AnnData:
    return ad.AnnData(np.zeros((3, 2), dtype=np.float32))


def test_defaults(clean_env: pytest.MonkeyPatch) -> None:
    clean_env.setenv("XDG_CACHE_HOME", "cache-home")
    fresh = Settings()
    assert (fresh.device, fresh.offline, fresh.progress) == (None, False, True)
    assert fresh.batch_size > 0
    assert fresh.cache_dir == Path("cache-home", "spatialwhisperer")


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


@pytest.mark.parametrize("value", [0, -1, 2.5, "8", None])
def test_batch_size_is_checked(value: object) -> None:
    before = settings.batch_size
    with pytest.raises(ValueError, match="batch_size"):
        settings.batch_size = value
    assert settings.batch_size == before


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
    with settings.override(device="meta"):
        assert settings.resolve_device("cpu") == "cpu"
        assert settings.resolve_device() == "meta"
    with settings.override(device=None):
        assert settings.resolve_device() == ("cuda" if torch.cuda.is_available() else "cpu")


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(1))  # noqa: NPY002


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def test_isolated_rng_leaves_the_process_alone() -> None:
    with isolated_rng(None):
        seed_all(1)
        expected = draw()
        seed_all(1)
        with isolated_rng(99):
            draw()
        assert draw() == expected


def test_isolated_rng_is_reproducible() -> None:
    draws = []
    for seed in (5, 5, 6):
        with isolated_rng(seed):
            draws.append(draw())
    assert draws[0] == draws[1]
    assert all(a != b for a, b in zip(draws[0], draws[2], strict=True))


def test_isolated_rng_without_a_seed_continues_the_stream() -> None:
    with isolated_rng(None):
        seed_all(2)
        expected = draw()
        seed_all(2)
        with isolated_rng(None):
            assert draw() == expected


@pytest.mark.parametrize("value", [None, "7"])
def test_isolated_rng_restores_after_an_error(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    else:
        monkeypatch.setenv("PL_GLOBAL_SEED", value)
    before = random.getstate()

    def fail_inside() -> None:
        with isolated_rng(3):
            os.environ["PL_GLOBAL_SEED"] = "3"
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail_inside()
    assert random.getstate() == before
    assert os.environ.get("PL_GLOBAL_SEED") == value


def test_record_and_recorded(adata: ad.AnnData) -> None:
    parameters = {
        "encoder": "B/plasma",
        "seed": np.int64(3),
        "mpp": np.float64(0.5),
        "scale": np.array([1, 2]),
        "genes": {"b", "a"},
    }
    record(adata, "sw_label", **parameters)
    record(adata, "sw_query", text="glands", folder=Path("a"))
    assert recorded(adata, "sw_label") == {
        "encoder": "B/plasma",
        "seed": 3,
        "mpp": 0.5,
        "scale": [1, 2],
        "genes": ["a", "b"],
    }
    assert recorded(adata, "sw_query") == {"text": "glands", "folder": "a"}
    assert recorded(adata, "absent") is None
    assert adata.uns[_keys.UNS]["sw_label"]["version"]


def test_record_overwrites_one_key_only(adata: ad.AnnData) -> None:
    record(adata, "a", x=1)
    record(adata, "b", x=2)
    record(adata, "a", x=3)
    assert (recorded(adata, "a"), recorded(adata, "b")) == ({"x": 3}, {"x": 2})


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_record_survives_storage(adata: ad.AnnData, tmp_path: Path, suffix: str) -> None:
    record(adata, "sw_label", classes=["B/plasma cell", "T cell"], threshold=None)
    path = tmp_path / f"a.{suffix}"
    getattr(adata, f"write_{suffix}")(path)
    loaded = ad.read_h5ad(path) if suffix == "h5ad" else ad.read_zarr(path)
    assert recorded(loaded, "sw_label") == {"classes": ["B/plasma cell", "T cell"], "threshold": None}


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


def test_found() -> None:
    assert listing([]) == "none"
    assert listing(["a", 1]) == "a, 1"
    assert listing(range(20), limit=2) == "0, 1, … (20 in all)"
    assert listing(name for name in "ab") == "a, b"


def test_warn_points_at_the_caller() -> None:
    def public() -> None:
        warn("look")

    with pytest.warns(SpatialWhispererWarning, match="look") as caught:
        public()
    assert caught[0].filename == __file__
    assert caught[0].lineno > public.__code__.co_firstlineno + 1


def test_progress_is_silent_when_off_or_not_a_terminal() -> None:
    """Run apart, since pytest replaces stderr."""
    code = (
        "from spatialwhisperer._utils import progress\n"
        "from spatialwhisperer.settings import settings\n"
        "assert sum(progress(range(5), desc='sum')) == 10\n"
        "settings.progress = False\n"
        "assert sum(progress(range(5))) == 10"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_progress_counts_by_hand() -> None:
    with settings.override(progress=False), progress(total=3, unit="tile") as bar:
        bar.update(2)


def test_keys_hold_no_character_that_storage_refuses() -> None:
    assert _keys.features("hf-hub:MahmoodLab/UNI 2") == "X_hf-hub_MahmoodLab_UNI_2"
    assert (_keys.confidence("a"), _keys.scores("a")) == ("a_confidence", "a_scores")
