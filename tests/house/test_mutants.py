"""The tool that seeds faults: which it finds, how it draws them, and that the list of faults without effect is up to date."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tools.mutants.mutations import mutations
from tools.mutants.reach import Reach, mirror
from tools.mutants.report import Equivalent, Figures, described
from tools.mutants.sample import all_mutations, draw, room
from tools.mutants.trial import Trial

ROOT = Path(__file__).parents[2]
HERE = "src/spatialwhisperer/tl/embed.py"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("x = a < b", {"x = a <= b", "x = a > b"}),
        ("x = a is not None", {"x = a is None"}),
        ("x = a + 2", {"x = a - 2", "x = a + 3", "x = a + 4"}),
        ("x = 'a' + b", set()),
        ("x = 0.5", {"x = 0.6"}),
        ("x = True", {"x = False"}),
        ("x += y", {"x -= y"}),
        ("x = not a", {"x = (a)"}),
        ("x = a and (b or c)", {"x = a or (b or c)", "x = a and (b and c)"}),
        ("x = a if b else c", {"x = a if not (b) else c"}),
        ("x = [y for y in z if y]", {"x = [y for y in z if not (y)]"}),
        ("f(a, b)", {"pass", "f(b, a)"}),
        ("x.y = a", {"pass"}),
        ("x = max(a, b)", set()),
        ("warn(f'{a + 1}')", {"pass"}),
        ("raise ValueError(a + 1)", set()),
        ("x: int | None = None", set()),
        ("x = f(size=3, width=3)", {"x = f(size=3, width=4)", "x = f(size=3, width=5)"}),
        (
            "def f(x: int = 3) -> int | None: ...",
            {"def f(x: int = 4) -> int | None: ...", "def f(x: int = 5) -> int | None: ..."},
        ),
    ],
)
def test_faults_of_a_line(line: str, expected: set[str]) -> None:
    source = line.encode()
    assert {fault.applied(source).decode() for fault in mutations("a.py", source)} == expected


def test_a_fault_is_told_by_its_lines_and_the_function_it_lies_in() -> None:
    source = "LIMIT = 1\n\n\ndef f(a):\n    é = g(\n        a,\n        2.0,\n    )\n    return é\n".encode()
    outside, inside = (next(m for m in mutations("a.py", source) if m.line == line) for line in (1, 7))
    assert outside.function is None
    assert inside.function == (5, 9)
    assert inside.lines(source) == ("2.0,", "2.4,")
    exchanged = next(m for m in mutations("a.py", source) if m.kind == "swapped arguments")
    assert exchanged.lines(source) == ("a, 2.0,", "2.0, a,")


@pytest.fixture(scope="module")
def faults() -> dict[str, list]:
    return all_mutations(ROOT)


def test_every_fault_leaves_a_source_that_can_be_parsed(faults: dict[str, list]) -> None:
    for file, found in list(faults.items())[::60]:
        source = (ROOT / file).read_bytes()
        for fault in found:
            ast.parse(fault.applied(source))
            assert fault.applied(source) != source


def test_a_sample_is_that_of_its_seed_and_meets_every_room(faults: dict[str, list]) -> None:
    one, again, other = draw(faults, 60, 1), draw(faults, 60, 1), draw(faults, 60, 2)
    assert one == again != other
    assert len({(m.file, m.line) for m in one}) == len(one) == 60
    assert {room(m.file) for m in one} == {room(file) for file in faults}
    assert len({m.file for m in one}) > 40


def test_a_module_is_mirrored_by_its_test_file() -> None:
    assert mirror(ROOT, "src/spatialwhisperer/_access/slide.py") == "tests/access/test_slide.py"
    assert mirror(ROOT, "src/spatialwhisperer/tl/_tissue/clusters.py") == "tests/tl/tissue/test_clusters.py"
    assert mirror(ROOT, "src/spatialwhisperer/_keys.py") == "tests/test_keys.py"
    assert mirror(ROOT, "src/spatialwhisperer/networks/__init__.py") is None


def test_tests_of_the_mirroring_file_come_first_and_the_most_specific_ones_of_others_next() -> None:
    narrow, wide, own = "tests/b.py::narrow", "tests/a.py::wide", "tests/m.py::own"
    lines = {HERE: {2: [narrow, wide], 3: [wide]}, "src/spatialwhisperer/tl/query.py": {1: ["tests/c.py::far"]}}
    reach = Reach(
        lines, dict.fromkeys([narrow, wide, own, "tests/c.py::far"], 1.0), {HERE: {"src/spatialwhisperer/tl/query.py"}}
    )
    inside, outside = mutations(HERE, b"def f():\n  x = 1\n"), mutations(HERE, b"\nx = 1\n")
    assert reach.tests(inside[0], "tests/m.py") == [own, narrow, wide]
    # what runs at import is noticed by those who import it
    assert set(reach.tests(outside[0], None)) == {"tests/c.py::far", narrow, wide}


def trial(outcome: str, after: str) -> Trial:
    return Trial(HERE, 3, "comparison", "a < b", after, outcome, "", 4, 0, 1.0)


def test_figures_count_faults_with_an_effect() -> None:
    listed = Equivalent(({"file": HERE, "before": "a < b", "after": "a <= b", "reason": "never equal"},))
    trials = [
        trial("killed", "a > b"),
        trial("timed out", "a > b"),
        trial("survived", "a > b"),
        trial("no test", "a <= b"),
    ]
    figures = Figures.of(trials, listed)
    assert figures.proportion() == pytest.approx(2 / 3)
    assert figures.table().splitlines()[2:] == ["| `tl` | 4 | 2 | 1 | 1 | 67% |", "| **all** | 4 | 2 | 1 | 1 | 67% |"]
    assert "a < b" in described(trials[2])
    assert listed.reason(trials[3]) == "never equal"


def test_faults_that_are_listed_as_without_effect_can_still_be_seeded(faults: dict[str, list]) -> None:
    for entry in Equivalent.read().entries:
        assert set(entry) == {"file", "before", "after", "reason"}, entry
        source = (ROOT / entry["file"]).read_bytes()
        found = {fault.lines(source) for fault in faults[entry["file"]]}
        assert (entry["before"], entry["after"]) in found, entry
