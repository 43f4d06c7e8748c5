"""Collecting what the package says while it works on a slide."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from spatialwhisperer._messages import SpatialWhispererWarning, logger

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Notes:
    """What was said.

    Attributes
    ----------
    warnings
        Warnings of the package.
    remarks
        Choices that were made where an option was left out.
    """

    warnings: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


class _Collector(logging.Handler):
    def __init__(self, remarks: list[str]) -> None:
        super().__init__(logging.INFO)
        self.remarks = remarks

    def emit(self, record: logging.LogRecord) -> None:
        self.remarks.append(record.getMessage())


@contextmanager
def collected(*, others: bool) -> Iterator[Notes]:
    """Collect warnings and remarks of the package inside the block.

    Parameters
    ----------
    others
        Show the warnings of other packages when the block is left; otherwise they are dropped.
    """
    notes = Notes()
    handler, level = _Collector(notes.remarks), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            warnings.simplefilter("always", SpatialWhispererWarning)
            yield notes
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        for one in caught:
            if issubclass(one.category, SpatialWhispererWarning):
                notes.warnings.append(str(one.message))
            elif others:
                warnings.showwarning(one.message, one.category, one.filename, one.lineno)
        notes.warnings[:] = dict.fromkeys(notes.warnings)
