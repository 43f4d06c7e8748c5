"""One call under watch: how it ends, and what it leaves behind."""

from __future__ import annotations

import linecache
import os
import signal
import traceback
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import spatialwhisperer as sw
from tests.torture.digests import changed, hashed, parts
from tests.torture.frame import Trial
from tests.torture.objects import folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOT = str(Path(sw.__file__).parent)
OWN = (ValueError, KeyError, TypeError, FileNotFoundError, FileExistsError, AttributeError, ImportError)
LIMIT_S = 60


class Hang(BaseException):
    """A call took too long."""


def judged(
    name: str, call: Callable[..., Any], data: Any, options: Mapping[str, Any], *, writes: tuple[str, ...] = ()
) -> tuple[Trial, Any]:
    """Call with an object, and judge how that ends.

    Parameters
    ----------
    name
        What was tried, for the message.
    call
        Called with the object and the options.
    data
        The object, watched; after an error it must be what it was before.
    options
        The options, watched: they are the caller's.
    writes
        Places, or the beginning of places, that a call which succeeds may write.

    Returns
    -------
    The trial, and what the call returned.
    """
    before, asked = parts(data), _watched(options)
    try:
        with quiet(), limited():
            out = call(data, **options)
    except Exception as error:  # noqa: BLE001 - any error is looked at
        why = foreign(error)
        left = changed(before, parts(data))
        if not why and left:
            why = f"{left[:3]} changed after {type(error).__name__}: {str(error)[:80]}"
        ended, out = "own error", None
    except Hang:
        return Trial("hang", f"{name}: no end after {LIMIT_S} s"), None
    else:
        left = [w for w in changed(before, parts(data)) if not _may(w, writes)]
        why, ended = (f"{left[:3]} changed", "") if left else ("", "accepted")
    if not why and _watched(options) != asked:
        why = "the caller's options are changed"
    return Trial(ended or "changed", f"{name}: {why}" if why else ""), out


def foreign(error: Exception) -> str:
    """Nothing for a message of this package, else where the error comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    line = linecache.getline(last.filename, last.lineno or 0).strip()
    if isinstance(error, OWN) and last.filename.startswith(ROOT) and line.startswith("raise"):
        return ""
    ours = [f for f in frames if f.filename.startswith(ROOT)]
    door = f"{Path(ours[-1].filename).relative_to(ROOT)}:{ours[-1].lineno}" if ours else "no line of the package"
    return f"{type(error).__name__}: {str(error)[:90]} ({door})"


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings, messages and network, in a folder where anything may be written."""
    import matplotlib.pyplot as plt

    here = Path.cwd()
    os.chdir(folder())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with sw.settings.override(verbose=False, progress=False, offline=True, cache_dir=folder() / "cache"):
                yield
    finally:
        os.chdir(here)
        plt.close("all")


@contextmanager
def limited() -> Iterator[None]:
    def late(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _watched(options: Mapping[str, Any]) -> dict[str, str]:
    # models are big, and other tests watch them
    return {
        key: str(parts(value)) if key in ("prediction", "train") else hashed(value)
        for key, value in options.items()
        if key != "model"
    }


def _may(where: str, writes: tuple[str, ...]) -> bool:
    # a record, colours and the order of keys go with anything that is written
    usual = ("order", "uns[spatialwhisperer]") if writes else ()
    return any(part in where for part in (*writes, *usual))
