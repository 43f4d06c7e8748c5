"""Try one fault: put it in a copy of the project, run the tests that could notice it, say whether one did."""

from __future__ import annotations

import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tools.mutants.reach import Near, Reach, mirror, slow_files

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tools.mutants.mutations import Mutation

# Imported once, before the processes of the trials are forked: most of the time of a small test is their import
PRELOADED = (
    "anndata dask.array hypothesis igraph lightning matplotlib.pyplot numba pandas pooch pydantic scanpy scipy.stats scvi "
    "sklearn.linear_model spatialdata squidpy timm torch transformers"
).split()

IDLE_S = 90.0
"""Seconds without any use of the processor after which a trial counts as one that hangs."""


@dataclass(frozen=True)
class Trial:
    """What became of a fault."""

    file: str
    line: int
    kind: str
    before: str
    after: str
    outcome: str
    """``killed``, ``timed out`` (as good as killed), ``survived``, or ``no test``."""
    by: str
    """The test that failed first."""
    tests: int
    """How many tests could notice it, and were run if none failed."""
    left_out: int
    """How many more could, after the limit of time."""
    seconds: float

    @property
    def noticed(self) -> bool:
        """Whether a test failed, or did not end."""
        return self.outcome in ("killed", "timed out")

    def as_json(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)


class _Chosen:
    """A plug-in of pytest: run these tests in this order, and all of the mirroring file; remember the first that fails.

    Slow tests are chosen by file, and so are near ones, which end after the limit of time where none fails.
    """

    def __init__(self, order: list[str], mirror_file: str | None, slow: bool, limit: float | None = None) -> None:
        self.rank = {name: i for i, name in enumerate(order)}
        self.mirror_file, self.slow, self.limit = mirror_file, slow, limit
        self.marked = "slow" if slow else "not slow"
        self.failed, self.ran = "", 0

    def files(self) -> list[str]:
        """Files that hold the tests, the mirroring one first."""
        return list(dict.fromkeys([*filter(None, [self.mirror_file]), *(test.split("::")[0] for test in self.rank)]))

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if not self.slow and self.limit is None:
            keep = [i for i in items if i.nodeid in self.rank or i.nodeid.split("::")[0] == self.mirror_file]
            # a new test is not in the measurement yet: it comes first
            items[:] = sorted(keep, key=lambda item: self.rank.get(item.nodeid, -1))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.ran = len(session.items)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        own = bool(self.mirror_file) and nodeid.split("::")[0] == self.mirror_file
        if self.limit is not None and not own and not self.failed and time.process_time() > self.limit:
            pytest.exit("the limit of time", returncode=0)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.failed:
            self.failed = f"collection of {report.nodeid}"


class Laboratory:
    """A copy of the project in a temporary folder, in which one file at a time carries a fault."""

    def __init__(self, project: Path, limit: float) -> None:
        self.limit = limit
        self._temporary = tempfile.TemporaryDirectory(prefix="mutants-")
        self.root = Path(self._temporary.name).resolve() / "project"
        for file in _files_of(project):
            (self.root / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(project / file, self.root / file)
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(self.root / "src"),
            "OMP_NUM_THREADS": "1",
            "MPLBACKEND": "agg",
        }
        self._made = 0

    def close(self) -> None:
        """Remove the copy."""
        self._temporary.cleanup()

    def prepare(self) -> None:
        """Import what the package needs, and not the package, in this process, from which the trials are forked."""
        os.environ.update(self.environment)
        for name in PRELOADED:
            with suppress(ImportError):
                importlib.import_module(name)
        sys.path.insert(0, str(self.root / "src"))

    def attempt(self, mutation: Mutation, reach: Reach | Near) -> Trial:
        """Seed a fault, run the tests, and take the fault out again."""
        path = self.root / mutation.file
        source, times = path.read_bytes(), path.stat()
        mirror_file = mirror(self.root, mutation.file)
        tests, left_out = self._chosen(reach, mutation, mirror_file)
        started = time.perf_counter()
        try:
            path.write_bytes(mutation.applied(source))
            # Compiled files are taken for those of a source with the same size and time: no two faults share a time
            self._made += 1
            os.utime(path, (times.st_atime, times.st_mtime + 10 * self._made))
            fresh = _reaches_kernels(mutation, source)
            limit = self.limit if isinstance(reach, Near) else None
            outcome, by, ran = self._forked(tests, mirror_file, fresh_kernels=fresh, limit=limit)
            unnoticed = outcome in ("survived", "no test")
            slow = slow_files(self.root, mutation, reach) if unnoticed and isinstance(reach, Reach) else []
            if slow:
                found = self._forked(slow, None, fresh_kernels=fresh, slow=True)
                outcome, by, ran = (outcome, by, ran) if found[0] == "no test" else (*found[:2], ran + found[2])
        finally:
            path.write_bytes(source)
            os.utime(path, (times.st_atime, times.st_mtime))
        seconds = time.perf_counter() - started
        before, after = mutation.lines(source)
        at = (mutation.file, mutation.line, mutation.kind, before, after)
        return Trial(*at, outcome, by, ran, left_out, round(seconds, 1))

    def fails_anyway(self, tests: Iterable[str]) -> set[str]:
        """Which of these tests fail where there is no fault."""
        return {test for test in tests if not any(self._passes(test, slow) for slow in (False, True))}

    def _passes(self, test: str, slow: bool) -> bool:
        return self._forked([test], None, fresh_kernels=False, slow=slow)[0] == "survived"

    def _chosen(self, reach: Reach | Near, mutation: Mutation, mirror_file: str | None) -> tuple[list[str], int]:
        if isinstance(reach, Near):
            return reach.files(mutation.file, mirror_file), 0
        return self._within_limit(reach, mutation, mirror_file)

    def _within_limit(self, reach: Reach, mutation: Mutation, mirror_file: str | None) -> tuple[list[str], int]:
        tests = reach.tests(mutation, mirror_file)
        total, kept = 0.0, []
        for test in tests:
            total += reach.seconds[test]
            if total > self.limit and not (mirror_file and test.startswith(mirror_file)):
                break
            kept.append(test)
        return kept, len(tests) - len(kept)

    def _forked(
        self,
        tests: list[str],
        mirror_file: str | None,
        *,
        fresh_kernels: bool,
        slow: bool = False,
        limit: float | None = None,
    ) -> tuple[str, str, int]:
        """Run tests, or all tests of files up to a limit of time, or all slow ones, in a process of their own: how they ended, which failed first, how many were run."""
        result = self.root.parent / "result.json"
        result.unlink(missing_ok=True)
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            os.setsid()
            self._run_and_leave(_Chosen(tests, mirror_file, slow, limit), result, fresh_kernels)
        ended, sign = _ended(child, 60 * self.limit)
        if not ended or sign == signal.SIGXCPU:
            return "timed out", "", len(tests)
        if not result.exists():
            return "killed", "the process ended", len(tests)
        code, by, ran = json.loads(result.read_text())
        if code == pytest.ExitCode.NO_TESTS_COLLECTED:
            return "no test", "", 0
        return ("survived" if code == 0 else "killed"), by, ran

    def _run_and_leave(self, chosen: _Chosen, result: Path, fresh_kernels: bool) -> None:
        code = 1
        try:
            with (self.root.parent / "log.txt").open("w") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            os.chdir(self.root)
            # the processor's time, since a test takes longer on a machine with other work
            resource.setrlimit(resource.RLIMIT_CPU, (int(2 * self.limit + 60),) * 2)
            if fresh_kernels:
                _compile_kernels_again(self.root.parent / f"kernels-{self._made}")
            options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov", "-m", chosen.marked]
            code = int(pytest.main([*options, *chosen.files()], plugins=[chosen])) if chosen.files() else 5
            result.write_text(json.dumps([code, chosen.failed, chosen.ran]))
        finally:
            os._exit(code)


def _ended(child: int, seconds: float) -> tuple[bool, int]:
    """Wait for a process, and by which signal it was ended; where it does not end in time, or hangs, end it and those it started."""
    deadline = time.monotonic() + seconds
    ended, status = False, 0
    used, since = -1.0, time.monotonic()
    while not ended and time.monotonic() < deadline and time.monotonic() < since + IDLE_S:
        found, status = os.waitpid(child, os.WNOHANG)
        ended = found == child
        if (now := _ticks(child)) != used:
            used, since = now, time.monotonic()
        time.sleep(0.2)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if not ended:
        os.waitpid(child, 0)
    return ended, os.WTERMSIG(status) if ended and os.WIFSIGNALED(status) else 0


def _ticks(session: int) -> float:
    """Processor's time that the processes of a session have used; where the system does not say, the time of day."""
    if not Path("/proc/self/stat").exists():
        return time.monotonic()
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                total += int(fields[11]) + int(fields[12])
    return total


def _reaches_kernels(mutation: Mutation, source: bytes) -> bool:
    """Whether compiled functions may depend on a fault: numba's cache does not see a change in another file."""
    return b"numba" in source or mutation.function is None


def _compile_kernels_again(folder: Path) -> None:
    import numba

    os.environ["NUMBA_CACHE_DIR"] = numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]


def _files_of(project: Path) -> list[str]:
    """What the project consists of: the files that git knows, and new ones that it does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=project, check=True, capture_output=True).stdout.decode().split("\0")
    return [file for file in listed if file and (project / file).is_file()]
