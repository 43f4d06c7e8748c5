"""The plan of the house as tests: who may import whom, and who may read what."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import spatialwhisperer

ROOT = Path(spatialwhisperer.__file__).parent
PACKAGE = "spatialwhisperer"
SPATIALDATA_ROOMS = ("_access", "datasets")


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {name: set() for name in modules()}
    for one in imports():
        graph[one.importer].add(one.module)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


def test_no_module_imports_a_private_module_of_another_package() -> None:
    wrong = []
    for one in imports():
        parts = one.module.split(".")
        for end in (i for i, part in enumerate(parts) if part.startswith("_")):
            owner = ".".join(parts[:end])
            if one.importer != owner and not one.importer.startswith(owner + "."):
                wrong.append(f"{one.importer}, line {one.line}: {one.module}")
    assert not wrong


def test_no_module_imports_a_private_name_of_another() -> None:
    wrong = [
        f"{one.importer}, line {one.line}: {name} of {one.module}"
        for one in imports()
        for name in one.names
        if name.startswith("_") and not name.startswith("__")
    ]
    assert not wrong


def test_nobody_reads_a_configuration_by_a_literal_key() -> None:
    """A configuration is typed: its keys are known in one place, and its values are attributes."""
    wrong = []
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.expr) and _reads_by_key(node):
                wrong.append(f"{name}, line {node.lineno}")
    assert not wrong


def _reads_by_key(node: ast.expr) -> bool:
    """``x.config["key"]`` or ``x.config.get("key")``."""
    if isinstance(node, ast.Subscript):
        held, key = node.value, node.slice
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
        held, key = node.func.value, node.args[0]
    else:
        return False
    return (
        isinstance(held, ast.Attribute)
        and held.attr == "config"
        and not (isinstance(held.value, ast.Name) and held.value.id == "dask")
        and isinstance(key, ast.Constant)
        and isinstance(key.value, str)
    )


def test_only_the_room_for_it_knows_how_a_spatialdata_is_built() -> None:
    wrong = []
    for name, path in modules().items():
        room = name.removeprefix(PACKAGE + ".").split(".")[0]
        if room in SPATIALDATA_ROOMS:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "spatialdata":
                taken = [a.name for a in node.names]
                if node.module != "spatialdata" or taken != ["SpatialData"]:
                    wrong.append(f"{name}, line {node.lineno}: {', '.join(taken)}")
    assert not wrong


def test_a_name_of_a_file_stands_once_in_a_room_or_says_the_room() -> None:
    """``expression.py`` in two rooms is fine, twice in one is not; a package is never named like a sibling module."""
    names = [path.relative_to(ROOT).with_suffix("").as_posix() for path in ROOT.rglob("*.py")]
    packages = {Path(name).parent.as_posix() for name in names if name.endswith("__init__")}
    assert not [name for name in names if name in packages]


@pytest.mark.parametrize("folder", sorted({path.parent for path in ROOT.rglob("*.py")}), ids=lambda p: p.name)
def test_a_room_holds_about_a_dozen_files(folder: Path) -> None:
    assert len([path for path in folder.glob("*.py") if path.name not in ("__init__.py", "__main__.py")]) <= 15


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_file_has_at_most_about_four_hundred_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


# ------------------------------------------------------------------------------------ reading the source


@dataclass(frozen=True)
class Import:
    """One module that is imported by another one; ``names`` are what is taken from it."""

    importer: str
    module: str
    names: tuple[str, ...]
    line: int


def module_name(path: Path) -> str:
    """Full name of the module in a file."""
    parts = (PACKAGE, *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    """All modules of the package."""
    return {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


@cache
def imports() -> list[Import]:
    """Every import of one module of the package by another."""
    known = modules()
    out = []
    for name, path in known.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
                out += _from(name, node, known)
            elif isinstance(node, ast.Import):
                out += [Import(name, a.name, (), node.lineno) for a in node.names if a.name in known]
    return out


def _from(importer: str, node: ast.ImportFrom, known: dict[str, Path]) -> list[Import]:
    """``from package import module`` imports the module, not the package alone."""
    out, names = [], []
    for alias in node.names:
        inner = f"{node.module}.{alias.name}"
        if inner in known:
            out.append(Import(importer, inner, (), node.lineno))
        else:
            names.append(alias.name)
    if names:
        out.append(Import(importer, str(node.module), tuple(names), node.lineno))
    return out
