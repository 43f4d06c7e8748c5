"""Messages to the user: warnings, remarks, progress bars, and errors about what is not installed."""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

_HOME = str(Path(__file__).parent) + os.sep

logger = logging.getLogger("spatialwhisperer")
logger.addHandler(logging.NullHandler())


class SpatialWhispererWarning(UserWarning):
    """Something the user should know that does not stop the call."""


def warn(message: str) -> None:
    """Warn with the package's own class, pointing at the line outside the package that made the call."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HOME):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, SpatialWhispererWarning, stacklevel=level)


def inform(message: str) -> None:
    """Tell the user which choice was made for them; silent when ``settings.verbose`` is off."""
    from spatialwhisperer._settings import settings

    logger.info(message)
    if settings.verbose:
        from tqdm.auto import tqdm

        # through tqdm, so that a running bar is not torn
        tqdm.write(f"spatialwhisperer: {message}", file=sys.stderr)


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional module, or say which extra installs it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{module} is needed here and is not installed. Install it with: pip install 'spatialwhisperer[{extra}]'"
        ) from error


def import_torch_stack(module: str) -> ModuleType:
    """Import a module that loads torchvision; name the remedy where torch and torchvision do not match.

    Lightning draws random numbers when it is imported; Python's generator is as it was before.
    """
    state = random.getstate()
    try:
        return import_module(module)
    except RuntimeError as error:
        if "torchvision" not in str(error):
            raise
        raise ImportError(
            f"{module} cannot be imported because torch and torchvision come from different builds ({error}). "
            "Install a matching pair: pip install --force-reinstall torch torchvision"
        ) from error
    finally:
        random.setstate(state)


def listing(names: Iterable[Any], limit: int = 12) -> str:
    """Render what is there, for an error message."""
    names = [str(n) for n in names]
    if not names:
        return "none"
    return ", ".join(names[:limit]) + (f", … ({len(names)} in all)" if len(names) > limit else "")


def shortened(text: str, most: int = 80) -> str:
    """A text of the user for a message: its first characters where it is long."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def joined(values: Iterable[float]) -> str:
    """Numbers in a sentence: 100, 154 and 300."""
    *others, last = [f"{value:g}" for value in values]
    return f"{', '.join(others)} and {last}" if others else last


def progress(
    iterable: Iterable[Any] | None = None,
    *,
    total: int | None = None,
    desc: str = "",
    unit: str = "it",
    initial: int = 0,
) -> Any:
    """Wrap in a tqdm bar on stderr, off when the settings say so or stderr is not a terminal; ``initial`` are done already."""
    from tqdm.auto import tqdm

    from spatialwhisperer._settings import settings

    # disable=None lets tqdm decide from the terminal
    off = None if settings.progress else True
    return tqdm(iterable, total=total, desc=desc, unit=unit, initial=initial, disable=off)
