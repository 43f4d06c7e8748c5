"""Compiled kernels whose machine code is kept on disk. Imports numba: import it inside functions."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numba

from spatialwhisperer._settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# numba sets the names of its options when it is imported, which type checkers do not see
_CONFIG: Any = numba.config


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function with :func:`numba.njit` when it is first called, and keep the machine code.

    Numba keeps it beside the source, or in the user's own cache. Where neither can be written, as in a container with a read-only
    installation and no home, it lies in ``settings.cache_dir / "kernels"``. Where that cannot be written either, each process compiles
    for itself.

    Parameters
    ----------
    options
        Of `numba.njit`.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        # numba raises a RuntimeError where it finds no folder for the code
        with suppress(RuntimeError):
            return numba.njit(cache=True, **options)(function)
        with suppress(RuntimeError), _in_the_cache_folder():
            return numba.njit(cache=True, **options)(function)
        return numba.njit(**options)(function)

    return compiled


@contextmanager
def _in_the_cache_folder() -> Iterator[None]:
    before = _CONFIG.CACHE_DIR
    _CONFIG.CACHE_DIR = str(settings.cache_dir / "kernels")
    try:
        yield
    finally:
        _CONFIG.CACHE_DIR = before
