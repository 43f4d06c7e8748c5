"""Limits on what files that somebody else wrote can make this process do.

Nothing that is read from a folder is believed before it was compared: sizes, depths, numbers. What a library raises about values
from such a folder becomes a ValueError that names the folder's part.
"""

from __future__ import annotations

import json
import os
import re
import stat
from contextlib import contextmanager
from functools import cache
from threading import get_ident
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch

LARGEST_JSON = 256 * 2**20
DEEPEST_JSON = 64
REMEDY = "Copy or download the folder again, or save what it holds again."

_STRUCTURE = b'[]{}"'
_PAIR = re.compile(rb"\[\]|\{\}")
_OTHERS = bytes(set(range(256)) - set(_STRUCTURE))
# buffers that are not stored, and weights that a library makes and the package throws away
_UNSTORED_VALUES, _UNSTORED_TENSORS = 4_000_000, 1000


@contextmanager
def opening(what: str, *, own: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn whatever a library raises about stored values into a ValueError.

    Parameters
    ----------
    what
        What is opened, for the message.
    own
        Errors of this package that are passed on.

    Raises
    ------
    ValueError
        Instead of any other error but ImportError, which is about the installation.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, (*own, ImportError)):
            raise
        # a panic of a library in Rust is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        said = " ".join(str(error).split())[:300] or "without a message"
        raise ValueError(f"{what} cannot be opened ({type(error).__name__}: {said}). {REMEDY}") from error


def read_bytes(path: Path, largest: int | None = None) -> bytes:
    """Read a file that is not larger than a limit; ``None`` takes the memory of this machine.

    Raises
    ------
    FileNotFoundError
        If it is no file.
    ValueError
        If it is larger.
    """
    found = os.stat(path)
    # opening a pipe would wait for somebody to write into it
    if not stat.S_ISREG(found.st_mode):
        raise FileNotFoundError(f"{path} is not a file.")
    limit = _memory() if largest is None else largest
    if found.st_size > limit:
        raise ValueError(f"{path} has {found.st_size} bytes, and at most {limit} are read. {REMEDY}")
    with open(path, "rb") as file:
        # a file that grows meanwhile is not the one that was measured
        return file.read(found.st_size + 1)


def parse_json(content: bytes, what: str) -> Any:
    """Parse JSON of bounded size and depth.

    Raises
    ------
    ValueError
        If it is too large, nested too deeply, or not JSON.
    """
    if len(content) > LARGEST_JSON:
        raise ValueError(f"{what} has {len(content)} bytes, and at most {LARGEST_JSON} are read. {REMEDY}")
    try:
        if _deeper_than(content, DEEPEST_JSON):
            raise ValueError(f"nested deeper than {DEEPEST_JSON} levels, or brackets that do not match")
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is not readable JSON ({error}). {REMEDY}") from error


def _deeper_than(content: bytes, depth: int) -> bool:
    """Whether brackets outside of strings are nested deeper; nothing is parsed for it."""
    # most files need no second look
    if content.count(b"[") + content.count(b"{") <= depth:
        return False
    # an escaped quote ends no string; the pairs of backslashes before it go first
    marks = content.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, delete=_OTHERS)
    # the end of a string and the start of the next cancel each other
    marks = marks.replace(b'""', b"")
    if b'"' in marks:
        marks = b"".join(marks.split(b'"')[::2])
    for _ in range(depth):
        if not marks:
            return False
        marks = _PAIR.sub(b"", marks)
    return bool(marks)


@contextmanager
def networks_within(values: int, tensors: int, what: str) -> Iterator[None]:
    """Refuse networks that are larger than their stored weights, while they are built and before they are filled.

    Parameters
    ----------
    values, tensors
        Number of stored values, and of the tensors that hold them. Buffers that are not stored have a small allowance.
    what
        What is built, for the message.

    Raises
    ------
    ValueError
        If more is built in this thread.
    """
    from torch.nn.modules import module

    left = [values + _UNSTORED_VALUES, tensors + _UNSTORED_TENSORS]
    thread = get_ident()

    def count(_module: torch.nn.Module, _name: str, value: torch.Tensor | None) -> None:
        # the hooks are those of the whole process
        if value is None or get_ident() != thread:
            return
        left[0] -= value.numel()
        left[1] -= 1
        if min(left) < 0:
            raise ValueError(
                f"The configuration of {what} asks for larger networks than its {tensors} tensors of {values} values: they do not "
                f"fit each other. {REMEDY}"
            )

    hooks = [
        module.register_module_parameter_registration_hook(count),
        module.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@cache
def _memory() -> int:
    """Bytes of memory of this machine."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 2**40
