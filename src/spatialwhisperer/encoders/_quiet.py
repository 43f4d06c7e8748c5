"""Silence of transformers while it opens a model."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def quiet() -> Iterator[None]:
    """Switch off the progress bars and messages of transformers, and restore its settings afterwards."""
    from transformers.utils import logging as hf

    level, bars = hf.get_verbosity(), hf.is_progress_bar_enabled()
    try:
        hf.set_verbosity(logging.ERROR)
        hf.disable_progress_bar()
        yield
    finally:
        hf.set_verbosity(level)
        if bars:
            hf.enable_progress_bar()
