from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

import pytest

HEAVY = ("torch", "scvi", "timm", "lightning", "transformers", "spatialdata", "squidpy", "scanpy", "anndata")
LIMIT_S = 0.5


def in_fresh_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{code}\n{done.stderr}")
    return done.stdout


def heavy_after(code: str) -> list[str]:
    """Heavy packages that a fresh process has loaded after running the code."""
    return json.loads(
        in_fresh_process(f"{code}\nimport json, sys\nprint(json.dumps([m for m in {HEAVY} if m in sys.modules]))")
    )


def seconds(code: str, runs: int) -> float:
    took = []
    for _ in range(runs):
        start = time.perf_counter()
        in_fresh_process(code)
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def test_import_loads_nothing_heavy() -> None:
    assert heavy_after("import spatialwhisperer") == []


@pytest.mark.slow
@pytest.mark.parametrize("namespace", ["pp", "tl", "pl", "datasets"])
def test_namespaces_load_nothing_heavy(namespace: str) -> None:
    """Neither reaching a namespace nor listing what it holds may start torch; only a call may."""
    code = f"import spatialwhisperer.{namespace} as n\ndir(n)\n[getattr(n, name) for name in n.__all__]"
    assert heavy_after(code) == []


def test_import_is_fast() -> None:
    """The machine may be busy, so the best of five medians counts."""
    in_fresh_process("import spatialwhisperer")
    best = float("inf")
    for _ in range(5):
        best = min(best, seconds("import spatialwhisperer", 3) - seconds("pass", 3))
        if best < LIMIT_S:
            return
    pytest.fail(f"import spatialwhisperer takes {best:.2f} s; the limit is {LIMIT_S} s")


def test_dir_lists_namespaces() -> None:
    import spatialwhisperer as sw

    assert {"pp", "tl", "pl", "models", "datasets", "settings"} <= set(dir(sw))


def test_unknown_attribute_names_what_exists() -> None:
    import spatialwhisperer as sw

    with pytest.raises(AttributeError, match=r"no attribute 'preprocessing'.*\bpp\b"):
        sw.preprocessing  # noqa: B018


def test_settings_stay_the_settings() -> None:
    """A module of the package that imports the settings first must not replace them by their module."""
    code = (
        "import spatialwhisperer as sw\n"
        "from spatialwhisperer._settings import settings\n"
        "assert sw.settings is settings, type(sw.settings)"
    )
    in_fresh_process(code)


@pytest.mark.slow
def test_public_names_are_not_hidden_by_modules() -> None:
    """Importing the file ``tl/embed.py`` binds ``tl.embed`` to the module; the function must win in the end."""
    code = """
import importlib, json, pkgutil, types
import spatialwhisperer as sw
hidden = []
for name in ["pp", "tl", "pl", "models", "datasets"]:
    package = importlib.import_module(f"spatialwhisperer.{name}")
    for found in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{found.name}")
    hidden += [f"{name}.{n}" for n in package.__all__ if isinstance(getattr(package, n), types.ModuleType)]
print(json.dumps(hidden))
"""
    assert json.loads(in_fresh_process(code)) == []
