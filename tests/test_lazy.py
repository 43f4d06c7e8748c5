"""Namespaces import a name when it is used, list public names alone, and are not hidden by their own modules."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A package with a namespace whose function ``embed`` lives in a module of the same name."""
    root = tmp_path / "lazy_example"
    (root / "tl").mkdir(parents=True)
    (root / "__init__.py").touch()
    (root / "tl" / "__init__.py").write_text(
        textwrap.dedent("""
            from spatialwhisperer._lazy import lazy_namespace
            __all__ = lazy_namespace(__name__, {"embed": "tl.embed", "other": "tl.embed", "gone": "tl.missing"})
        """)
    )
    (root / "tl" / "embed.py").write_text("def embed():\n    return 'embedded'\n\ndef other():\n    return 'other'\n")
    (root / "tl" / "_private.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("lazy_example.tl")
    for name in [n for n in sys.modules if n.partition(".")[0] == "lazy_example"]:
        del sys.modules[name]


def test_nothing_is_imported_before_it_is_used(package: Any) -> None:
    dir(package)
    assert "lazy_example.tl.embed" not in sys.modules
    assert package.embed() == "embedded"
    assert "lazy_example.tl.embed" in sys.modules


def test_a_module_of_the_same_name_does_not_hide_the_function(package: Any) -> None:
    for way in ("import lazy_example.tl.embed", "from lazy_example.tl.embed import other"):
        exec(way, {})
        assert package.embed() == "embedded"
    assert isinstance(importlib.import_module("lazy_example.tl.embed"), ModuleType)
    assert importlib.reload(sys.modules["lazy_example.tl.embed"]).other() == "other"
    assert package.embed() == "embedded"
    names: dict[str, Any] = {}
    exec("from lazy_example.tl import embed, _private", names)
    assert names["embed"]() == "embedded"
    assert isinstance(names["_private"], ModuleType)


def test_only_public_names_are_listed(package: Any) -> None:
    import lazy_example.tl._private  # noqa: F401

    assert dir(package) == ["embed", "gone", "other"] == package.__all__


def test_a_name_that_is_not_there_names_what_is(package: Any) -> None:
    with pytest.raises(
        AttributeError, match=r"module 'lazy_example.tl' has no attribute 'embd'; it has embed, gone, oth"
    ):
        package.embd  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'embd'"):
        exec("from lazy_example.tl import embd", {})
    assert not hasattr(package, "embd")
    with pytest.raises(ModuleNotFoundError, match="missing"):
        package.gone  # noqa: B018


def test_a_name_can_be_replaced_for_a_test(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "embed", lambda: "replaced")
    assert package.embed() == "replaced"
    monkeypatch.undo()
    assert package.embed() == "embedded"


def test_the_namespaces_of_the_package_list_what_their_blocks_for_type_checkers_import() -> None:
    """Every public name resolves, and an editor sees the same names."""
    import ast

    import spatialwhisperer

    for name in ("pp", "tl", "pl", "models", "datasets"):
        module = importlib.import_module(f"spatialwhisperer.{name}")
        tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
        block = next(n for n in tree.body if isinstance(n, ast.If))
        seen = {a.asname or a.name: n.module for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
        assert sorted(seen) == dir(module) == module.__all__
        for public, place in seen.items():
            assert getattr(module, public) is getattr(importlib.import_module(str(place)), public)
    assert set(spatialwhisperer.__all__) < set(dir(spatialwhisperer))


def test_a_submodule_that_is_imported_first_does_not_win() -> None:
    code = """
        import json
        import spatialwhisperer.tl.embed, spatialwhisperer.tl.train
        import spatialwhisperer as sw
        print(json.dumps([callable(sw.tl.embed), callable(sw.tl.train), "_training" in dir(sw.tl)]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [True, True, False]
