"""Which tests reach a line: measured once over the fast tests, with coverage's contexts, and kept in a folder that git ignores."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from tools.mutants.sample import PACKAGE

if TYPE_CHECKING:
    from tools.mutants.mutations import Mutation

CACHE = Path(".mutants")

STEPS = 4
"""How many imports may lie between a near test and the module with a fault."""

ENOUGH = 24
"""So many near test files are taken."""


@dataclass(frozen=True)
class Near:
    """The test files that are near a module by what imports what: a stand-in for the measurement, which needs no run of all tests."""

    root: Path
    importers: dict[str, set[str]]
    """For each file, the files that import it."""

    @classmethod
    def of(cls, root: Path) -> Near:
        """Read the imports of a project."""
        return cls(root, _importers(root))

    @cached_property
    def _texts(self) -> dict[str, str]:
        paths = sorted((self.root / "tests").rglob("test_*.py"), key=lambda path: (path.stat().st_size, path))
        return {path.relative_to(self.root).as_posix(): path.read_text(encoding="utf-8") for path in paths}

    def files(self, file: str, mirror: str | None) -> list[str]:
        """Test files, the nearest first: the mirroring one, those that name the module, those that name a module that imports it, and so on.

        Of equally near ones the shorter come first.
        """
        found = dict.fromkeys([mirror] if mirror else [])
        ring, seen = {file}, {file}
        for _ in range(STEPS):
            if len(found) >= ENOUGH:
                break
            names = [named for module in ring for named in _namings(_module(module))]
            found |= dict.fromkeys(test for test, text in self._texts.items() if any(name in text for name in names))
            ring = {importer for module in ring for importer in self.importers.get(module, ())} - seen
            seen |= ring
        return list(found)[:ENOUGH]


@dataclass(frozen=True)
class Reach:
    """What the fast tests reach, without faults."""

    lines: dict[str, dict[int, list[str]]]
    """For each file, the tests that reach each of its lines."""
    seconds: dict[str, float]
    """How long each test takes that passes."""
    importers: dict[str, set[str]]
    """For each file, the files that import it."""

    def tests(self, mutation: Mutation, mirror: str | None) -> list[str]:
        """The tests that could notice a fault: those of the file that mirrors the module first, the most specific ones first in a file.

        What runs at import, or is compiled, is reached by no line: the tests of the whole file count then, or of the files that import it.
        """
        chosen = self._line(mutation)
        if not chosen:
            chosen = self._files({mutation.file} | self.importers.get(mutation.file, set()))
        if mirror:
            chosen |= {test for test in self.seconds if test.startswith(mirror + "::")}
        chosen &= set(self.seconds)
        return self._ordered(chosen, mirror)

    def _line(self, mutation: Mutation) -> set[str]:
        if mutation.function is None:
            return set()
        return set(self.lines.get(mutation.file, {}).get(mutation.line, ()))

    def _files(self, files: set[str]) -> set[str]:
        return {test for file in files for tests in self.lines.get(file, {}).values() for test in tests}

    def _ordered(self, tests: set[str], mirror: str | None) -> list[str]:
        width = self._width
        files: dict[str, list[str]] = defaultdict(list)
        for test in sorted(tests, key=lambda test: (width.get(test, 0), test)):
            files[test.split("::")[0]].append(test)
        order = sorted(files, key=lambda file: (file != mirror, width.get(files[file][0], 0), file))
        return [test for file in order for test in files[file]]

    @cached_property
    def _width(self) -> dict[str, int]:
        """How many lines each test reaches: the fewer, the more it is about them."""
        return dict(Counter(test for lines in self.lines.values() for tests in lines.values() for test in tests))


def mirror(root: Path, file: str) -> str | None:
    """The test file of a module: ``tests/<room>/test_<module>.py``, names without their first underscore."""
    *folders, name = Path(file).relative_to(PACKAGE).parts
    path = Path("tests", *(folder.lstrip("_") for folder in folders), f"test_{name.lstrip('_')}")
    return path.as_posix() if (root / path).exists() else None


def slow_files(root: Path, mutation: Mutation, reach: Reach) -> list[str]:
    """Test files whose slow tests are about a line that no fast test reaches: the mirroring one, and those that import the module."""
    if mutation.function is not None and reach.lines.get(mutation.file, {}).get(mutation.line):
        return []
    module = _module(mutation.file)
    about = [
        p.relative_to(root).as_posix() for p in sorted((root / "tests").rglob("test_*.py")) if module in p.read_text()
    ]
    return list(dict.fromkeys([*filter(None, [mirror(root, mutation.file)]), *about]))


def measured(root: Path, environment: dict[str, str], *, keep: bool) -> Reach:
    """The measurement for the sources as they are, from the cache or made anew; ``keep`` takes the last one, whatever has changed."""
    digest = _digest(root)
    cache = CACHE / "reach.json"
    stored = json.loads(cache.read_text()) if cache.exists() else {}
    if stored.get("digest") != digest and not (keep and stored):
        print("Measuring which tests reach which lines: this takes some minutes", flush=True)
        _run(root, environment)
        stored = {"digest": digest, **read(root, CACHE.resolve() / "coverage", CACHE.resolve() / "tests.xml")}
        cache.write_text(json.dumps(stored))
    lines = {
        file: {int(line): [stored["names"][i] for i in tests] for line, tests in by_line.items()}
        for file, by_line in stored["lines"].items()
    }
    return Reach(lines, stored["seconds"], _importers(root))


def _digest(root: Path) -> str:
    digest = hashlib.sha256()
    for folder in ("src", "tests"):
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _run(root: Path, environment: dict[str, str]) -> None:
    CACHE.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pytest", "-m", "not slow", "-q", "-n", "auto", "--dist", "loadfile"]
    command += ["-p", "no:cacheprovider", "--cov=spatialwhisperer", "--cov-context=test", "--cov-report="]
    command += [f"--junitxml={CACHE.resolve() / 'tests.xml'}"]
    environment = {**environment, "COVERAGE_FILE": str(CACHE.resolve() / "coverage")}
    subprocess.run(command, cwd=root, env=environment, check=False)


def read(root: Path, coverage_file: Path, tests_file: Path) -> dict[str, object]:
    """What a run with coverage and a file of results has measured, with tests as numbers in a list of names."""
    from coverage import CoverageData

    data = CoverageData(str(coverage_file))
    data.read()
    names = sorted({context.rpartition("|")[0] for context in data.measured_contexts() if "|" in context})
    number = {name: i for i, name in enumerate(names)}
    in_file: dict[str, set[str]] = defaultdict(set)
    for name in names:
        in_file[name.split("::")[0]].add(name)
    lines: dict[str, dict[int, list[int]]] = {}
    for path in data.measured_files():
        file = Path(path).resolve().relative_to(root.resolve()).as_posix()
        for line, contexts in data.contexts_by_lineno(path).items():
            tests: set[str] = set()
            for context in filter(lambda context: "|" in context, contexts):
                name, _, phase = context.rpartition("|")
                # A fixture runs in the first test that asks for it; others in that file use what it has made
                tests |= in_file[name.split("::")[0]] if phase == "setup" else {name}
            if tests:
                lines.setdefault(file, {})[line] = sorted(number[test] for test in tests)
    return {"names": names, "lines": lines, "seconds": _passed(names, tests_file)}


def _passed(names: list[str], tests_file: Path) -> dict[str, float]:
    """The time of each test that passed, by its name."""
    cases = {}
    for case in ElementTree.parse(tests_file).iter("testcase"):
        if not any(case.find(bad) is not None for bad in ("failure", "error", "skipped")):
            cases[case.get("classname"), case.get("name")] = float(case.get("time", 0))
    return {name: cases[_case(name)] for name in names if _case(name) in cases}


def _case(name: str) -> tuple[str, str]:
    """A test as the file of results names it."""
    path, bracket, parameters = name.partition("[")
    first, *others = path.split("::")
    parts = [first.removesuffix(".py").replace("/", "."), *others]
    return ".".join(parts[:-1]), parts[-1] + bracket + parameters


def _importers(root: Path) -> dict[str, set[str]]:
    files = {path.relative_to(root).as_posix(): path for path in (root / PACKAGE).rglob("*.py")}
    modules = {_module(file): file for file in files}
    importers: dict[str, set[str]] = defaultdict(set)
    for file, path in files.items():
        for node in ast.walk(ast.parse(path.read_bytes())):
            for name in _imported(node):
                if name in modules:
                    importers[modules[name]].add(file)
    return importers


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def _namings(module: str) -> tuple[str, str]:
    """How a test may name a module: in full, or as what is imported from its room."""
    room, _, name = module.rpartition(".")
    return module, f"from {room} import {name}"


def _module(file: str) -> str:
    return ".".join(Path(file).relative_to("src").with_suffix("").parts).removesuffix(".__init__")
