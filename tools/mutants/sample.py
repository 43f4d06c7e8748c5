"""The faults that are tried: a seeded sample that meets every room, spread over the files by their length."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

from tools.mutants.mutations import Mutation, mutations

PACKAGE = Path("src/spatialwhisperer")


def room(file: str) -> str:
    """The room that a file lies in: the folder below the package, or ``top`` for files beside the folders."""
    parts = Path(file).relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else "top"


def all_mutations(root: Path, only: str | None = None) -> dict[str, list[Mutation]]:
    """The faults that can be seeded in each file whose path contains ``only``."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        file = path.relative_to(root).as_posix()
        if only is None or only in file:
            found[file] = mutations(file, path.read_bytes())
    return {file: faults for file, faults in found.items() if faults}


def draw(faults: dict[str, list[Mutation]], n: int, seed: int) -> list[Mutation]:
    """``n`` different faults: of each file about as many as it has lines that can be changed, of each room at least one.

    The kind is drawn first, each with the same probability, since most places are constants.
    """
    rng = random.Random(seed)
    drawn: list[Mutation] = []
    for file in _files(faults, n, rng):
        kinds: dict[str, list[Mutation]] = defaultdict(list)
        taken = {(m.file, m.line) for m in drawn}
        for fault in faults[file]:
            if (fault.file, fault.line) not in taken:
                kinds[fault.kind].append(fault)
        if kinds:
            drawn.append(rng.choice(kinds[rng.choice(sorted(kinds))]))
    return sorted(drawn, key=lambda m: (m.file, m.start))


def _files(faults: dict[str, list[Mutation]], n: int, rng: random.Random) -> list[str]:
    """One file for each fault to be drawn: evenly spaced on the list of all lines, the rooms left out then in place of some."""
    names = list(faults)
    rng.shuffle(names)
    names.sort(key=room)
    lines = [name for name in names for _ in {fault.line for fault in faults[name]}]
    step, first = len(lines) / n, rng.random()
    files = [lines[min(int((first + i) * step), len(lines) - 1)] for i in range(n)]
    for missing in sorted({room(name) for name in names} - {room(file) for file in files}):
        most = max(files, key=lambda file: (files.count(file), file))
        files[files.index(most)] = rng.choice([name for name in names if room(name) == missing])
    return files
