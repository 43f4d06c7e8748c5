"""What imports what in ``src``: read from the source, imports inside functions and under TYPE_CHECKING included."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import spatialwhisperer

ROOT = Path(spatialwhisperer.__file__).parent
PACKAGE = "spatialwhisperer"


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


def modules() -> dict[str, Path]:
    """All modules of the package."""
    return {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


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
