"""Models and encoders that are opened once for several slides."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

T = TypeVar("T")

_OPENED: ContextVar[dict[Hashable, Any] | None] = ContextVar("opened", default=None)


@contextmanager
def keeping_opened(kept: dict[Hashable, Any] | None = None) -> Iterator[None]:
    """Open each model and encoder at most once inside the block.

    Parameters
    ----------
    kept
        Holds what is opened, for blocks that follow one another; ``None`` forgets it with the block.
    """
    token = _OPENED.set({} if kept is None else kept)
    try:
        yield
    finally:
        _OPENED.reset(token)


def opened_once(key: Hashable, opener: Callable[[], T]) -> T:
    """What an opener returns, or inside `keeping_opened` what it returned before."""
    kept = _OPENED.get()
    if kept is None:
        return opener()
    if key not in kept:
        kept[key] = opener()
    return cast("T", kept[key])
