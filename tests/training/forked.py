"""Calls of a script, each in a process that is forked from one which has imported everything and trained nothing.

Torch cannot be forked after its threads ran, and takes seconds to import.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path

_SERVE = '''

def _forked(log, arguments):
    """Call ``main`` in a process of its own, and return how that ended; no process of it is left after five minutes."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        where = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(where, 1)
        os.dup2(where, 2)
        signal.alarm(300)
        try:
            main(*arguments)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    ended = os.waitpid(pid, 0)[1]
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    return ended


if __name__ == "__main__":
    import os
    import signal
    import traceback

    for line in sys.stdin:
        print(_forked(*json.loads(line)), flush=True)
'''


class Forked:
    """A script whose ``main`` is called with strings; it imports ``json`` and ``sys``.

    Parameters
    ----------
    source
        The script.
    folder
        Where it is written.
    """

    def __init__(self, source: str, folder: Path) -> None:
        path = folder / "script.py"
        path.write_text(source + _SERVE)
        self._process = subprocess.Popen(
            [sys.executable, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def __call__(self, log: Path, *arguments: Any) -> int:
        """Call ``main``, and return its exit code, below 0 for a signal. What it prints is in the log."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(log), [str(a) for a in arguments]]) + "\n")
        self._process.stdin.flush()
        return os.waitstatus_to_exitcode(int(self._process.stdout.readline()))
