"""What opening a folder must never do: an audit of the interpreter ends it at once."""

from __future__ import annotations

import builtins
import signal
import sys
from collections import Counter
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from tests.torture.frame import Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

_NEVER = (
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.spawn",
    "os.posix_spawn",
    "os.fork",
    "pickle.find_class",
)
_RUN = {"exec", "import"}
_FORBIDDEN: list[str] = []
"""Folder whose code must not run, while something is opened."""


class ForbiddenError(BaseException):
    """Nothing that catches errors catches this one."""


@contextmanager
def alone(folder: Path, *, seconds: int = 20) -> Iterator[None]:
    """No network, no other process, no pickle, nobody to answer a question, no code of the folder, and an end to what hangs."""
    _audit()
    ask, before = builtins.input, signal.signal(signal.SIGALRM, _refuse)
    builtins.input = _refuse  # type: ignore[assignment]
    _FORBIDDEN.append(str(folder))
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        _FORBIDDEN.pop()
        builtins.input = ask
        signal.signal(signal.SIGALRM, before)


def at_the_end(trials: Iterable[Trial], n: int, wrong: Callable[[Counter[str]], str]) -> Iterator[Trial]:
    """Let the last of ``n`` trials fail where all of them together are not what they should be."""
    outcomes: Counter[str] = Counter()
    for i, trial in enumerate(trials, start=1):
        outcomes[trial.outcome] += 1
        yield Trial(trial.outcome, trial.failure or wrong(outcomes)) if i == n else trial


@cache
def _audit() -> None:
    sys.addaudithook(_heard)


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if not _FORBIDDEN:
        return
    if event.startswith(_NEVER):
        raise ForbiddenError(f"{event} {arguments[:2]}")
    if event in _RUN and _FORBIDDEN[-1] in _file(arguments):
        raise ForbiddenError(f"{event} of {_file(arguments)}")


def _file(arguments: tuple[Any, ...]) -> str:
    """File of the code that is run or imported."""
    code = arguments[0] if arguments else None
    return str(getattr(code, "co_filename", arguments[1] if len(arguments) > 1 else ""))


def _refuse(*arguments: Any, **_: Any) -> None:
    raise ForbiddenError(f"asked, or took too long: {arguments[:1]}")
